"""The error of an invalid request: the field, and its limit or allowed values.

Texts that were sent are not repeated; names of fields only where they are plain words.
Source: pydantic, 'Validation errors': its messages are made of the model's limits.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError, plain_name

_RULE = re.compile(r"[A-Z]\w* should (.+)")  # 'Input should be less than or equal to 10'
_LARGEST = 10**9


def invalid(errors: Sequence[Mapping[str, Any]], *, hint: str) -> UsageError:
    """The first of pydantic's `errors()` as an error of ours; `param` is the field.

    Args:
        errors: with locations that begin at the field; a part in brackets is the tag of a form that a field can have.
    """
    first = errors[0]
    kind, path = str(first["type"]), [part for part in first["loc"] if isinstance(part, str) and part[:1] != "["]
    name = ".".join(path)
    field = name if plain_name(name) == name else None
    if kind == "extra_forbidden":
        message = f"expected known fields only, got {plain_name(name)}"
    elif kind == "json_invalid":
        message, field = "expected JSON, got something else", None
    elif kind == "missing":
        message = f"expected {field or 'a body'}, got none"
    elif (rule := _RULE.fullmatch(str(first["msg"]))) is not None:
        expected = re.split(", (?:got|not|unable) ", rule[1])[0]  # `got` follows in our words
        message = f"expected {field or 'the body'} to {expected}, got {_said(first.get('input'))}"
    else:
        message = f"expected another value for {field or 'the body'}"
    return UsageError(message, hint=hint, param=field)


def _said(value: object) -> str:
    """The value that was sent, without its text."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"{value}" if abs(value) <= _LARGEST or value != value else "a larger number"
        case str():
            return "a string of 1 character" if len(value) == 1 else f"a string of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case bytes():  # what the framework has not parsed
            return "a body without the content type application/json"
        case _:
            return "an object"
