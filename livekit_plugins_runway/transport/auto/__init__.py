"""`transport="auto"`: begins with one transport, and goes over to the other where that one cannot
give a face."""
