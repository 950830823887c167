"""From stored audio to batches: nothing in here knows of networks."""
