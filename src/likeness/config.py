"""Settings: what an installation can be told. Read by the composition roots only; below them, plain values.

Every setting is an environment variable LIKENESS_<NAME>; the command line's options go before them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from .errors import SettingsError

PREFIX = "LIKENESS_"


@dataclass(frozen=True)
class Settings:
    """Everything there is to set."""

    home: Path = Path("~/.likeness")
    base: str = "built-in"  # or a folder in diffusers' layout, or a hub id
    revision: str | None = None  # commit of a hub id
    slots: int = 8  # adapters in device memory at once, the bare base included
    max_batch: int = 8  # pictures in one forward


def settings_from(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from LIKENESS_* variables.

    Raises:
        SettingsError: a variable of that prefix which is no setting, or a number out of its range.
    """
    given = {key.removeprefix(PREFIX).lower(): text for key, text in environment.items() if key.startswith(PREFIX)}
    known = {field.name for field in fields(Settings)}
    if unknown := given.keys() - known:
        names = ", ".join(PREFIX + name.upper() for name in sorted(known))
        raise SettingsError(f"{len(unknown)} unknown {PREFIX}* variable(s)", hint=f"known are {names}")
    settings = Settings()
    for name, text in given.items():
        settings = replace(settings, **{name: _value(name, text)})  # type: ignore[arg-type]
    return settings


def _value(name: str, text: str) -> object:
    if name == "home":
        return Path(text)
    if name not in ("slots", "max_batch"):
        return text
    least = 2 if name == "slots" else 1
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise SettingsError(f"expected {PREFIX}{name.upper()} to be a whole number of at least {least}")
    return int(text)
