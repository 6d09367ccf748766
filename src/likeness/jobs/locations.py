"""Locations outside the object store that jobs may read and write: only those that the operator has named.

A caller names an object by URL; it is looked up in the location that the URL begins with, so neither '..', nor
another bucket, nor a file beside the folder can be reached, whatever the worker's own credentials allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputRefused, NotFound, UsageError
from ..storage.catalog import LOCAL
from ..storage.objects import Objects, checked_key, objects_at
from ..types import checked_tenant
from .job import JobOrder

MOST_BYTES = 1 << 30  # SageMaker's limit for an asynchronous payload


@dataclass(frozen=True)
class Locations:
    """The object store, and the locations outside it.

    Args:
        inputs: URLs (s3://bucket/prefix, file:///folder) under which inputs may lie; a tenant of a server with keys
            reads only below its own name there.
        outputs: the URL under which results are written.
    """

    objects: Objects
    inputs: Sequence[str] = ()
    outputs: str | None = None

    def read(self, location: str, tenant: str) -> bytes:
        """The bytes at a URL, or under a key of the tenant's own.

        Raises:
            InputRefused: not allowed, not there, or too large.
            StorageUnavailable: the location does not answer.
        """
        store, key = self.resolve(location, tenant)
        try:
            size = next((facts.bytes for facts in store.list(key) if facts.key == key), 0)
            if size > MOST_BYTES:
                raise InputRefused(f"expected an input of at most {MOST_BYTES} bytes, got {size}")
            return store.get(key)
        except NotFound:
            raise InputRefused(
                "expected an archive at the input location, got nothing", hint="upload it first"
            ) from None

    def resolve(self, location: str, tenant: str) -> tuple[Objects, str]:
        """The store and the key of a location. Raises InputRefused."""
        try:
            checked_tenant(tenant)
            if "://" not in location:
                if not location.startswith(f"{tenant}/"):
                    raise InputRefused("expected an object of this tenant, got another")
                return self.objects, checked_key(location)
            store, key = _within(location, self.inputs)
            if tenant != LOCAL and not key.startswith(f"{tenant}/"):
                raise InputRefused(
                    "expected a location of this tenant, got another",
                    hint="use a key below the location, in the folder of the tenant's name",
                )
            return store, key
        except UsageError as error:
            raise InputRefused(f"input location: {error.message}", hint=error.hint) from error

    def write(self, url: str, content: bytes) -> None:
        """Write an object under the outputs. Raises InputRefused, StorageUnavailable."""
        store, key = _within(url, () if self.outputs is None else (self.outputs,))
        store.put(key, content)

    def written(self, order: JobOrder) -> list[tuple[Objects, str]]:
        """Store and key of everything that a job may have left under the outputs."""
        call = order.invocation
        if call is None or self.outputs is None:
            return []
        urls = (call.output_location, call.failure_location, artifact_url(order))
        return [_within(url, (self.outputs,)) for url in urls if url.startswith(self.outputs)]


def artifact_url(order: JobOrder) -> str:
    """Where the packed adapter of an asynchronous invocation lies; its last part is the TargetModel."""
    folder = order.invocation.output_location.rpartition("/")[0] if order.invocation else ""
    return f"{folder}/{order.name}.tar.gz"


def _within(url: str, roots: Sequence[str]) -> tuple[Objects, str]:
    for root in roots:
        start = root.rstrip("/") + "/"
        if url.startswith(start):
            return objects_at(root), checked_key(url.removeprefix(start))
    raise InputRefused(
        "expected a location that this installation allows, got another",
        hint="the operator lists them in LIKENESS_JOB_INPUTS",
    )
