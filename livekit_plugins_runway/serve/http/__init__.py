"""HTTP itself: who may hold a connection, and how answers go out. Knows nothing of sessions."""
