"""The entry point of `runway-avatar`, and of `python -m livekit_plugins_runway.cli`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line.

    While modules are imported Ctrl-C ends the process at once, as it ends a program in C: Python's
    own way would print a traceback of imports. From the first command on it is an exception again
    (`misuse.py`), which ends sessions; and at the very end, once more, there is nothing left to
    tidy up.
    """
    _end_at_once_on_interrupt()
    from .app import app, quiet_logs

    quiet_logs(sys.argv)
    try:
        app(prog_name="runway-avatar")
    finally:
        _end_at_once_on_interrupt()


def _end_at_once_on_interrupt() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
