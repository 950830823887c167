"""One training run: its folder, record, checkpoints, devices and processes."""
