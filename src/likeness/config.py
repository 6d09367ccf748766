"""Settings: what an installation can be told. Read by the composition roots only; below them, plain values.

    defaults  <  likeness.toml in the home  <  LIKENESS_<NAME> in the environment  <  the command line

Knows nothing of what the values do. A setting that is a secret is declared with `field(repr=False)`.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import SettingsError, reason_of

PREFIX = "LIKENESS_"
FILE_NAME = "likeness.toml"

# The settings that are whole numbers, with the least they may be; the others are texts.
_LEAST = {
    "slots": 2, "max_batch": 1, "rank": 1, "host_mb": 1, "queue_limit": 1, "deadline_s": 1, "requests_per_minute": 1,
    "concurrent_requests": 1, "upload_mb": 1, "heartbeat_s": 1, "keep_photos_days": 0, "private_webhooks": 0,
}  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,9}")
_PLACE = re.compile(r"\(at (line \d+, column \d+|end of document)\)")  # of tomllib's messages, which repeat the text
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Settings:
    """Everything there is to set."""

    home: Path = Path("~/.likeness")
    base: str = "built-in"  # or a folder in diffusers' layout, or a hub id
    revision: str | None = None  # commit of a hub id
    slots: int = 8  # adapters in device memory at once, the bare base included
    max_batch: int = 8  # pictures in one forward
    rank: int = 32  # the largest of an adapter: what is trained, imported and served, and what a slot has room for
    host_mb: int = 1024  # of host memory for adapters that are in no slot
    queue_limit: int = 256  # pictures that may wait; beyond it clients are told to come again
    deadline_s: int = 120  # a picture that cannot be finished by then is given up
    objects: str | None = None  # folder or s3://BUCKET/PREFIX for adapters and photographs; in the home by default
    catalog: str | None = field(default=None, repr=False)  # SQLAlchemy's URL, which may hold a password; likewise
    portrait_endpoint: str = "avatars"  # names of the endpoints of the SageMaker protocol
    training_endpoint: str = "fine-tuning"
    host_names: str | None = None  # with commas: of a proxy before a server without keys
    cors_origins: str | None = None  # with commas: of web pages that may call the server; * = any, with keys only
    requests_per_minute: int = 600  # of one API key
    concurrent_requests: int = 32  # likewise
    upload_mb: int = 256  # one request's photographs, or one adapter
    c2pa_certificate: str | None = None  # PEM files: chain and key that sign every picture's content credentials
    c2pa_key: str | None = None
    jobs: str | None = field(default=None, repr=False)  # SQLAlchemy's URL of the queue; jobs.sqlite in the home
    job_inputs: str | None = None  # s3://BUCKET/PREFIX and file:///FOLDER, with commas: places that jobs may read
    job_outputs: str | None = None  # one such place, for results of the SageMaker protocol; in the objects by default
    heartbeat_s: int = 5  # a worker that is silent for two of them loses its jobs to the others
    keep_photos_days: int = 30  # photographs of a subject, once they were trained on
    private_webhooks: int = 0  # 1: webhooks may call this machine and private networks
    api_key: str | None = field(default=None, repr=False)  # ours, on the server of `train --remote`
    smtp: str | None = field(default=None, repr=False)  # smtp://USER:PASSWORD@HOST:PORT or smtps://...
    mail_from: str = "likeness@localhost"
    sns_topics: str | None = None  # ARNs that may be told, with commas
    sns_success_topic: str | None = None  # told of every job of the SageMaker protocol that succeeded
    sns_error_topic: str | None = None  # ... that did not


def settings_from(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Settings:
    """Settings of one installation.

    Args:
        environment: its LIKENESS_* variables are read.
        home: goes before LIKENESS_HOME; the settings file is looked for there.

    Raises:
        SettingsError: a variable or key that is no setting, a value of the wrong type or out of its range,
            a settings file that cannot be read.
    """
    names = {PREFIX + field.name.upper(): field.name for field in fields(Settings)}
    variables = {key: text for key, text in environment.items() if key.startswith(PREFIX)}
    _refuse_unknown(variables, names, "the environment")
    said: dict[str, Any] = {names[key]: _from_text(names[key], text, key) for key, text in variables.items()}
    said["home"] = Path(home or said.get("home", Settings.home)).expanduser()
    return replace(Settings(), **(_from_file(said["home"] / FILE_NAME) | said))


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"expected to read {FILE_NAME}, got: {reason_of(error)}") from error
    try:
        said = tomllib.loads(content.decode("utf-8-sig"))  # editors of Windows put a byte order mark before it
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"expected {FILE_NAME} to be UTF-8, got other bytes in line {line}", hint="save it as UTF-8"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = _PLACE.search(str(error))
        where = f" at {found[1]}" if found else ""
        raise SettingsError(
            f"expected {FILE_NAME} to be TOML, got an error{where}", hint='for example: base = "built-in"'
        ) from error
    names = [field.name for field in fields(Settings) if field.name != "home"]  # the file lies in the home
    _refuse_unknown(said, names, FILE_NAME)
    return {name: _checked(name, value, f"{name} in {FILE_NAME}") for name, value in said.items()}


def _from_text(name: str, text: str, key: str) -> object:
    is_number = name in _LEAST and _NUMBER.fullmatch(text)
    return _checked(name, int(text) if is_number else text, key)


def _checked(name: str, value: object, said_as: str) -> object:
    least = _LEAST.get(name)
    if least is not None:
        if type(value) is not int or value < least:  # a bool is an int to isinstance
            got = value if type(value) is int else type(value).__name__
            raise SettingsError(f"expected {said_as} to be a whole number of at least {least}, got {got}")
    elif not isinstance(value, str) or not value:
        got = "an empty one" if value == "" else type(value).__name__
        raise SettingsError(f"expected {said_as} to be a text, got {got}")
    return value


def _refuse_unknown(keys: Iterable[str], known: Iterable[str], place: str) -> None:
    unknown = sorted(set(keys) - set(known))
    if unknown:
        named = ", ".join(key if _PLAIN_KEY.fullmatch(key) else "one that is no plain word" for key in unknown)
        raise SettingsError(f"unknown settings in {place}: {named}", hint=f"known are {', '.join(sorted(known))}")
