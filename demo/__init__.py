"""`make demo`: an avatar on this machine. No part of the package."""

import sys
from pathlib import Path

# The demo's agent and its voice are examples, which are programs and no package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
