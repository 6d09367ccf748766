"""Measurements, one module per claim; `python -m bench` runs them all. See README.md."""
