"""Likeness: photographs of somebody in, portraits of them from any prompt out."""

__version__ = "0.1.0"
