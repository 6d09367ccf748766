"""Names of cached results of an evaluation: a hash of the inputs, so that other inputs give another name.

A figure computed from a cached result therefore belongs to the inputs that it states.
"""

import hashlib
import json
from pathlib import Path


def key_of(**facts: object) -> str:
    """Twelve hexadecimal digits of a hash of JSON values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
