"""The home folder (LIKENESS_HOME): files of trainings, portraits of the command line, locks.

    catalog.sqlite, jobs.sqlite, objects/
                              catalog, queue and object store, unless the settings name databases and a bucket
    jobs/NAME/photos/         prepared photographs of the published adapter
    jobs/NAME/photos-new/     prepared photographs of a running training
    jobs/NAME/checkpoint/     checkpoint of a running training
    outputs/NAME/             portraits; NAME+NAME/: of several adapters
    locks/NAME.lock           one process at a time trains or deletes a name
    scratch/                  temporary files of servers and workers, see `scratch`
    tenants/TENANT/           jobs, outputs and locks of a tenant other than `local`
    reserve                   random bytes: space for deletions on a full disk, see reserve.py

Handles folders and counts only, not weights or images.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import AdapterBusy
from ..types import checked_name
from .catalog import LOCAL
from .files import make_private
from .records import ForgottenItem


@dataclass(frozen=True)
class Home:
    """The home folder, for one tenant. Folders are created at first use."""

    root: Path
    tenant: str = LOCAL

    def of(self, tenant: str) -> "Home":
        """The same home for another tenant. Raises UsageError."""
        return replace(self, tenant=checked_name(tenant))

    def photos_folder(self, name: str) -> Path:
        """For reading; not created, see `keep_photos`."""
        return self._folders(name)["prepared photographs"]

    @contextmanager
    def new_photos(self, name: str) -> Iterator[Path]:
        """A folder, not created yet, for photographs; removed at the end unless `keep_photos` moves it into place.

        The caller holds the name's lock.
        """
        folder = self._folders(name)["new photographs"]
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep_photos(self, name: str) -> None:
        """Replace the photographs of the name's earlier adapter by the new ones."""
        shutil.rmtree(self.photos_folder(name), ignore_errors=True)
        self._folders(name)["new photographs"].rename(self.photos_folder(name))

    def checkpoint_folder(self, name: str) -> Path:
        return self._made("jobs", checked_name(name), "checkpoint")

    def outputs_folder(self, *names: str) -> Path:
        """For images of these adapters together."""
        return self._made("outputs", "+".join(checked_name(name) for name in names))

    @contextmanager
    def lock(self, name: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Lock a name against other processes, and other holders in this process.

        Raises:
            AdapterBusy: another process still holds it after `wait_s`.
        """
        file = self._made("locks") / f"{checked_name(name)}.lock"
        lock = FileLock(file)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            raise AdapterBusy(
                "another process is training or deleting this name", hint="wait until it has finished, or cancel it"
            ) from None
        try:
            yield
        finally:
            file.unlink(missing_ok=True)  # the file contains the name. Waiting processes check whether it was replaced
            lock.release()

    def drop_locks(self) -> None:
        """Delete lock files left by killed processes, of all tenants, because they contain names."""
        for folder in (self.root, *(self.root / "tenants").glob("*")):
            tenant = self.of(LOCAL if folder == self.root else folder.name)
            for file in (folder / "locks").glob("*.lock"):
                with suppress(AdapterBusy), tenant.lock(file.stem):
                    pass

    def holds(self, name: str) -> bool:
        """Whether there are files of this name, except its lock."""
        return any(folder.is_symlink() or folder.exists() for _, folder in self._places(name))

    def delete(self, name: str) -> tuple[ForgottenItem, ...]:
        """Delete prepared photographs, checkpoints and outputs of a name; the caller holds its lock.

        Returns:
            the deleted items, by kind.
        """
        places = self._places(name)
        return tuple(_deleted(kind, folder) for kind, folder in places if folder.is_symlink() or folder.exists())

    @property
    def _own(self) -> Path:
        return self.root if self.tenant == LOCAL else self.root / "tenants" / checked_name(self.tenant)

    def _folders(self, name: str) -> dict[str, Path]:
        job = self._own / "jobs" / checked_name(name)
        return {
            "prepared photographs": job / "photos",
            "new photographs": job / "photos-new",
            "checkpoints": job / "checkpoint",
            "other job files": job,
            "outputs": self._own / "outputs" / name,
        }

    def _places(self, name: str) -> list[tuple[str, Path]]:
        """All folders with data of a name."""
        combined = (folder for folder in (self._own / "outputs").glob("*+*") if name in folder.name.split("+"))
        return [*self._folders(name).items(), *(("outputs", folder) for folder in combined)]

    def _make_root(self) -> None:
        make_private(self.root)

    def _made(self, *parts: str) -> Path:
        self._make_root()
        return make_private(self._own.joinpath(*parts))


def _deleted(kind: str, folder: Path) -> ForgottenItem:
    if folder.is_symlink():
        folder.unlink()
        return ForgottenItem(kind, 1, 0)
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    item = ForgottenItem(kind, len(files), sum(path.lstat().st_size for path in files))
    shutil.rmtree(folder)
    return item
