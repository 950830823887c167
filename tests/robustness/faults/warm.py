"""All that the commands import, for the server that they are forked from."""

import src.scoring.comparison  # noqa: F401
import src.tagging.tagger  # noqa: F401
import src.training  # noqa: F401
from src.preparation.soundscapes import import_scaper

import_scaper()
