"""Adapters as files: our formats and those of other programs."""
