"""Where everything of one installation lives (LIKENESS_HOME), and how all of one person's goes away again.

    adapters/NAME/            published, see artifacts.adapter
    jobs/NAME/photos/         prepared photographs
    jobs/NAME/checkpoint/     a training under way
    outputs/NAME/             portraits
    staging/NAME/             half-made folders, never read
    class-images/             of no person: shared by all who train on one base and class noun
    receipts/                 what was deleted and when: counts, no content
    locks/NAME.lock           one process at a time trains or deletes a name

Knows nothing of weights or images: folders, cards and counts.
"""

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import AdapterBusy, AdapterExists, AdapterNotFound, CorruptAdapter
from ..types import AdapterCard, checked_name
from .card import FILE_NAME, MAX_BYTES, read_card


@dataclass(frozen=True)
class ForgottenItem:
    """One kind of thing that was deleted."""

    kind: str
    count: int  # files
    bytes: int


@dataclass(frozen=True)
class Receipt:
    """Proof of a deletion: what went and when, and nothing of what it was."""

    name: str
    items: tuple[ForgottenItem, ...]
    at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Home:
    """The folder of one installation. Folders are made when they are first asked for."""

    root: Path

    def adapter_folder(self, name: str) -> Path:
        """Where the adapter of this name is or would be; nothing is made."""
        return self.root / "adapters" / checked_name(name)

    def job_folder(self, name: str) -> Path:
        return self._made("jobs", checked_name(name))

    def photos_folder(self, name: str) -> Path:
        return self._made("jobs", checked_name(name), "photos")

    def checkpoint_folder(self, name: str) -> Path:
        return self._made("jobs", checked_name(name), "checkpoint")

    def outputs_folder(self, name: str) -> Path:
        return self._made("outputs", checked_name(name))

    def class_images_folder(self) -> Path:
        return self._made("class-images")

    def new_staged_folder(self, name: str) -> Path:
        """A path that does not exist, on the file system of `adapters`: write there, then `publish`."""
        return Path(tempfile.mkdtemp(dir=self._made("staging", checked_name(name)))) / "adapter"

    def publish(self, name: str, staged_folder: Path, *, replace: bool = False) -> Path:
        """Move a finished folder to adapters/NAME in one rename: readers see all of it or nothing.

        Args:
            staged_folder: on the file system of the home, as from `new_staged_folder`.
            replace: put an existing adapter aside first, then delete it.

        Raises:
            AdapterExists: there is one and `replace` is false.
            CorruptAdapter: the folder has no valid card, or one of another name.
        """
        if _card_in(staged_folder).name != checked_name(name):
            raise CorruptAdapter("expected a card of the name it is published under", hint="rename the card first")
        target = self._made("adapters") / name
        aside = self.new_staged_folder(name)
        if replace and target.exists():
            os.rename(target, aside)
        try:
            os.rename(staged_folder, target)
        except OSError as error:
            if target.exists():
                raise AdapterExists(
                    f"an adapter of the name {name} exists", hint="choose another name, replace it or forget it first"
                ) from error
            if aside.exists():
                os.rename(aside, target)
            raise
        shutil.rmtree(aside.parent)
        with suppress(OSError):  # what is left of the staging folders goes only if it is empty
            staged_folder.parent.rmdir()
            aside.parent.parent.rmdir()
        return target

    def list_adapters(self) -> tuple[AdapterCard, ...]:
        """Cards of all adapters that can be read, by name; `unreadable_adapters` names the others."""
        return tuple(card for _, card in self._cards() if card is not None)

    def unreadable_adapters(self) -> tuple[str, ...]:
        """Names under adapters/ whose card is missing or broken."""
        return tuple(name for name, card in self._cards() if card is None)

    def find(self, name: str) -> Path:
        """The folder of an adapter.

        Raises:
            AdapterNotFound: none of this name; the hint names one that is spelled nearly so.
        """
        folder = self.adapter_folder(name)
        if folder.is_dir():
            return folder
        near = difflib.get_close_matches(name, [known for known, _ in self._cards()], n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else "`likeness list` shows the adapters"
        raise AdapterNotFound("there is no adapter of this name", hint=hint)

    @contextmanager
    def lock(self, name: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the name against all other processes (and other holders in this one).

        Raises:
            AdapterBusy: another process still holds it after `wait_s`.
        """
        lock = FileLock(self._made("locks") / f"{checked_name(name)}.lock")
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            raise AdapterBusy(
                "another process is training or deleting this name", hint="wait for it or cancel it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def forget(self, name: str) -> Receipt:
        """Delete the adapter, prepared photographs, checkpoints and outputs of this name; write the receipt.

        Raises:
            AdapterNotFound: nothing of this name is here.
            AdapterBusy: it is being trained.
        """
        folders = {
            "adapter": self.adapter_folder(name),
            "prepared photos": self.root / "jobs" / name / "photos",
            "checkpoints": self.root / "jobs" / name / "checkpoint",
            "other job files": self.root / "jobs" / name,
            "outputs": self.root / "outputs" / name,
            "unfinished files": self.root / "staging" / name,
        }
        if not any(os.path.lexists(folder) for folder in folders.values()):
            self.find(name)  # raises with the near miss
        with self.lock(name):
            items = tuple(_deleted(kind, folder) for kind, folder in folders.items() if os.path.lexists(folder))
            receipt = Receipt(name, items, datetime.now(UTC).isoformat(timespec="microseconds"))
            self._write_receipt(receipt)
            # The lock file carries the name too. filelock looks again when the file it waited for is gone.
            (self.root / "locks" / f"{name}.lock").unlink(missing_ok=True)
        return receipt

    def _write_receipt(self, receipt: Receipt) -> None:
        stamp = receipt.at.replace(":", "").replace("+", "-")
        path = self._made("receipts") / f"{receipt.name}-{stamp}.json"
        path.write_text(json.dumps(asdict(receipt), indent=2) + "\n")

    def _cards(self) -> Iterator[tuple[str, AdapterCard | None]]:
        adapters = self.root / "adapters"
        for folder in sorted(adapters.iterdir()) if adapters.is_dir() else []:
            try:
                yield folder.name, _card_in(folder)
            except CorruptAdapter:
                yield folder.name, None

    def _made(self, *parts: str) -> Path:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)  # faces are in here
        folder = self.root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _card_in(folder: Path) -> AdapterCard:
    try:
        with (folder / FILE_NAME).open("rb") as file:
            return read_card(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise CorruptAdapter(
            f"expected card.json, got {type(error).__name__}", hint="forget it or publish again"
        ) from None


def _deleted(kind: str, folder: Path) -> ForgottenItem:
    if folder.is_symlink():
        folder.unlink()
        return ForgottenItem(kind, 1, 0)
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    item = ForgottenItem(kind, len(files), sum(path.lstat().st_size for path in files))
    shutil.rmtree(folder)
    return item
