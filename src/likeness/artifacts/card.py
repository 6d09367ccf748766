"""card.json: the text form of an AdapterCard.

Every field is required but `serves` and `extraction`, unknown fields are refused, and each has a type and a range: a
card decides which base serves an adapter, so an incomplete card is refused and not completed with defaults. These two
are not written if they are empty: only the base of the training serves the adapter, and its weights are exactly those
of the file that was imported. Independent of the weights.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import get_origin, get_type_hints

from ..errors import CorruptAdapter, LikenessError
from ..types import AdapterCard, checked_name

FILE_NAME = "card.json"
MAX_BYTES = 1 << 20
MAX_STRENGTH = 4.0  # of an adapter on another base than that of its training
MAX_RANK = 256  # as for recipes
_MAX_CHARACTERS = 1000
_OPTIONAL = ("serves", "extraction")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HINT = "import the adapter again from an intact copy"


def strict_json(content: bytes) -> dict[str, object]:
    """Decode a JSON object; repeated keys, NaN and other JSON values are refused.

    Raises:
        CorruptAdapter: `content` is not such an object, or larger than 1 MiB.
    """
    if len(content) > MAX_BYTES:
        raise CorruptAdapter(f"expected at most {MAX_BYTES} bytes of JSON, got {len(content)}", hint=_HINT)
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=single_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise CorruptAdapter(f"expected a JSON object, got {type(error).__name__}", hint=_HINT) from None
    if not isinstance(value, dict):
        raise CorruptAdapter(f"expected a JSON object, got {type(value).__name__}", hint=_HINT)
    return value


def write_card(card: AdapterCard) -> bytes:
    """The bytes of card.json: sorted keys, so that equal cards are equal files.

    Raises:
        CorruptAdapter: a field is out of range; `read_card` accepts everything that is written.
    """
    values = {field.name: getattr(card, field.name) for field in fields(card)}
    values |= {"recipe": dict(card.recipe), "versions": dict(card.versions)}
    for name in _OPTIONAL:
        if not values[name]:
            del values[name]
        else:
            values[name] = dict(values[name])
    try:
        content = json.dumps(values, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise CorruptAdapter(
            f"expected a card of JSON values, got {type(error).__name__}",
            hint="recipe values must be numbers, strings, booleans, lists or null",
        ) from None
    read_card(content)
    return content


def read_card(content: bytes) -> AdapterCard:
    """Parse and check card.json.

    Raises:
        CorruptAdapter: not JSON, or a field is missing, unknown, of the wrong type or out of range.
    """
    values = {name: {} for name in _OPTIONAL} | strict_json(content)
    kinds = get_type_hints(AdapterCard)
    if missing := kinds.keys() - values.keys():
        raise CorruptAdapter(f"card.json has no {', '.join(sorted(missing))}", hint=_HINT)
    if unknown := values.keys() - kinds.keys():
        raise CorruptAdapter(
            f"card.json has {len(unknown)} unknown field(s)",
            hint="the adapter may come from a newer version of Likeness",
        )
    for name, kind in kinds.items():
        _check_kind(name, values[name], get_origin(kind) or kind)
    card = AdapterCard(**values)  # type: ignore[arg-type]  # the values' types are checked above
    _check_ranges(card)
    return card


def single_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For `json.loads(..., object_pairs_hook=)`: each key may occur once. Raises ValueError."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(_: str) -> object:
    raise ValueError("NaN and Infinity are not JSON")


def _check_kind(name: str, value: object, kind: type) -> None:
    allowed = (int, float) if kind is float else (Mapping if kind is Mapping else kind)
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise CorruptAdapter(
            f"card.json: expected {name} to be {kind.__name__}, got {type(value).__name__}", hint=_HINT
        )
    if isinstance(value, str) and len(value) > _MAX_CHARACTERS:
        raise CorruptAdapter(f"card.json: {name} has {len(value)} characters, at most {_MAX_CHARACTERS}", hint=_HINT)


def _check_ranges(card: AdapterCard) -> None:
    try:
        checked_name(card.name)
        made = datetime.fromisoformat(card.created) is not None
    except (LikenessError, ValueError):
        made = False
    rules = {
        "name and created": made,
        "identifier": bool(card.identifier),
        "base_sha256": _SHA256.fullmatch(card.base_sha256) is not None,
        "serves": all(
            _SHA256.fullmatch(sha256) and type(strength) in (int, float) and 0 < strength <= MAX_STRENGTH
            for sha256, strength in card.serves.items()
        ),
        "extraction": card.extraction.keys() in (set(), {"error", "largest_error"})
        and all(type(error) in (int, float) and 0 <= error < math.inf for error in card.extraction.values()),
        "content_sha256": card.content_sha256 == "" or _SHA256.fullmatch(card.content_sha256) is not None,
        "versions": all(isinstance(version, str) for version in card.versions.values()),
        "rank": 1 <= card.rank <= MAX_RANK,
        "alpha": 0 < card.alpha <= 1e6,
        "photos and steps": card.photos >= 0 and card.steps >= 0,
        "seconds": card.seconds >= 0 and math.isfinite(card.seconds),
    }
    if broken := [name for name, holds in rules.items() if not holds]:
        raise CorruptAdapter(f"card.json: out of range: {', '.join(broken)}", hint=_HINT)
