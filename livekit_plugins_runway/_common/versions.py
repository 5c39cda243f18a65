"""The versions of LiveKit's packages that the tests ran with. Other versions are not refused; they
cause a warning.
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version

from ..log import logger

TESTED_AGENTS = ("1.8.9",)
"""Tested versions of livekit-agents; docs/compatibility.md has the results."""
TESTED_LIVEKIT = ("1.1.21", "1.2.1")
"""Tested versions of livekit, the SDK. Before one is added, walk through docs/sdk-quirks.md."""

_TESTED = {"livekit-agents": TESTED_AGENTS, "livekit": TESTED_LIVEKIT}


def untested_versions() -> list[str]:
    """The installed versions that were never tested, as "livekit-agents 1.9.0 (tested: 1.8.9)"."""
    found = []
    for name, tested in _TESTED.items():
        try:
            installed = version(name)
        except PackageNotFoundError:  # a frozen program without its metadata
            installed = "of an unknown version"
        if installed not in tested:
            found.append(f"{name} {installed} (tested: {', '.join(tested)})")
    return found


@functools.cache
def warn_of_untested_versions() -> None:
    """Log a warning if this package was never tested with what is installed; once in a process."""
    if untested := untested_versions():
        logger.warning(
            "this version of livekit-plugins-runway-bridge was not tested with %s: it may work, "
            "and if it does not, install a version that was tested",
            " and ".join(untested),
        )
