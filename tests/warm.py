"""All that scripts import, for the server that the tests fork them from."""

import conftest  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import torchaudio.functional  # noqa: F401

import src.preparation.own.prepare  # noqa: F401
import src.scoring.comparison  # noqa: F401
import src.tagging.tagger  # noqa: F401
import src.training  # noqa: F401
from src.preparation.soundscapes import import_scaper

import_scaper()
