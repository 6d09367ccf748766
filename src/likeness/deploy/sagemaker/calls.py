"""Calls to AWS, made or only shown: whoever deploys is given one of two things that take the same words."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import HostUnavailable, MissingPart

_SHOWN_CHARACTERS = 400


class Calls(Protocol):
    """What `stack` and `invoke` need of AWS."""

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """One operation by its name in boto3. Raises Refused, HostUnavailable."""

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        """One of boto3's waiters. Raises HostUnavailable."""


class Refused(HostUnavailable):
    """Args: reason: AWS' own name for it."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, hint="look at names, region and the rights of the credentials")
        self.reason = reason


class Aws:
    """The real ones; credentials, region and endpoints are boto3's business (environment, profile, instance role)."""

    def __init__(self) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingPart("AWS needs the package boto3", hint="pip install 'likeness[aws]'") from error
        self._clients: dict[str, Any] = {}
        self._client: Callable[[str], Any] = lambda service: boto3.client(
            service, config=Config(retries={"mode": "standard", "max_attempts": 4}, read_timeout=70)
        )

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: Mapping[str, Any] = getattr(self._of(service), operation)(**arguments)
        except ClientError as error:
            said = error.response.get("Error", {})
            raise Refused(f"{service}: {said.get('Message', '')[:500]}", reason=str(said.get("Code", ""))) from error
        except BotoCoreError as error:
            raise HostUnavailable(
                f"expected an answer of {service}, got {type(error).__name__}", hint="check region and credentials"
            ) from error
        return answer

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        from botocore.exceptions import BotoCoreError

        try:
            self._of(service).get_waiter(waiter).wait(**arguments)
        except BotoCoreError as error:  # WaiterError is one
            raise HostUnavailable(
                f"{service} did not come to {waiter.replace('_', ' ')}",
                hint="CloudFormation's console names the reason",
            ) from error

    def _of(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._client(service)
        return self._clients[service]


class Rehearsal:
    """Shows each call and makes none. Reads answer as a new account would.

    Args:
        outputs: of a stack, as if it were there.
    """

    def __init__(self, show: Callable[[str], None], outputs: Mapping[str, str] | None = None) -> None:
        self._show, self._outputs = show, outputs

    def call(self, service: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        shown = {name: _shown(value) for name, value in arguments.items()}
        self._show(f"{service}.{operation}({json.dumps(shown, indent=2)})")
        if operation == "describe_stacks":
            if self._outputs is not None:
                named = [{"OutputKey": key, "OutputValue": value} for key, value in self._outputs.items()]
                return {"Stacks": [{"Outputs": named}]}
            raise Refused("there is no such stack", reason="ValidationError")
        return {}

    def wait(self, service: str, waiter: str, **arguments: Any) -> None:
        self._show(f"wait for {service} {waiter} ({json.dumps(arguments)})")


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"<{len(value)} characters>"
    return value
