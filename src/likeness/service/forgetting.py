"""Deletion of everything under a name, from the first record to the receipt.

    record -> jobs are cancelled -> objects, folders and rows are deleted -> no writer, nothing left -> logs of the
    databases are emptied -> the receipt replaces the record

Every step can be repeated. If a step is not possible yet, because a worker still holds a job, an object is being
written or a reader needs a database's log, the record stays, and `resume` continues the deletion in any server or
worker.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from ..errors import AdapterBusy, DeletionUnfinished, StorageUnavailable
from ..storage import forgettings
from ..storage.catalog import Catalog
from ..storage.home import Home
from ..storage.library import AdapterLibrary
from ..storage.records import ForgottenItem, Receipt
from ..storage.reserve import Reserve
from .sweeping import sweep
from .training import Training

WAIT_S = 20.0  # longer than the lease of a dead worker
_LOOK_S = 0.25
_WRITERS_S = 0.5
_KINDS = ("adapters", "photos", "outputs")


@dataclass(frozen=True, eq=False)
class Forgetting:
    """Deletes names of one installation."""

    library: AdapterLibrary
    home: Home
    training: Training

    @property
    def _catalog(self) -> Catalog:
        return self.library.catalog

    @property
    def reserve(self) -> Reserve:
        """The reserve of disk space for deletions."""
        return Reserve(self.home.root)

    def knows(self, tenant: str, name: str) -> bool:
        """Whether there is data of a name, or a deletion in progress. Raises UsageError."""
        return (
            self.home.of(tenant).holds(name)
            or self._catalog.holds(tenant, name)
            or self.training.holds(tenant, name)
            or forgettings.is_under_way(self._catalog, tenant, name)
        )

    def forget(self, tenant: str, name: str, *, wait_s: float = WAIT_S) -> Receipt:
        """Delete everything of a name. On a full disk the reserve is used.

        Raises:
            AdapterBusy: the name is being trained or deleted on this machine.
            DeletionUnfinished: not everything could be deleted within `wait_s`; `resume` continues.
            StorageUnavailable: likewise, because the store or a database is unavailable.
        """
        is_known = forgettings.is_under_way(self._catalog, tenant, name)
        with self.home.of(tenant).lock(name, wait_s=wait_s if is_known else 0.0):
            return self.reserve.used_by(lambda: self._forget(tenant, name, wait_s))

    def resume(self) -> int:
        """Continue all deletions in progress; returns the number of completed ones.

        A deletion that cannot continue does not delay others.

        Raises:
            StorageUnavailable: the catalog is unavailable.
            Exception: the first unexpected error of a deletion, after all others were tried.
        """
        done, errors = 0, []
        for one in forgettings.under_way(self._catalog):
            try:
                with self.home.of(one.tenant).lock(one.name):
                    done += self.reserve.used_by(partial(self._resume, one))
            except (AdapterBusy, StorageUnavailable):  # tried again next time
                continue
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return done

    def sweep(self) -> int:
        """Delete files of killed processes in the home folder and the store. Raises StorageUnavailable."""
        self.home.drop_locks()
        return sweep(self._catalog, self.training)

    def _forget(self, tenant: str, name: str, wait_s: float) -> Receipt:
        self._begin(tenant, name)
        end_s = time.monotonic() + wait_s
        while (reason := self._advance(tenant, name)) is not None:
            if time.monotonic() >= end_s:
                raise DeletionUnfinished(
                    f"the deletion is recorded, but not complete yet: {reason}",
                    hint="it continues by itself; when it is complete, its receipt appears among the receipts",
                )
            time.sleep(_LOOK_S)
        return self._finish(tenant, name)

    def _resume(self, one: forgettings.Forgetting) -> bool:
        """Whether the deletion is complete."""
        if self._advance(one.tenant, one.name) is not None:
            return False
        self._finish(one.tenant, one.name)
        return True

    def _begin(self, tenant: str, name: str) -> None:
        try:
            forgettings.begin(self._catalog, tenant, name)
        except StorageUnavailable:  # the disk is too full for the record: deleting data first makes space
            self._delete_objects(tenant, name)
            self.home.of(tenant).delete(name)
            forgettings.begin(self._catalog, tenant, name)

    def _advance(self, tenant: str, name: str) -> str | None:
        """Delete what can be deleted now. Returns the reason why something is left, or None."""
        self._delete(tenant, name)
        with ExitStack() as stack:
            if not all(stack.enter_context(place.alone(_WRITERS_S)) for place in self.training.places()):
                return "an object is being written to the object store"
            self._delete(tenant, name)  # objects written meanwhile; from here on there are no writers
            if self.training.holds(tenant, name):
                return "a worker has not released its training yet"
            if self._catalog.holds(tenant, name) or self._has_objects(tenant, name):
                return "new data was written meanwhile"
        if not self._catalog.scrub() or not self.training.scrub():
            return "a reader still needs the log of a database"
        return None

    def _finish(self, tenant: str, name: str) -> Receipt:
        receipt = forgettings.finish(self._catalog, tenant, name)
        if receipt is not None:
            return receipt
        # another process completed it
        return [one for one in self._catalog.list_receipts(tenant) if one.name == name][-1]

    def _delete(self, tenant: str, name: str) -> None:
        self._note(tenant, name, self.training.forget(tenant, name))
        self._note(tenant, name, self.home.of(tenant).delete(name))
        self._delete_objects(tenant, name)  # before the rows that name them
        self._note(tenant, name, self._catalog.forget(tenant, name))

    def _note(self, tenant: str, name: str, items: Sequence[ForgottenItem]) -> None:
        forgettings.note(self._catalog, tenant, name, [item for item in items if item.count])

    def _delete_objects(self, tenant: str, name: str) -> None:
        for kind in _KINDS:
            self.library.delete_all(tenant, kind, name)
        for key in self._catalog.keys_combined_with(tenant, name):
            self.library.objects.delete(key)

    def _has_objects(self, tenant: str, name: str) -> bool:
        return any(next(iter(self.library.objects.list(f"{tenant}/{kind}/{name}/")), None) for kind in _KINDS)
