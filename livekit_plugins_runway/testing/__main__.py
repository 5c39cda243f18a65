"""`python -m livekit_plugins_runway.testing`: the simulator as a process of its own."""

from __future__ import annotations

from .program.command import main

if __name__ == "__main__":
    main()
