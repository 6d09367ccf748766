"""Portraits -> a score card: do they show the person, follow the prompt, and show more than the photographs did?"""
