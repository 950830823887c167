"""True events and scores over time -> sound event detection scores, exact over all thresholds."""

from src.learning.events.clips import EventTruth, FrameScores

__all__ = ["EventTruth", "FrameScores"]
