"""The two ways of speaking a segment: by the avatar, or by the plain voice. Pure."""
