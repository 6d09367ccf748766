"""Settings of an installation. Only the composition roots read them; other modules get plain values.

    defaults  <  likeness.toml in the home  <  LIKENESS_<NAME> in the environment  <  the command line

docs/settings.md explains each setting. A secret is declared with `field(repr=False)`.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import SettingsError, UsageError, plain_name, reason_of
from .net.urls import MAIL_SCHEMES, web_url
from .types import TRAINING_ENDPOINT

PREFIX = "LIKENESS_"
FILE_NAME = "likeness.toml"

# Settings that are integers, with their minimum; the others are strings.
_LEAST = {
    "slots": 2, "max_batch": 1, "rank": 1, "host_mb": 1, "queue_limit": 1, "deadline_s": 1, "requests_per_minute": 1,
    "concurrent_requests": 1, "upload_mb": 1, "heartbeat_s": 1, "keep_photos_days": 0, "private_webhooks": 0,
    "training_wait_s": 0, "training_memory": 0,
}  # fmt: skip
_MOST = {"training_memory": 90}
_TOPIC = r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}"
_FORMS = {  # of settings that would fail only when they are used
    "compile": (re.compile("on|off"), "on or off"),
    "mail_from": (re.compile(r"[!-~]{1,64}@[A-Za-z0-9.-]{1,200}"), "an e-mail address"),
    "sns_topics": (re.compile(rf" *{_TOPIC} *(, *{_TOPIC} *)*"), "comma-separated ARNs of SNS topics"),
    "sns_success_topic": (re.compile(_TOPIC), "the ARN of an SNS topic"),
    "sns_error_topic": (re.compile(_TOPIC), "the ARN of an SNS topic"),
}
_NUMBER = re.compile(r"[0-9]{1,9}")
# the position in tomllib's messages, which also quote the text
_POSITION = re.compile(r"\(at (line \d+, column \d+|end of document)\)")


@dataclass(frozen=True)
class Settings:
    """All settings; see docs/settings.md."""

    home: Path = Path("~/.likeness")
    base: str = "built-in"  # or a folder in diffusers' layout, or a Hugging Face model id
    revision: str | None = None  # commit of the model id
    slots: int = 8  # slots in the bank, slot 0 included
    max_batch: int = 8  # guided images of the base's square in one denoising step
    rank: int = 32  # of the slots; the largest of an import or a changed recipe
    host_mb: int = 1024  # size of the host cache
    compile: str = "off"  # on: a server compiles the denoising network's blocks when it starts
    queue_limit: int = 256  # waiting images; further requests are refused
    deadline_s: int = 120  # time limit of an image
    objects: str | None = None  # folder or s3://BUCKET/PREFIX; default: in the home folder
    # SQLAlchemy URL, may contain a password; default: in the home folder
    catalog: str | None = field(default=None, repr=False)
    portrait_endpoint: str = "avatars"  # endpoint names of the SageMaker protocol
    training_endpoint: str = TRAINING_ENDPOINT
    host_names: str | None = None  # comma-separated: of a proxy in front of a server without API keys
    cors_origins: str | None = None  # comma-separated origins; *: any, with API keys only
    requests_per_minute: int = 600  # per API key
    concurrent_requests: int = 32  # per API key
    upload_mb: int = 256  # the photographs of one request, or one adapter
    c2pa_certificate: str | None = None  # PEM files that sign content credentials
    c2pa_key: str | None = None
    jobs: str | None = field(default=None, repr=False)  # SQLAlchemy URL; default: in the home folder
    job_inputs: str | None = None  # comma-separated s3://BUCKET/PREFIX and file:///FOLDER
    job_outputs: str | None = None  # one such location; default: the object store
    training_wait_s: int = 30  # of a step, for an engine on the same device that has requests
    training_memory: int = 0  # % of the memory of a device that workers and engine share; 0: all free memory
    heartbeat_s: int = 5  # a worker that misses two heartbeats loses its jobs
    keep_photos_days: int = 30  # of a subject, after training
    private_webhooks: int = 0  # 1: webhooks may call this machine and private networks
    api_key: str | None = field(default=None, repr=False)  # sent by `train --remote`
    smtp: str | None = field(default=None, repr=False)  # smtp://USER:PASSWORD@HOST:PORT or smtps://...
    mail_from: str = "likeness@localhost"
    sns_topics: str | None = None  # comma-separated ARNs
    sns_success_topic: str | None = None  # SageMaker protocol: for jobs that succeeded
    sns_error_topic: str | None = None  # SageMaker protocol: for jobs that failed


def settings_from(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Settings:
    """Settings of one installation.

    Args:
        environment: its LIKENESS_* variables are read.
        home: overrides LIKENESS_HOME; the settings file is in this folder.

    Raises:
        SettingsError: an unknown variable or key, a value of the wrong type or out of range, or a settings file that
            cannot be read.
    """
    names = {PREFIX + field.name.upper(): field.name for field in fields(Settings)}
    variables = {key: text for key, text in environment.items() if key.startswith(PREFIX)}
    _refuse_unknown(variables, names, "the environment")
    said: dict[str, Any] = {names[key]: _from_text(names[key], text, key) for key, text in variables.items()}
    said["home"] = Path(home or said.get("home", Settings.home)).expanduser()
    return replace(Settings(), **(_from_file(said["home"] / FILE_NAME) | said))


def listed(text: str | None) -> list[str]:
    """The parts of a comma-separated setting, without spaces around them; empty parts are left out."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(
            f"expected to read {FILE_NAME} in the home folder, got: {reason_of(error)}",
            hint="check --home or LIKENESS_HOME, and permissions",
        ) from error
    try:
        said = tomllib.loads(content.decode("utf-8-sig"))  # some Windows editors write a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"expected {FILE_NAME} to be UTF-8, got other bytes in line {line}", hint="save it as UTF-8"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = _POSITION.search(str(error))
        where = f" at {found[1]}" if found else ""
        raise SettingsError(
            f"expected {FILE_NAME} to be TOML, got an error{where}", hint='for example: base = "built-in"'
        ) from error
    names = [field.name for field in fields(Settings) if field.name != "home"]  # the file is in the home folder
    _refuse_unknown(said, names, FILE_NAME)
    return {name: _checked(name, value, f"{name} in {FILE_NAME}") for name, value in said.items()}


