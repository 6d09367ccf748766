"""One installation and its operations; `build` wires it. Importing this module loads no network and no torch.

The base is loaded once, by the first operation that needs it. Every operation takes a tenant and cannot see another
tenant's data.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..artifacts.exporting import FORMATS, Format
from ..artifacts.factors import EXTRACT
from ..config import Settings
from ..engine.prompts import worded
from ..engine.ticket import ImageEngine, StepEvent, Ticket, results
from ..errors import StorageError, StorageUnavailable, UsageError, reason_of
from ..storage.catalog import LOCAL, Catalog, adapter_exists
from ..storage.files import make_private
from ..storage.home import Home
from ..storage.library import AdapterLibrary, engine_key, engine_key_of
from ..storage.objects import refuse_full
from ..storage.prepared_photos import save_prepared
from ..storage.records import Receipt
from ..storage.reserve import Reserve
from ..types import (
    PNG,
    PREPARED_PX,
    Adapter,
    AdapterCard,
    Advance,
    GeneratedImage,
    ImageRequest,
    Photo,
    PreparedPhoto,
    ShouldStop,
    Stopwatch,
    Subject,
    Watch,
    checked_rank,
    checked_subject,
    kind_of,
    never,
    unwatched,
)
from . import kept
from .backup import Counts, backup
from .exchange import AUTO, exported, import_from, layout
from .fine_tuned import FineTuned
from .forgetting import WAIT_S, Forgetting
from .image_files import JPEG_QUALITY, encode, facts
from .loading import loaded_base, offered_sides, refuse_unservable, started_engine
from .picture_likeness import PictureLikeness, picture_likeness
from .provenance import Sign, signer
from .subjects import Subjects
from .training import Training, library_of

if TYPE_CHECKING:  # these import torch, OpenCV or both
    from ..artifacts.extraction import Extraction
    from ..diffusion.base import BaseModel
    from ..diffusion.family import BaseOutline, Family
    from ..engine.facts import EngineFacts
    from ..photos import CheckResult
    from ..training.recipe import FineTuneOrder
    from .restore import Restored

Checked = Callable[["CheckResult"], None]


def build(
    settings: Settings, formats: Mapping[str, Format] = FORMATS, *, engine: ImageEngine | None = None
) -> Likeness:
    """Wire one installation from its settings.

    Args:
        formats: of export.
        engine: used instead of one in this process, with its base; closed with the installation.

    Raises:
        SettingsError, MissingPart.
    """
    library = library_of(settings)
    likeness = Likeness(
        settings, Home(settings.home.expanduser()), library, Subjects(library.objects, library.catalog),
        signer(settings.c2pa_certificate, settings.c2pa_key), formats, [] if engine is None else [engine],
    )  # fmt: skip
    if engine is not None:
        vars(likeness)["base"] = engine.base
    return likeness


@dataclass(frozen=True, eq=False)
class Likeness:
    """One installation: a home, a store, a base, an engine."""

    settings: Settings
    home: Home
    library: AdapterLibrary
    subjects: Subjects
    sign: Sign
    formats: Mapping[str, Format] = field(default_factory=lambda: FORMATS)
    _engines: list[ImageEngine] = field(default_factory=list)  # one at most
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def catalog(self) -> Catalog:
        return self.library.catalog

    @property
    def base(self) -> BaseModel:
        """The base, loaded at first use; thread-safe. Raises NotFound, CorruptBase."""
        return self._loaded_base()

    def _loaded_base(self, *, trains: bool = False) -> BaseModel:
        with self._lock:
            if "base" not in self.__dict__:
                self.__dict__["base"] = loaded_base(self.settings, trains=trains)
            base: BaseModel = self.__dict__["base"]
            return base

    @property
    def family(self) -> Family:
        """Of the base; loads no weights. Raises NotFound, CorruptBase."""
        from ..diffusion.base import family_at

        loaded = vars(self).get("base")
        return loaded.family if loaded else family_at(self.settings.base, self.settings.revision)

    @cached_property
    def offered_sides(self) -> tuple[int, ...]:
        """See `loading.offered_sides`. Raises NotFound, CorruptBase."""
        return offered_sides(self.settings, self.family)

    @property
    def outline(self) -> BaseOutline:
        """The properties that an adapter must match; loads no weights. Raises NotFound, CorruptBase."""
        from ..diffusion.base import outline_of

        loaded = vars(self).get("base")
        return loaded.outline if loaded else outline_of(self.settings.base, self.settings.revision)

    @property
    def training(self) -> Training:
        """The training queue, opened at first use."""
        training: Training = self.__dict__.setdefault("training", Training(self.settings, self.library))
        return training

    @property
    def forgetting(self) -> Forgetting:
        """Deletions of this installation, complete or under way."""
        return Forgetting(self.library, self.home, self.training)

    @property
    def engine(self) -> ImageEngine:
        """The one engine, started at first use. Raises OutOfMemory, NotFound, CorruptBase."""
        return self._started_engine(replace(self.settings, compile="off"))  # a few images are not worth the time

    def _started_engine(self, settings: Settings) -> ImageEngine:
        with self._lock:
            if not self._engines:
                if "base" not in vars(self):
                    refuse_unservable(self.settings)
                self._engines.append(started_engine(settings, self.base, self.library))
            return self._engines[0]

    def open(self) -> None:
        """Open the catalog and start the engine as a server's, so that errors appear before the first request.

        Raises:
            StorageUnavailable, StorageDamaged, SettingsError, NotFound, CorruptBase: see errors.
        """
        _ = self.catalog.engine
        self._started_engine(self.settings)
        self.reserve.keep()

    def engine_facts(self) -> EngineFacts | None:
        """The engine's metrics; None before it has started."""
        engines = list(self._engines)
        return engines[0].facts() if engines else None

    @property
    def reserve(self) -> Reserve:
        """Disk space reserved for deletions."""
        return self.forgetting.reserve

    def drop_stale_adapters(self) -> int:
        """Drop adapters from memory that another process has deleted or replaced; returns how many."""
        self.subjects.examined.drop_idle()
        engines = list(self._engines)
        if not engines or not (held := engines[0].held()):
            return 0
        gone = held - self.library.engine_keys()
        for key in gone:
            engines[0].forget(key)
        return len(gone)

    def close(self) -> None:
        """Stop the engine, restore the base, close the databases. The next operation opens them again."""
        with self._lock:
            while self._engines:
                self._engines.pop().close()
        self.training.close()
        self.catalog.close()

    # photographs and training

    def check(
        self, photos: Sequence[Photo], class_noun: str = Subject.class_noun, *,
        keep_strangers: bool = False, has_consent: bool = True, watch: Watch = unwatched,
    ) -> CheckResult:  # fmt: skip
        """Check photographs one by one and as a set. Raises InputRefused for too many.

        Args:
            class_noun: "" for pictures of a style.
            has_consent: False: pictures of a thing or a style with faces are refused, see `photos.check`.
        """
        from ..photos import check

        return check(
            photos, kind_of(class_noun), keep_strangers=keep_strangers, has_consent=has_consent, watch=watch
        )  # fmt: skip

    def prepare(
        self, checked: CheckResult, *, size_px: int = PREPARED_PX, aspects: Sequence[tuple[int, int]] = (),
        watch: Watch = unwatched,
    ) -> tuple[PreparedPhoto, ...]:  # fmt: skip
        """Training images of every usable photograph, in order; see `photos.prepare`."""
        from ..photos import prepare_usable

        return prepare_usable(checked, size_px=size_px, aspects=aspects, watch=watch)

    def train(
        self, photos: Sequence[Photo], order: FineTuneOrder, *, tenant: str = LOCAL, keep_strangers: bool = False,
        has_consent: bool = True, watch: Watch = unwatched, should_stop: ShouldStop = never,
        on_checked: Checked = lambda checked: None,
    ) -> FineTuned:  # fmt: skip
        """From photographs to a published adapter; a job that fails or is stopped publishes nothing.

        Args:
            keep_strangers: train on photographs that probably show another person too.
            has_consent: False: pictures of a thing or a style with faces are left out, see `photos.check`. The consent
                of a person is the caller's to check.
            on_checked: called with the verdicts, before a refused set raises.

        Raises:
            Mismatch: the recipe's rank is above the installation's largest.
            AlreadyExists: the name is taken and the order does not say to replace it.
            AdapterBusy: another process trains or deletes this name.
            InputRefused: too few usable photographs, or photographs of different people.
            StorageError: no space for adapter and checkpoint, raised before the training; or the adapter could not be
                published, and then the same order goes on from the last step.
            OutOfMemory: the training does not fit on the device in any way, said before any work.
            Interrupted: stopped; the same order goes on from where it was.
            TrainingError, Mismatch, NotFound, CorruptBase: see errors.
        """
        from ..training.checkpoint import SUFFIX
        from ..training.pipeline import adapter_bytes, fine_tune, stop_if
        from ..training.plan import plan_here
        from ..training.recipe import check_rank

        name, clock, home = order.subject.name, Stopwatch(), self.home.of(tenant)
        check_rank(order.recipe, self.settings.rank)
        with home.lock(name), home.new_photos(name) as new_photos:
            if not order.replace:
                self._refuse_taken(tenant, name)
            _, memory = plan_here(self.settings.base, self.settings.revision, order.recipe, people=1)
            with clock.stage("check"):
                checked = self.check(
                    photos, order.subject.class_noun, keep_strangers=keep_strangers, has_consent=has_consent,
                    watch=watch,
                )  # fmt: skip
            on_checked(checked)
            checked.raise_if_refused()
            stop_if(should_stop)
            with clock.stage("prepare"):
                family = self.family
                size_px = max(family.photo_px, order.recipe.resolution_px or 0)
                prepared = self.prepare(checked, size_px=size_px, aspects=family.aspects, watch=watch)
                save_prepared(prepared, make_private(new_photos))
            stop_if(should_stop)
            watch(Advance("load base", 0, 1))
            with clock.stage("load base"):
                base = self._loaded_base(trains=True)
                refuse_full(self.library.objects, adapter_bytes(base, order.recipe))
            folder = home.checkpoint_folder(name)
            adapter, losses = fine_tune(
                base, order, prepared, class_images=self.library.objects, checkpoint_folder=folder,
                watch=watch, should_stop=should_stop, clock=clock, memory=memory,
            )  # fmt: skip
            with clock.stage("publish"):
                try:
                    card = self.library.publish(adapter, tenant, replace=order.replace)
                except (OSError, StorageUnavailable) as error:
                    start = "the newest checkpoint" if any(folder.glob(f"*{SUFFIX}")) else "the first step"
                    raise StorageError(
                        f"the adapter is trained but was not published: {reason_of(error)}",
                        hint=f"correct this, then run the same command again: it continues from {start}",
                        code="FileFailed",
                    ) from error
                home.keep_photos(name)
                shutil.rmtree(folder)
        return FineTuned(card, checked, prepared, losses, clock.seconds)

    def warm_up(
        self, class_noun: str, count: int, *, watch: Watch = unwatched, should_stop: ShouldStop = never
    ) -> None:
        """Make the class images of a class noun that are not in the store yet, before a training needs them.

        Raises:
            UsageError: a class noun that no subject may have.
            Interrupted: stopped; finished batches are kept.
            StorageUnavailable: the store does not take them.
            OutOfMemory, NotFound, CorruptBase: as `base`.
        """
        from ..training.pipeline import stop_if
        from ..training.prior import class_latents

        checked_subject(Subject("nobody", class_noun))

        def progress(done: int) -> None:
            watch(Advance("class images", done, count))
            stop_if(should_stop)

        def unsaved(error: OSError | StorageUnavailable) -> None:
            raise error

        watch(Advance("class images", 0, count))
        class_latents(self.base, class_noun, count, objects=self.library.objects, progress=progress, unsaved=unsaved)

    # images

    def submit(
        self, requests: Sequence[ImageRequest], *, tenant: str = LOCAL, deadline_s: float | None = None,
        on_step: Callable[[int, StepEvent], None] | None = None, preview_every: int = 0,
        request_id: str | None = None, wait: bool = False,
    ) -> list[Ticket]:  # fmt: skip
        """Hand requests to the engine; `prompts.worded` completes their prompts. All are accepted, or none.

        Args:
            deadline_s: seconds from now; an image that is not done by then fails.
            on_step: called with the request's index after each of its steps, on the engine's thread: it must not block.
            preview_every: steps between two previews; 0 = none.
            request_id: for the log.
            wait: block while the engine's queue is full instead of refusing.

        Raises:
            EngineBusy: no room in the queue; `retry_after_s` says when to try again.
            NotFound: an adapter that is neither the tenant's nor a house adapter; found before the base is loaded.
            UsageError: see `prompts.worded`.
        """
        names = sorted({one.name for request in requests for one in request.adapters})
        found = {name: self.catalog.find_usable(tenant, name) for name in names}
        tickets: list[Ticket] = []
        with ExitStack() as on_error:
            for index, request in enumerate(requests):
                keyed = tuple(replace(one, name=engine_key(found[one.name])) for one in request.adapters)
                ticket = self.engine.submit(
                    worded(self.base, request, [found[one.name].card.subject for one in request.adapters]),
                    adapters=keyed, tenant=tenant, deadline_s=deadline_s,
                    on_step=partial(on_step, index) if on_step else None, preview_every=preview_every,
                    request_id=f"{request_id}-{index}" if request_id else None, wait=wait,
                )  # fmt: skip
                on_error.callback(ticket.cancel)
                tickets.append(ticket)
            on_error.pop_all()
        return tickets

    def generate(
        self, requests: Sequence[ImageRequest], *, tenant: str = LOCAL, watch: Watch = unwatched
    ) -> list[GeneratedImage]:
        """Make all images, in the order of `requests`; waits for room if the queue is full.

        Raises:
            NotFound, UsageError: as `submit`.
            CorruptAdapter, Mismatch: the adapter is damaged, or of another base.
        """
        total = len(requests)
        watch(Advance("generate", 0, total))
        tickets = self.submit(requests, tenant=tenant, wait=True)
        return results(tickets, lambda done: watch(Advance("generate", done, total)))

    def encode(self, image: GeneratedImage, media_type: str = PNG, *, quality: int = JPEG_QUALITY) -> bytes:
        """The image as a file with its provenance, signed if a key is configured. Raises UsageError."""
        return self.sign(encode(image, media_type, quality=quality), media_type)

    def keep(self, image: GeneratedImage, content: bytes, media_type: str, *, tenant: str = LOCAL) -> str:
        """Store an image's file until one of its adapters is forgotten; returns its id for `kept`.

        Raises:
            NotFound, AdapterBusy: an adapter was, or is being, forgotten while the image was made.
        """
        how = json.dumps(facts(image))
        return kept.keep(self.library, tenant, image.request.adapters, content, media_type, facts=how)

    def kept(self, id: str, *, tenant: str = LOCAL) -> tuple[bytes, str]:
        """A stored image's file and media type. Raises NotFound."""
        return kept.find(self.library, tenant, id)

    def picture_likeness(self, id: str, *, tenant: str = LOCAL) -> PictureLikeness:
        """How similar a stored image is to its subject. Raises NotFound; InputRefused: no face, or no photographs."""
        return picture_likeness(self.subjects, self.library, tenant, id)

    # adapters

    def adapter(self, name: str, *, tenant: str = LOCAL) -> Adapter:
        """Read a published adapter. Raises NotFound, CorruptAdapter."""
        return self.library.read(tenant, name)

    def export(self, name: str, format: str, path: Path, *, tenant: str = LOCAL) -> Path:
        """Write an adapter in another program's layout. Raises UsageError, NotFound, AlreadyExists."""
        layout(self.formats, format).export(self.adapter(name, tenant=tenant), path)
        return path

    def exported(self, name: str, format: str, *, tenant: str = LOCAL) -> bytes:
        """The output of `export` as bytes; a folder as tar.gz. Raises UsageError, NotFound."""
        return exported(layout(self.formats, format), self.adapter(name, tenant=tenant))

    def import_adapter(
        self, source: Path | bytes, name: str, format: str = AUTO, *,
        class_noun: str = Subject.class_noun, identifier: str = Subject.identifier, strength: float | None = None,
        extract: int | None = None, tenant: str = LOCAL,
    ) -> AdapterCard:  # fmt: skip
        """Publish an adapter from a file or folder of another program, or of another Likeness.

        Args:
            source, format: see exchange.import_from.
            class_noun, identifier: for files without a Likeness card; a card in the file goes before them.
            strength: of an adapter that was trained on the undistilled base, on this installation's distilled base.
            extract: the rank of the LoRA that is taken for a file that is none (DoRA), or one of a larger rank; the
                card's `extraction` has its error. None: such a file is refused.

        Raises:
            UsageError: a name or word that no adapter may have, an unknown format, a strength for another base, or a
                rank to extract that this installation does not serve.
            AlreadyExists: the name is taken.
            CorruptAdapter, InputRefused, Mismatch: see importing.read_foreign.
            Mismatch: its rank is above the installation's largest.
        """
        said = checked_subject(Subject(name, class_noun, identifier))
        self._refuse_taken(tenant, name)
        adapter = import_from(source, format, said, self.outline, self.formats, extraction=self._extraction(extract))
        if strength is not None:
            from ..artifacts.foreign import with_strength

            adapter = replace(adapter, card=with_strength(adapter.card, self.outline.sha256, strength))
        checked_rank(adapter.card.rank, self.settings.rank, or_else=EXTRACT)
        with self.home.of(tenant).lock(name):
            return self.library.publish(adapter, tenant)

    def refuse_unknown(self, name: str, *, tenant: str = LOCAL) -> None:
        """Raises NotFound if there is no subject, job, adapter or file of this name; UsageError if it is no name."""
        if not self.forgetting.knows(tenant, name):
            self.catalog.find_adapter(tenant, name)  # raises with the near miss

    def forget(self, name: str, *, tenant: str = LOCAL, wait_s: float = WAIT_S) -> Receipt:
        """Delete all of one name: subject, photographs, jobs, adapter, checkpoints, portraits; write the receipt.

        Jobs that wait or run are cancelled.

        Raises:
            NotFound: nothing of this name is here.
            AdapterBusy, DeletionUnfinished, StorageUnavailable: see `Forgetting.forget`.
        """
        self.refuse_unknown(name, tenant=tenant)
        sha256 = self.catalog.content_sha256(tenant, name)
        try:
            return self.forgetting.forget(tenant, name, wait_s=wait_s)
        finally:
            self.subjects.examined.drop(tenant, name)
            if sha256 is not None:
                for engine in self._engines:
                    engine.forget(engine_key_of(tenant, name, sha256))

    # backups

    def backup(self, *, tenant: str = LOCAL, done: Callable[[Counts], None] = lambda counts: None) -> Iterator[bytes]:
        """Subjects, photographs, adapters, kept images and past jobs as the parts of one zip, see `backup.backup`."""
        return backup(self.library, self.training, tenant, done)

    def restore(self, file: IO[bytes], *, tenant: str = LOCAL, restores_deleted: bool = False) -> Restored:
        """Restore a backup from a seekable file. What exists already is not changed.

        Args:
            restores_deleted: also names that were deleted here after the backup was made.

        Raises:
            InputRefused, StorageError: see `Restoration.restore`.
        """
        from .restore import Restoration

        settings = self.settings
        asked = Restoration(
            self.library, self.training, self.home.of(tenant), settings.keep_photos_days, settings.rank,
            restores_deleted,
        )  # fmt: skip
        return asked.restore(file)

    def _extraction(self, rank: int | None) -> Extraction | None:
        if rank is None:
            return None
        if not 1 <= rank <= self.settings.rank:
            raise UsageError(
                f"expected a rank to extract from 1 to {self.settings.rank}, got {rank}",
                hint="use a smaller rank, or set LIKENESS_RANK higher", param="extract",
            )  # fmt: skip
        from ..artifacts.extraction import Extraction
        from ..diffusion.layer_weights import LayerWeights

        return Extraction(rank, LayerWeights(self.settings.base, self.settings.revision))

    def _refuse_taken(self, tenant: str, name: str) -> None:
        if self.catalog.has_adapter(tenant, name):
            raise adapter_exists()
