"""Forgetting a name, from the record that announces it to the receipt that proves it.

    record -> jobs are cancelled -> objects, folders and rows are deleted -> nobody writes, nothing is left -> logs of
    the databases are emptied -> the receipt takes the record's place

Every step can be repeated. Where one can not be taken now, because a worker has not let go of a job, somebody is
writing or a reader keeps the log of a database, the record stays and `resume` goes on with it, in any process that
tends the installation.
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

WAIT_S = 20.0  # longer than a worker that has died counts as alive
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
        """Room for deletions on the home's disk."""
        return Reserve(self.home.root)

    def knows(self, tenant: str, name: str) -> bool:
        """Whether anything of a name is here, or its deletion is under way. Raises UsageError."""
        return (
            self.home.of(tenant).holds(name)
            or self._catalog.holds(tenant, name)
            or self.training.holds(tenant, name)
            or forgettings.is_under_way(self._catalog, tenant, name)
        )

    def forget(self, tenant: str, name: str, *, wait_s: float = WAIT_S) -> Receipt:
        """Delete everything of a name. On a full disk the home's reserve is used.

        Raises:
            AdapterBusy: it is being trained or deleted on this machine.
            DeletionUnfinished: not everything could be deleted within `wait_s`; `resume` goes on with it.
            StorageUnavailable: the same, and the store or a database is away.
        """
        is_known = forgettings.is_under_way(self._catalog, tenant, name)
        with self.home.of(tenant).lock(name, wait_s=wait_s if is_known else 0.0):
            return self.reserve.used_by(lambda: self._forget(tenant, name, wait_s))

    def resume(self) -> int:
        """Go on with the deletions that are under way; returns how many were completed.

        One that cannot go on now holds up no other.

        Raises:
            StorageUnavailable: the catalog is away.
            Exception: an unexpected one of the first deletion that ended in one, after the others had their turn.
        """
        done, errors = 0, []
        for one in forgettings.under_way(self._catalog):
            try:
                with self.home.of(one.tenant).lock(one.name):
                    done += self.reserve.used_by(partial(self._resume, one))
            except (AdapterBusy, StorageUnavailable):  # the next time will do
                continue
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return done

    def sweep(self) -> int:
        """Delete what processes that were killed left in the home and the store. Raises StorageUnavailable."""
        self.home.drop_locks()
        return sweep(self._catalog, self.training)

    def _forget(self, tenant: str, name: str, wait_s: float) -> Receipt:
        self._begin(tenant, name)
        end_s = time.monotonic() + wait_s
        while (reason := self._advance(tenant, name)) is not None:
            if time.monotonic() >= end_s:
                raise DeletionUnfinished(
                    f"the deletion is recorded and not complete: {reason}",
                    hint="it goes on by itself; its receipt is among the receipts when it is complete",
                )
            time.sleep(_LOOK_S)
        return self._finish(tenant, name)

    def _resume(self, one: forgettings.Forgetting) -> bool:
        """Whether it is complete now."""
        if self._advance(one.tenant, one.name) is not None:
            return False
        self._finish(one.tenant, one.name)
        return True

    def _begin(self, tenant: str, name: str) -> None:
        try:
            forgettings.begin(self._catalog, tenant, name)
        except StorageUnavailable:  # a full disk takes no record: what is deleted first makes room for it
            self._delete_objects(tenant, name)
            self.home.of(tenant).delete(name)
            forgettings.begin(self._catalog, tenant, name)

    def _advance(self, tenant: str, name: str) -> str | None:
        """Delete what can be deleted now. Returns what stands in the way of the rest, None where there is none."""
        self._delete(tenant, name)
        with ExitStack() as stack:
            if not all(stack.enter_context(place.alone(_WRITERS_S)) for place in self.training.places()):
                return "something is being written to the object store"
            self._delete(tenant, name)  # what was written meanwhile; from here on nobody writes
            if self.training.holds(tenant, name):
                return "a worker has not let go of its training yet"
            if self._catalog.holds(tenant, name) or self._has_objects(tenant, name):
                return "something was written meanwhile"
        if not self._catalog.scrub() or not self.training.scrub():
            return "a reader keeps deleted pages in the log of a database"
        return None

    def _finish(self, tenant: str, name: str) -> Receipt:
        receipt = forgettings.finish(self._catalog, tenant, name)
        if receipt is not None:
            return receipt
        return [one for one in self._catalog.list_receipts(tenant) if one.name == name][-1]  # another was quicker

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

    def _has_objects(self, tenant: str, name: str) -> bool:
        return any(next(iter(self.library.objects.list(f"{tenant}/{kind}/{name}/")), None) for kind in _KINDS)
