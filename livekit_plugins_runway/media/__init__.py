"""Tracks, pictures and sound in LiveKit rooms. Knows nothing of Runway."""
