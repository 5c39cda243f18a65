"""From the agent's frames to what the user has heard. Knows no room, no HTTP."""
