"""Text that came from elsewhere, for a terminal or a log."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Each control character as a space: none can end the line or give a terminal an order."""
    return "".join(c if c.isprintable() else " " for c in text)
