"""Which Runway session is the avatar, from the first to the last of a call."""
