"""Names for what an evaluation keeps: whatever was made from other facts lies under another name.

A figure that rests on something kept from an earlier run is then a figure of what it says it is.
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
