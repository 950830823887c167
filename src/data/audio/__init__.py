"""Audio files and bytes -> samples -> spectrograms."""
