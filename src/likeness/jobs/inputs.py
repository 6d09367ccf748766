"""The input of a job: an archive of photographs, with an optional config.json.

    {"name": "anna", "class_noun": "woman", "consent": "Anna agreed on 2026-03-01", "recipe": "fast", "seed": 3,
     "replace": false, "keep_strangers": false, "steps": 200, ...}

Everything but `name`, `class_noun`, `kind`, `consent`, `recipe`, `seed`, `replace` and `keep_strangers` is a field of
the recipe. A style has `"kind": "style"` and no class noun. Unknown and repeated keys are refused.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..artifacts.card import single_keys
from ..errors import InputRefused, UsageError, plain_name
from ..photos import looks_like_image, read_archive
from ..training.recipe import FineTuneRecipe
from ..types import Photo, class_noun_of
from .job import JobOrder

CONFIG_NAME = "config.json"
_MOST_BYTES = 64 << 10
_KINDS: Mapping[str, type] = {
    "name": str, "class_noun": str, "kind": str, "consent": str, "recipe": str, "seed": int, "replace": bool,
    "keep_strangers": bool,
}  # fmt: skip
CONFIG_KEYS = frozenset({*_KINDS, *(field.name for field in fields(FineTuneRecipe))})
_HINT = "correct config.json, or leave it out"


@dataclass(frozen=True)
class JobInput:
    """The content of an archive."""

    photos: list[Photo]
    config: dict[str, Any]

    @property
    def consent(self) -> str:
        """The consent in config.json, empty if there is none. It is not part of the order."""
        return str(self.config.get("consent", ""))


def read_input(content: bytes) -> JobInput:
    """Photographs and settings of one archive.

    Raises:
        InputRefused: the archive is hostile, damaged or too large; config.json cannot be read or has unknown keys.
    """
    read = read_archive(content)
    configs = [photo for photo in read if photo.name == CONFIG_NAME]
    if len(configs) > 1:
        raise InputRefused(f"expected one config.json, got {len(configs)}", hint=_HINT)
    photos = [photo for photo in read if photo.name != CONFIG_NAME]
    return JobInput(photos, read_config(configs[0].content) if configs else {})


def refuse_without_photos(photos: Sequence[Photo]) -> None:
    """Raises InputRefused: no file in the archive looks like an image."""
    if not any(looks_like_image(photo.content) for photo in photos):
        raise InputRefused(
            "expected photographs in the archive, got none", hint="send ten to twelve photographs", code="PhotosRefused"
        )


def pack_photos(photos: Sequence[Photo], config: Mapping[str, Any] | None = None) -> bytes:
    """Photographs and settings as the archive that `read_input` takes; equal inputs give equal bytes.

    Args:
        config: the content of config.json; None: no such file.
    """
    files = [(f"{i:03d}-{photo.name}", photo.content) for i, photo in enumerate(photos)]
    if config is not None:
        files.append((CONFIG_NAME, json.dumps(dict(config), sort_keys=True).encode()))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def read_config(content: bytes) -> dict[str, Any]:
    """The settings in a config.json. Raises InputRefused."""
    if len(content) > _MOST_BYTES:
        raise InputRefused(f"expected config.json of at most {_MOST_BYTES} bytes, got {len(content)}", hint=_HINT)
    try:
        text = content.decode("utf-8-sig")  # some Windows editors write a byte order mark
        config = json.loads(text, object_pairs_hook=single_keys)
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"expected config.json to be JSON, got {type(error).__name__}", hint=_HINT) from None
    if not isinstance(config, dict):
        raise InputRefused(f"expected config.json to be a JSON object, got {type(config).__name__}", hint=_HINT)
    if unknown := sorted(config.keys() - CONFIG_KEYS):
        named = ", ".join(map(plain_name, unknown[:10]))
        raise InputRefused(
            f"unknown keys in config.json: {named}", hint=f"known keys: {', '.join(sorted(CONFIG_KEYS))}"
        )
    for key, kind in _KINDS.items():
        if key in config and type(config[key]) is not kind:
            raise InputRefused(f"expected {key} in config.json as {kind.__name__}, got {type(config[key]).__name__}")
    return config


def with_config(order: JobOrder, config: Mapping[str, Any]) -> JobOrder:
    """The order with the values of config.json. Raises InputRefused for a value outside its limits."""
    if not config:
        return order  # checked when it was submitted
    changes = {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key != "consent"
    }
    said: dict[str, Any] = {key: changes.pop(key) for key in _KINDS if key in changes}
    try:
        if (kind := said.pop("kind", None)) is not None or "class_noun" in said:
            said["class_noun"] = class_noun_of(kind, said.get("class_noun"))
        changed = replace(order, **said, changes={**order.changes, **changes})
        changed.fine_tune()
    except UsageError as error:
        raise InputRefused(f"config.json: {error.message}", hint=error.hint) from error
    return changed
