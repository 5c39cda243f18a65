"""Analyses the avatar's voice: its position in the speech, and whose words they are. Pure."""
