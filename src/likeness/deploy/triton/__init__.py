"""Triton on this machine: the engine's process, the server in a network of its own, and the front that fills it."""
