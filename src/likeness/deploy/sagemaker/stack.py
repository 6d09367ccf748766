"""The CloudFormation stack: create, update, status, delete; and its parts.

An endpoint needs its package in the stack's own bucket, so a new stack takes three steps: the stack without endpoints,
the package, the stack with endpoints. The package's key is its hash: a changed package gives new endpoint
configurations, the same package gives no change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ...artifacts.package import pack
from ...errors import UsageError
from .aws import Aws, HostUnavailable, Refused

PLACEHOLDER = "BUCKET-OF-THE-STACK"
DRY_RUN_OUTPUTS = {
    "Bucket": PLACEHOLDER, "TuningEndpoint": "TUNING-OF-THE-STACK", "HostingEndpoint": "HOSTING-OF-THE-STACK",
}  # fmt: skip
ENDPOINTS = ("TuningEndpoint", "HostingEndpoint")
_NO_CHANGE = "No updates are to be performed"
_WAIT = {"Delay": 15, "MaxAttempts": 240}
_HINT = "`likeness deploy sagemaker deploy` makes it"


@dataclass(frozen=True)
class Stack:
    """One stack by its name."""

    calls: Aws
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the template; others keep their value

    def deploy(self) -> dict[str, str]:
        """Create or update the stack; returns its outputs. Raises Refused, HostUnavailable."""
        if self.outputs() is None:
            self.calls.call("cloudformation", "create_stack", **self._arguments({}), OnFailure="DELETE")
            self._wait("stack_create_complete")
        content = tuning_package()
        key = f"code/{hashlib.sha256(content).hexdigest()[:16]}.tar.gz"
        self.calls.call("s3", "put_object", Bucket=self.bucket(), Key=key, Body=content)
        kept = [one["ParameterKey"] for one in (self._description() or {}).get("Parameters", [])]
        try:
            self.calls.call("cloudformation", "update_stack", **self._arguments({"PackageKey": key}, kept))
        except Refused as error:
            if _NO_CHANGE not in error.message:
                raise
        else:
            self._wait("stack_update_complete")
        return self.outputs() or {}

    def outputs(self) -> dict[str, str] | None:
        """The stack's outputs; None: there is no such stack. Raises Refused, HostUnavailable."""
        found = self._description()
        return None if found is None else {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def bucket(self) -> str:
        """The name of its bucket; a placeholder in a dry run."""
        return (self.outputs() or {}).get("Bucket", PLACEHOLDER)

    def endpoint(self, output: str) -> str:
        """The name of one of `ENDPOINTS`. Raises HostUnavailable: not deployed."""
        name = (self.outputs() or {}).get(output)
        if name is None:
            raise HostUnavailable("expected a stack with this endpoint, got one without", hint=_HINT)
        return name

    def status(self) -> dict[str, object]:
        """The stack's outputs, and the status of its endpoints. Raises HostUnavailable: no stack."""
        outputs = self.outputs()
        if outputs is None:
            raise HostUnavailable("there is no such stack", hint=_HINT)
        endpoints: dict[str, object] = {}
        for output in ENDPOINTS:
            if output in outputs:
                found = self.calls.call("sagemaker", "describe_endpoint", EndpointName=outputs[output])
                endpoints[output] = {
                    "name": outputs[output], "status": found.get("EndpointStatus"),
                    "instances": found.get("ProductionVariants", [{}])[0].get("CurrentInstanceCount"),
                }  # fmt: skip
        return {"stack": self.name, "outputs": outputs, "endpoints": endpoints}

    def teardown(self, *, with_data: bool = False) -> str:
        """Delete the stack; returns its bucket, which stays unless `with_data`."""
        bucket = self.bucket()
        self.calls.call("cloudformation", "delete_stack", StackName=self.name)
        self._wait("stack_delete_complete")
        if with_data:
            while objects := self.calls.call("s3", "list_objects_v2", Bucket=bucket).get("Contents"):
                keys = [{"Key": one["Key"]} for one in objects]
                self.calls.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            self.calls.call("s3", "delete_bucket", Bucket=bucket)
        return bucket

    def _wait(self, waiter: str) -> None:
        self.calls.wait("cloudformation", waiter, StackName=self.name, WaiterConfig=_WAIT)

    def _description(self) -> Mapping[str, Any] | None:
        try:
            stacks: list[Mapping[str, Any]] = self.calls.call("cloudformation", "describe_stacks", StackName=self.name)[
                "Stacks"
            ]
        except Refused as error:
            if error.reason == "ValidationError":  # AWS's code for a stack that does not exist
                return None
            raise
        return stacks[0]

    def _arguments(self, more: Mapping[str, str], kept: Sequence[str] = ()) -> dict[str, Any]:
        """Args: kept: parameters of the existing stack; AWS would reset those that are not given to their defaults."""
        given = {**self.parameters, **more}
        parameters: list[dict[str, object]] = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in sorted(given.items())
        ]
        parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted({*kept} - {*given})]
        return {
            "StackName": self.name, "TemplateBody": template(), "Capabilities": ["CAPABILITY_IAM"],
            "Parameters": parameters,
        }  # fmt: skip


def template() -> str:
    """The CloudFormation template."""
    return _resource("template.yaml").read_text("utf-8")


def dockerfile() -> bytes:
    """The Dockerfile of the images; its context is the project's folder."""
    return _resource("image/Dockerfile").read_bytes()


def build_commands(path: Path) -> list[str]:
    """Shell commands that build the images of the Dockerfile at `path` and push them.

    AWS_REGION and AWS_ACCOUNT are environment variables. Account 763104351884 has AWS's Deep Learning Containers; other
    partitions have others. Sources: aws/deep-learning-containers, 'available images'; sagemaker-python-sdk,
    image_uri_config; read in November 2026.
    """
    return _resource("image/build.txt").read_text("utf-8").replace("DOCKERFILE", str(path)).splitlines()


def tuning_package() -> bytes:
    """The fine-tuning endpoint's model: serving.properties and model.py; the code that they call is in the image."""
    with resources.as_file(_resource("djl")) as folder:
        return pack(folder)


def _resource(path: str) -> Traversable:
    return resources.files(__package__).joinpath(path)


def parameters_of(pairs: Sequence[str]) -> dict[str, str]:
    """Parameters from NAME=VALUE texts. Raises UsageError."""
    split = [pair.partition("=") for pair in pairs]
    if any(not separator or not name for name, separator, _ in split):
        raise UsageError("expected parameters of the form NAME=VALUE", hint="docs/deploy/sagemaker.md names them")
    return {name: value for name, _, value in split}
