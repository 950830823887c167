"""Files that were released in 2021, and what the checkpoint then scored on the first record."""

import io

import soundfile
from conftest import FIXTURES

from src.data.lmdb.store import LMDBReader

CKPT = FIXTURES / "released_cifar_resnet_20.ckpt"
LMDB = FIXTURES / "released_mixtures_layout.lmdb"
FIRST_RECORD = [
    0.032832,
    0.176811,
    0.166018,
    0.012795,
    0.057329,
    0.01358,
    0.056095,
    0.049604,
    0.065482,
    0.103624,
    0.033764,
    0.16379,
    0.279529,
    0.084307,
    0.095119,
    0.053168,
    0.069392,
    0.013444,
]


def clip(index=0):
    """(110250,) samples of a released soundscape."""
    return soundfile.read(io.BytesIO(LMDBReader(LMDB)[index].flac), dtype="float32")[0]
