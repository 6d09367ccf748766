"""Likeness: portraits of people from any prompt, trained on about ten photographs."""

__version__ = "0.1.0"
