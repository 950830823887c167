"""What a .cfg can say: its keys with their limits, and how it is read."""
