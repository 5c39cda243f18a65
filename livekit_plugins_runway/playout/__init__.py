"""The agent's audio sink: takes its frames, speaks them, and knows what the user has heard. Knows
no room, no HTTP.
"""
