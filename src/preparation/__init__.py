"""Making the data: isolated events -> soundscapes -> FLAC -> LMDB. Nothing in here knows of training."""
