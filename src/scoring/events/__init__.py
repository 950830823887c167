"""True events and scores over time -> sound event detection scores. Nothing here reads files or runs networks."""

from src.scoring.events.clips import EventTruth, FrameScores
from src.scoring.events.scores import bootstrap_event_scores, compare_event_scores, event_scores

__all__ = ["EventTruth", "FrameScores", "bootstrap_event_scores", "compare_event_scores", "event_scores"]
