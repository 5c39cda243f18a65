"""The simulated avatar worker."""
