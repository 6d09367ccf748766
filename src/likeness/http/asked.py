"""The rule of all documents of requests, in every protocol: known fields, each of its own JSON type.

A number is a number, not a string or a boolean, and it is finite. JSON has one type of numbers, so an integer may be
written with a fraction of zero: sliders of web pages send 50.0.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Asked(BaseModel):
    """A document of a request. Its integers are `Integer`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _whole(value: object) -> object:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole else value  # type: ignore[call-overload]


WHOLE = BeforeValidator(_whole)  # behind the limits of a field, which else are not in its schema
Integer = Annotated[int, WHOLE]
