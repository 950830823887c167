"""All sound event detection scores of clips, of resamples of them, and of two networks beside each other."""

from src.scoring.events.scores import bootstrap_event_scores, compare_event_scores, event_scores

__all__ = ["bootstrap_event_scores", "compare_event_scores", "event_scores"]
