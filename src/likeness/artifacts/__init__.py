"""Adapters as bytes: folders, packages and the layouts of other programs."""
