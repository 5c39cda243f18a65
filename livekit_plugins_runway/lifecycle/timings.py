"""What is measured of one avatar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class StageTimings:
    """Seconds from `AvatarSession.start()` to the end of each stage; None until it was reached."""

    created: float | None = None
    """Runway has made the session."""
    ready: float | None = None
    consumed: float | None = None
    connected: float | None = None
    """This process is in the Runway room."""
    worker_joined: float | None = None
    first_frame: float | None = None
    """The first picture was handed to the user's track."""
    live: float | None = None
    """The avatar can speak: its face is there, and the delivery of speech is open."""
    first_speech: float | None = None
    """The avatar was heard for the first time."""
