"""Where the front finds the adapter of a target model: in the library of this installation, or among archives.

A version changes with the weights, so that whoever retrained a name is served the new adapter, not a cached one.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from ...artifacts.library import AdapterLibrary, engine_key
from ...artifacts.triton.export import SUFFIX, open_artifact
from ...errors import NotFound
from ...storage.objects import Objects
from ...types import Adapter

_TARGET = re.compile(r"([a-z0-9_-]{1,63})/([a-z0-9_-]{1,63})\.tar\.gz")


class Source(Protocol):
    """Adapters by target model."""

    def version(self, target: str) -> str:
        """What `read` would give now, in a word. Raises NotFound."""

    def read(self, target: str) -> Adapter:
        """Raises NotFound, CorruptAdapter, ArchiveRefused."""


@dataclass(frozen=True)
class LibrarySource:
    """TENANT/NAME.tar.gz is the adapter of that name: nothing has to be exported first."""

    library: AdapterLibrary

    def version(self, target: str) -> str:
        return engine_key(self.library.catalog.find_adapter(*_tenant_and_name(target)))

    def read(self, target: str) -> Adapter:
        return self.library.read(*_tenant_and_name(target))


@dataclass(frozen=True)
class ArchiveSource:
    """Archives of `likeness export --format triton` under a prefix, as SageMaker has them in S3.

    As there, an archive that is replaced under its key is not noticed: use a new key for each training.
    """

    objects: Objects
    prefix: str = ""

    def version(self, target: str) -> str:
        if not target.endswith(SUFFIX) or not self.objects.has(self.prefix + target):
            raise NotFound(
                "there is no archive of this name",
                hint="`likeness export --format triton` makes one",
                code="AdapterNotFound",
            )
        return hashlib.sha256((self.prefix + target).encode()).hexdigest()

    def read(self, target: str) -> Adapter:
        try:
            return open_artifact(self.objects.get(self.prefix + target))
        except NotFound as error:
            raise NotFound(
                "the archive is not there any more", hint="it was deleted", code="AdapterNotFound"
            ) from error


def _tenant_and_name(target: str) -> tuple[str, str]:
    found = _TARGET.fullmatch(target)
    if found is None:
        raise NotFound("expected a target model of the form NAME.tar.gz", code="AdapterNotFound")
    return found[1], found[2]
