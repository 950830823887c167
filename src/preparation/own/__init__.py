"""A folder or a table of somebody's own recordings -> clips, LMDBs, label map and cfg."""
