"""LMDBs of clips: written, read, and what is kept beside them."""
