"""What stays on this machine (LIKENESS_HOME): a training's scratch, portraits of the command line, locks.

    catalog.sqlite, objects/  published things, unless the settings name a database and a bucket instead
    jobs/NAME/photos/         prepared photographs of the adapter that is published
    jobs/NAME/photos-new/     those of a training under way
    jobs/NAME/checkpoint/     a training under way
    outputs/NAME/             portraits
    locks/NAME.lock           one process at a time trains or deletes a name
    scratch/                  temporary files of servers and workers, see `scratch`
    tenants/TENANT/           the four above, of a tenant that is not `local`
    reserve                   of no content: room for deletions on a full disk, see reserve.py
    class-images/             of no person: shared by all who train on one base and class noun

Knows nothing of weights or images: folders and counts.
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
    """The folder of one installation, as one tenant sees it. What is written to is made when it is first asked for."""

    root: Path
    tenant: str = LOCAL

    def of(self, tenant: str) -> "Home":
        """The same home for another tenant. Raises UsageError."""
        return replace(self, tenant=checked_name(tenant))

    def photos_folder(self, name: str) -> Path:
        """To read from; not made, see `keep_photos`."""
        return self._folders(name)["prepared photos"]

    @contextmanager
    def new_photos(self, name: str) -> Iterator[Path]:
        """A folder, not made yet, for photographs that `keep_photos` puts in place before the block ends, or never.

        The caller holds the name's lock.
        """
        folder = self._folders(name)["new photos"]
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep_photos(self, name: str) -> None:
        """Put the new photographs where those of the name's earlier adapter were."""
        shutil.rmtree(self.photos_folder(name), ignore_errors=True)
        self._folders(name)["new photos"].rename(self.photos_folder(name))

    def checkpoint_folder(self, name: str) -> Path:
        return self._made("jobs", checked_name(name), "checkpoint")

    def outputs_folder(self, name: str) -> Path:
        return self._made("outputs", checked_name(name))

    def class_images_folder(self) -> Path:
        self._make_root()
        folder = self.root / "class-images"
        return make_private(folder)

    @contextmanager
    def lock(self, name: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the name against all other processes (and other holders in this one).

        Raises:
            AdapterBusy: another process still holds it after `wait_s`.
        """
        file = self._made("locks") / f"{checked_name(name)}.lock"
        lock = FileLock(file)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            raise AdapterBusy(
                "another process is training or deleting this name", hint="wait for it or cancel it"
            ) from None
        try:
            yield
        finally:
            file.unlink(missing_ok=True)  # it carries the name. Who waits for it looks again when it is gone
            lock.release()

    def drop_locks(self) -> None:
        """Delete the lock files of processes that were killed, of all tenants: they carry names."""
        for folder in (self.root, *(self.root / "tenants").glob("*")):
            tenant = self.of(LOCAL if folder == self.root else folder.name)
            for file in (folder / "locks").glob("*.lock"):
                with suppress(AdapterBusy), tenant.lock(file.stem):
                    pass

    def holds(self, name: str) -> bool:
        """Whether anything of this name is here, but for its lock."""
        return any(folder.is_symlink() or folder.exists() for folder in self._folders(name).values())

    def delete(self, name: str) -> tuple[ForgottenItem, ...]:
        """Delete prepared photographs, checkpoints and outputs of a name; the caller holds its lock.

        Returns:
            what was deleted, by kind.
        """
        folders = self._folders(name).items()
        return tuple(_deleted(kind, folder) for kind, folder in folders if folder.is_symlink() or folder.exists())

    @property
    def _own(self) -> Path:
        return self.root if self.tenant == LOCAL else self.root / "tenants" / checked_name(self.tenant)

    def _folders(self, name: str) -> dict[str, Path]:
        job = self._own / "jobs" / checked_name(name)
        return {
            "prepared photos": job / "photos",
            "new photos": job / "photos-new",
            "checkpoints": job / "checkpoint",
            "other job files": job,
            "outputs": self._own / "outputs" / name,
        }

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
