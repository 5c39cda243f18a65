"""Measurements: `python -m bench` and its siblings. No part of the package."""
