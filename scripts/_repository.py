"""Puts the repository's root first on `sys.path`, so that a script imports the `src` of its own checkout.

Scripts import this before `src`. They then run without the project installed, from any folder. The other folders with
scripts hold links to this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
