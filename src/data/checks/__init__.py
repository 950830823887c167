"""LMDBs looked through: every record, each LMDB, and all against each other."""
