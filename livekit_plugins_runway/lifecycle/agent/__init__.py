"""What a call has of its agent: who is in its room, and its session's chain of audio outputs."""
