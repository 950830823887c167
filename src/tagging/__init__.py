"""Recordings -> what sounds in them."""

from src.tagging.tagger import Tagger

__all__ = ["Tagger"]
