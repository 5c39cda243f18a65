"""The agent's side of a call: who is in its room, and its session's chain of audio outputs."""
