"""Calls to AWS: made through boto3, or only printed (`--dry-run`)."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from ...errors import LikenessError, MissingPart

_SHOWN_CHARACTERS = 400


class HostUnavailable(LikenessError):
    """AWS does not answer, or lacks what was asked for: try again later."""

    http_status = 503


class ModelFailed(LikenessError):
    """The deployed model has failed at a request."""

    http_status = 424


class Refused(HostUnavailable):
    """Args: reason: AWS's error code."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, hint="check names, region and the permissions of the credentials")
        self.reason = reason


class Aws:
    """Calls through boto3, which finds credentials, region and endpoints (environment, profile, instance role)."""

    def __init__(self) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingPart(
                "expected the package boto3, which is not installed", hint="pip install 'likeness[deploy]'"
            ) from error
        config = Config(retries={"mode": "standard", "max_attempts": 4}, read_timeout=70)
        self._client = cache(lambda service: boto3.client(service, config=config))

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """One operation by its name in boto3. Raises Refused, HostUnavailable."""
        with _translated(service):
            answer: Mapping[str, Any] = getattr(self._client(service), operation)(**arguments)
            return answer

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        """One of boto3's waiters. Raises HostUnavailable."""
        with _translated(service):
            self._client(service).get_waiter(waiter).wait(**arguments)


@contextmanager
def _translated(service: str) -> Iterator[None]:
    """botocore's errors as ours."""
    from botocore.exceptions import BotoCoreError, ClientError, WaiterError

    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        message = f"{service}: {details.get('Message', '')[:500]}"
        raise Refused(message, reason=str(details.get("Code", ""))) from error
    except WaiterError as error:
        name = error.kwargs["name"]
        raise HostUnavailable(
            f"expected {service} to reach {name}, got another state", hint="the AWS console shows the reason"
        ) from error
    except BotoCoreError as error:
        raise HostUnavailable(
            f"expected an answer from {service}, got {type(error).__name__}", hint="check region and credentials"
        ) from error


class DryRun(Aws):
    """Prints each call and makes none. Reads are answered as in a new account.

    Args:
        outputs: of a stack that is assumed to exist.
    """

    def __init__(self, show: Callable[[str], None], outputs: Mapping[str, str] | None = None) -> None:
        self._show, self._outputs = show, outputs

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        shown = {name: _shortened(value) for name, value in arguments.items()}
        self._show(f"{service}.{operation}({json.dumps(shown, indent=2)})")
        if operation != "describe_stacks":
            return {}
        if self._outputs is None:
            raise Refused("there is no such stack", reason="ValidationError")
        named = [{"OutputKey": key, "OutputValue": value} for key, value in self._outputs.items()]
        return {"Stacks": [{"Outputs": named}]}

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        self._show(f"wait for {service} {waiter} ({json.dumps(arguments)})")


def _shortened(value: object) -> object:
    if isinstance(value, bytes) or (isinstance(value, str) and len(value) > _SHOWN_CHARACTERS):
        return f"<{len(value)} {'bytes' if isinstance(value, bytes) else 'characters'}>"
    return value
