"""Names of cached results of an evaluation: a hash of the inputs, so that other inputs give another name.

A figure computed from a cached result therefore belongs to the inputs that it states.
"""

import hashlib
import json
from pathlib import Path


def key_of(**facts: object) -> str:
    """Twelve hex digits of a hash of plain facts (JSON types, in any order of names)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def file_sha256(path: Path) -> str:
    """Of a whole file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
