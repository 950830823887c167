"""Soundscapes that are mixed when they are asked for, new ones in every epoch, and what JAMS files say of others."""
