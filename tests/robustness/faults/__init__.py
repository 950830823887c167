"""The fault campaign: kills at any moment, and malformed input of every kind, through the command lines."""
