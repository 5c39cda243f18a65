"""`python -m livekit_plugins_runway.cli`."""

from .app import main

main()
