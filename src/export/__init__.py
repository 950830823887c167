"""A network that others run: its features and itself as one file."""
