"""Ctrl-C as an exception, for a command that may have something to tidy up."""

from __future__ import annotations

import signal
import threading


def as_exceptions() -> None:
    """Undo what the entry point has done for the time of the imports. Elsewhere (in a test, in a
    program that calls the app) nothing was done, and nothing is."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if is_ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
