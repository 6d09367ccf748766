"""The published adapters of every tenant: an object with the weights, then a row that makes it exist.

    <tenant>/adapters/<name>/<content_sha256>.safetensors

The command line, the server and the training workers publish and read through this one class. An object is never
overwritten with other bytes: its key holds its hash, so whoever has a key has those weights or nothing.
"""

import re
from dataclasses import dataclass

from ..errors import NotFound
from ..storage.catalog import Catalog
from ..storage.objects import Objects
from ..storage.records import AdapterRecord
from ..types import Adapter, AdapterCard, checked_name
from . import bundle

_KEY = re.compile(r"([a-z0-9_-]{1,63})/([a-z0-9_-]{1,63})/([0-9a-f]{64})")


@dataclass(frozen=True)
class AdapterLibrary:
    """Adapters in an object store, known to a catalog."""

    objects: Objects
    catalog: Catalog

    def publish(self, adapter: Adapter, tenant: str, *, replace: bool = False) -> AdapterCard:
        """Make an adapter exist under its card's name; readers see the old one or the new one.

        Returns:
            the card as stored, with `content_sha256`.

        Raises:
            AlreadyExists: the name is taken and `replace` is false.
            AdapterBusy: the name is being deleted.
            CorruptAdapter: NaN, shapes that do not fit, a card out of range.
        """
        kept, content = bundle.encode(adapter)
        record = AdapterRecord(tenant, kept.card, object_key(tenant, kept.card), len(content))
        with self.objects.writing():
            self.objects.put(record.key, content)
            try:
                before = self.catalog.publish(record, replace=replace)
            except Exception:
                if not self._is_named(record):  # the row that was in our way may be of the same weights
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
        return self._opened(record.key, record.card.content_sha256)

    def load(self, key: str) -> Adapter:
        """The adapter of an engine's key, see `engine_key`; asks the catalog nothing.

        Raises:
            NotFound: it was deleted or replaced.
            CorruptAdapter: its bytes are not what they were.
        """
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise NotFound("expected the key of an adapter", code="AdapterNotFound")
        tenant, name, sha256 = parts.groups()
        return self._opened(_object_key(tenant, name, sha256), sha256)

    def engine_keys(self) -> frozenset[str]:
        """What the engine may hold: the keys of all that is published now, see `engine_key`."""
        return frozenset(engine_key_of(*one) for one in self.catalog.published())

    def withdraw(self, tenant: str, card: AdapterCard) -> None:
        """Undo one publication, unless another has replaced it."""
        if self.catalog.withdraw(tenant, card.name, card.content_sha256):
            self.objects.delete(object_key(tenant, card))

    def delete_all(self, tenant: str, kind: str, name: str) -> int:
        """Delete every object of a name, those of interrupted publications too. Returns how many.

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

    def _opened(self, key: str, sha256: str) -> Adapter:
        try:
            content = self.objects.get(key)
        except NotFound as error:
            raise NotFound(
                "the adapter is not there any more", hint="it was deleted or replaced", code="AdapterNotFound"
            ) from error
        return bundle.reopen(content, sha256)


def engine_key(record: AdapterRecord) -> str:
    """What the engine calls an adapter: tenant, name and content, so that neither can be mistaken for another's."""
    return engine_key_of(record.tenant, record.name, record.card.content_sha256)


def engine_key_of(tenant: str, name: str, sha256: str) -> str:
    """The same by its parts."""
    return f"{tenant}/{name}/{sha256}"


def object_key(tenant: str, card: AdapterCard) -> str:
    """Where an adapter's bytes are."""
    return _object_key(tenant, card.name, card.content_sha256)


def _object_key(tenant: str, name: str, sha256: str) -> str:
    return f"{checked_name(tenant)}/adapters/{checked_name(name)}/{sha256}{bundle.SUFFIX}"
