"""Stands in for DJL Serving's module: what handlers see of it. After djl-serving, engines/python/setup/djl_python."""

import json
from collections.abc import Mapping
from typing import Any


class Input:
    """The first call is empty and has the options; later ones have HTTP headers and the body under `data`."""

    def __init__(self, properties: Mapping[str, str], body: bytes | None = None) -> None:
        self._properties, self._body = dict(properties), body

    def get_properties(self) -> dict[str, str]:
        return self._properties

    def is_empty(self) -> bool:
        return self._body is None

    def get_as_bytes(self, key: str | None = None) -> bytes | None:
        return self._body


class Output:
    """A status, a message and a body."""

    def __init__(self, code: int = 200, message: str = "OK") -> None:
        self.code, self.message, self.body = code, message, b""

    def add_as_json(self, value: Any) -> "Output":
        self.body = json.dumps(value, indent=2, allow_nan=False).encode()
        return self

    def error(self, error: str, code: int = 424, message: str = "invoke handler failure") -> "Output":
        self.code, self.message = code, message
        self.body = json.dumps({"code": code, "message": message, "error": error}).encode()
        return self
