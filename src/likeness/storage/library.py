"""The published adapters of all tenants: an object with the weights and a row in the catalog.

    <tenant>/adapters/<name>/<content_sha256>.safetensors

Command line, server and workers publish and read adapters with this class. The key of an object contains its hash, so
an object is never overwritten with other weights.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..artifacts import bundle
from ..errors import NotFound
from ..types import Adapter, AdapterCard, checked_name
from .catalog import Catalog
from .objects import Objects
from .records import AdapterRecord

_KEY = re.compile(r"([a-z0-9_-]{1,63})/([a-z0-9_-]{1,63})/([0-9a-f]{64})")


@dataclass(frozen=True)
class AdapterLibrary:
    """Adapters in an object store with rows in a catalog."""

    objects: Objects
    catalog: Catalog

    def publish(self, adapter: Adapter, tenant: str, *, replace: bool = False) -> AdapterCard:
        """Publish an adapter under its card's name, atomically.

        Returns:
            the card as stored, with `content_sha256`.

        Raises:
            AlreadyExists: the name is taken and `replace` is false.
            AdapterBusy: the name is being deleted.
            CorruptAdapter: NaN, inconsistent shapes, a card out of range.
        """
        kept, content = bundle.encode(adapter)
        record = AdapterRecord(tenant, kept.card, object_key(tenant, kept.card), len(content))
        with self.objects.writing():
            self.objects.put(record.key, content)
            try:
                before = self.catalog.publish(record, replace=replace)
            except Exception:
                if not self._is_named(record):  # the existing row may have the same weights
                    self.objects.delete(record.key)
                raise
        if before is not None and before != record.key:
            self.objects.delete(before)
        return kept.card

    def read(self, tenant: str, name: str) -> Adapter:
        """A published adapter, checked. Raises NotFound, CorruptAdapter, UsageError."""
        return self.at(self.catalog.find_adapter(tenant, name))

    def at(self, record: AdapterRecord) -> Adapter:
        """The weights of a record. Raises NotFound (deleted meanwhile), CorruptAdapter."""
        return self._opened(record.key, record.card.content_sha256, self.objects.get)

    def load(self, key: str, *, get: Callable[[str], bytes] | None = None) -> Adapter:
        """The adapter of an engine key, see `engine_key`; without a catalog query.

        Args:
            get: reads the object; None: the store's.

        Raises:
            NotFound: deleted or replaced.
            CorruptAdapter: the bytes have changed.
        """
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise NotFound("expected the key of an adapter", code="AdapterNotFound")
        tenant, name, sha256 = parts.groups()
        return self._opened(_object_key(tenant, name, sha256), sha256, get or self.objects.get)

    def engine_keys(self) -> frozenset[str]:
        """The engine keys of all published adapters, see `engine_key`."""
        return frozenset(engine_key_of(*one) for one in self.catalog.published())

    def withdraw(self, tenant: str, card: AdapterCard) -> None:
        """Undo one publication, unless it has been replaced."""
        if self.catalog.withdraw(tenant, card.name, card.content_sha256):
            self.objects.delete(object_key(tenant, card))

    def delete_all(self, tenant: str, kind: str, name: str) -> int:
        """Delete all objects of a name, also of interrupted publications. Returns their number.

        Args:
            kind: 'adapters', 'photos' or 'outputs'.
        """
        prefix = f"{checked_name(tenant)}/{kind}/{checked_name(name)}/"
        keys = [found.key for found in self.objects.list(prefix)]
        for key in keys:
            self.objects.delete(key)
        self.objects.prune(prefix)
        return len(keys)

    def _is_named(self, record: AdapterRecord) -> bool:
        try:
            return self.catalog.find_adapter(record.tenant, record.name).key == record.key
        except NotFound:
            return False

    def _opened(self, key: str, sha256: str, get: Callable[[str], bytes]) -> Adapter:
        try:
            content = get(key)
        except NotFound as error:
            raise NotFound(
                "the adapter no longer exists", hint="it was deleted or replaced", code="AdapterNotFound"
            ) from error
        return bundle.reopen(content, sha256)


def engine_key(record: AdapterRecord) -> str:
    """The engine's key of an adapter: tenant, name and content hash."""
    return engine_key_of(record.tenant, record.name, record.card.content_sha256)


def engine_key_of(tenant: str, name: str, sha256: str) -> str:
    """The engine key from its parts."""
    return f"{tenant}/{name}/{sha256}"


def object_key(tenant: str, card: AdapterCard) -> str:
    """The object key of an adapter."""
    return _object_key(tenant, card.name, card.content_sha256)


def _object_key(tenant: str, name: str, sha256: str) -> str:
    return f"{checked_name(tenant)}/adapters/{checked_name(name)}/{sha256}{bundle.SUFFIX}"
