"""Which Runway session is the avatar, throughout a call."""
