"""The simulated avatar worker: what it hears, says and shows."""
