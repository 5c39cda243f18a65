"""Runway's REST API and one realtime session. Knows no LiveKit room, no audio."""
