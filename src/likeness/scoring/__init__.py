"""Portraits -> score card: similarity to the person, prompt following, memorisation."""
