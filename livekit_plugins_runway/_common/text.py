"""Makes foreign text safe for a terminal or a log."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Replaces each control character by a space, so that none can end a line or control a
    terminal.
    """
    return "".join(c if c.isprintable() else " " for c in text)
