"""`runway-avatar doctor`: checks without and with a live session."""
