"""The whole system as one CloudFormation stack: made, updated, looked at, taken down.

Making it takes three steps, as an endpoint needs its package in the bucket, and the bucket is the stack's own: the
stack without endpoints, the package, the stack with them. The package's key is its hash: another package, another key,
new endpoints' configurations; the same package, no change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ...artifacts.package import pack
from ...errors import HostUnavailable, UsageError
from .calls import Calls, Refused

UNKNOWN = "BUCKET-OF-THE-STACK"  # in a rehearsal nobody has made it
REHEARSED = {"Bucket": UNKNOWN, "TuningEndpoint": "TUNING-OF-THE-STACK", "HostingEndpoint": "HOSTING-OF-THE-STACK"}
_NO_CHANGE = "No updates are to be performed"
_WAIT = {"Delay": 15, "MaxAttempts": 240}


@dataclass(frozen=True)
class Stack:
    """One deployment, by its stack's name."""

    calls: Calls
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the template, those that are not its defaults

    def deploy(self) -> dict[str, str]:
        """Make the stack, or bring it up to date; its outputs. Raises Refused, HostUnavailable."""
        if self.outputs() is None:
            self.calls.call("cloudformation", "create_stack", **self._described({}), OnFailure="DELETE")
            self.calls.wait("cloudformation", "stack_create_complete", StackName=self.name, WaiterConfig=_WAIT)
        content = tuning_package()
        key = f"code/{hashlib.sha256(content).hexdigest()[:16]}.tar.gz"
        self.calls.call("s3", "put_object", Bucket=self.bucket(), Key=key, Body=content)
        try:
            self.calls.call(
                "cloudformation", "update_stack", **self._described({"PackageKey": key}, self._said_before())
            )
        except Refused as error:
            if _NO_CHANGE not in error.message:
                raise
        else:
            self.calls.wait("cloudformation", "stack_update_complete", StackName=self.name, WaiterConfig=_WAIT)
        return self.outputs() or {}

    def outputs(self) -> dict[str, str] | None:
        """The stack's outputs; None where there is no such stack. Raises Refused, HostUnavailable."""
        found = self._found()
        return None if found is None else {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def bucket(self) -> str:
        """Its name. In a rehearsal a placeholder."""
        return (self.outputs() or {}).get("Bucket", UNKNOWN)

    def endpoint(self, output: str) -> str:
        """The name of TuningEndpoint or HostingEndpoint. Raises HostUnavailable: there is none yet."""
        name = (self.outputs() or {}).get(output)
        if name is None:
            raise HostUnavailable("the stack has no such endpoint", hint="`likeness deploy sagemaker deploy` makes it")
        return name

    def status(self) -> dict[str, object]:
        """The stack's outputs, and what each endpoint says of itself. Raises HostUnavailable: no stack."""
        outputs = self.outputs()
        if outputs is None:
            raise HostUnavailable("there is no such stack", hint="`likeness deploy sagemaker deploy` makes it")
        endpoints: dict[str, object] = {}
        for output in ("TuningEndpoint", "HostingEndpoint"):
            if output in outputs:
                said = self.calls.call("sagemaker", "describe_endpoint", EndpointName=outputs[output])
                variants = said.get("ProductionVariants", [{}])
                endpoints[output] = {
                    "name": outputs[output], "status": said.get("EndpointStatus"),
                    "instances": variants[0].get("CurrentInstanceCount"),
                }  # fmt: skip
        return {"stack": self.name, "outputs": outputs, "endpoints": endpoints}

    def teardown(self, *, with_data: bool = False) -> str:
        """Delete the stack; its bucket's name. The bucket stays, unless `with_data`: then all adapters go with it."""
        bucket = self.bucket()
        self.calls.call("cloudformation", "delete_stack", StackName=self.name)
        self.calls.wait("cloudformation", "stack_delete_complete", StackName=self.name, WaiterConfig=_WAIT)
        if with_data:
            while objects := self.calls.call("s3", "list_objects_v2", Bucket=bucket).get("Contents"):
                keys = [{"Key": one["Key"]} for one in objects]
                self.calls.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            self.calls.call("s3", "delete_bucket", Bucket=bucket)
        return bucket

    def _found(self) -> Mapping[str, Any] | None:
        try:
            stacks = self.calls.call("cloudformation", "describe_stacks", StackName=self.name)["Stacks"]
        except Refused as error:
            if error.reason == "ValidationError":  # AWS' way to say that there is none
                return None
            raise
        found: Mapping[str, Any] = stacks[0]
        return found

    def _said_before(self) -> list[str]:
        """Parameters that keep their value where this call says nothing of them; AWS would take the defaults."""
        return [one["ParameterKey"] for one in (self._found() or {}).get("Parameters", [])]

    def _described(self, more: Mapping[str, str], kept: Sequence[str] = ()) -> dict[str, Any]:
        said = {**self.parameters, **more}
        parameters: list[dict[str, object]] = [
            {"ParameterKey": k, "ParameterValue": v} for k, v in sorted(said.items())
        ]
        parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted({*kept} - {*said})]
        return {
            "StackName": self.name, "TemplateBody": template(), "Capabilities": ["CAPABILITY_IAM"],
            "Parameters": parameters,
        }  # fmt: skip


def template() -> str:
    """The CloudFormation template."""
    return (resources.files(__package__) / "template.yaml").read_text("utf-8")


def tuning_package() -> bytes:
    """The fine-tuning endpoint's model: serving.properties and model.py; the code that they call is in the image."""
    with resources.as_file(resources.files(__package__) / "djl") as folder:
        return pack(folder)


def parameters_of(words: list[str]) -> dict[str, str]:
    """KEY=VALUE words. Raises UsageError."""
    split = [word.partition("=") for word in words]
    if any(not separator or not key for key, separator, _ in split):
        raise UsageError("expected parameters of the form NAME=VALUE", hint="docs/deploy/sagemaker.md names them")
    return {key: value for key, _, value in split}