def _from_text(name: str, text: str, key: str) -> object:
    is_number = name in _LEAST and _NUMBER.fullmatch(text)
    return _checked(name, int(text) if is_number else text, key)


def _checked(name: str, value: object, said_as: str) -> object:
    least = _LEAST.get(name)
    if least is not None:
        if type(value) is not int or value < least:  # isinstance accepts bool as int
            got = value if type(value) is int else type(value).__name__
            raise SettingsError(f"expected {said_as} to be a whole number of at least {least}, got {got}")
        if value > _MOST.get(name, value):
            raise SettingsError(f"expected {said_as} to be at most {_MOST[name]}, got {value}")
    elif not isinstance(value, str) or not value:
        got = "an empty text" if value == "" else type(value).__name__
        raise SettingsError(f"expected {said_as} to be text, got {got}")
    elif name in _FORMS and not _FORMS[name][0].fullmatch(value):
        raise SettingsError(f"expected {said_as} to be {_FORMS[name][1]}, got another text")
    elif name == "smtp":
        try:
            web_url(value, schemes=MAIL_SCHEMES, what=said_as)
        except UsageError as error:
            raise SettingsError(error.message, hint="for example: smtps://USER:PASSWORD@HOST:PORT") from error
    return value


def _refuse_unknown(keys: Iterable[str], known: Iterable[str], place: str) -> None:
    unknown = sorted(set(keys) - set(known))
    if unknown:
        named = ", ".join(map(plain_name, unknown))
        raise SettingsError(f"unknown settings in {place}: {named}", hint=f"known settings: {', '.join(sorted(known))}")
