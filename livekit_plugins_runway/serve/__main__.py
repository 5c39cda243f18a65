"""`python -m livekit_plugins_runway.serve`: the command, by itself."""

import typer

from .command import serve

if __name__ == "__main__":
    typer.run(serve)
