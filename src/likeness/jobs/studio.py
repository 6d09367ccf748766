"""The trainer's work: who trains, who waits, and what is said about them.

Between two steps everybody who waits is let in as long as there is a slot. Three rules keep that fair and safe:
a job that needs a larger rank than the loop has waits for the loop to empty, and nobody else is let in meanwhile; a job
that may have killed an earlier process trains alone until its next checkpoint; when the device has no memory left, the
last to come goes back to the queue and the capacity falls for good.
"""

import io
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ..artifacts import bundle
from ..diffusion.base import BaseModel
from ..diffusion.devices import is_out_of_memory
from ..diffusion.sampling import AdapterSlot, denoise_all
from ..errors import CheckpointMismatch, Interrupted, LikenessError, OutOfMemory, StorageUnavailable
from ..fine_tuning import Checkpoints, FineTuneOrder, Stepped, Together, Unsaved, adapter_of, mark_of, training_set
from ..progress import Advance, Stopwatch
from ..scoring.score import score_adapter
from ..storage.objects import Objects
from ..training.data import TrainingSet
from ..training.recipe import recipe_named
from ..types import AdapterCard, ImageRequest, PreparedPhoto, Subject
from . import places
from .child import Inbox, Line, Said
from .prepared import unpack_prepared
from .types import JobOrder, read_order

SECONDS_BETWEEN_REPORTS = 1.0
SECONDS_BETWEEN_DELIVERIES = 2.0
PREVIEW_STEPS = 12
PREVIEW_PROMPT = "photo of {}"


@dataclass(eq=False)
class _Guest:
    """One job in here."""

    job: str
    order: JobOrder
    attempt: int
    is_alone: bool
    fine_tune: FineTuneOrder
    prepared: tuple[PreparedPhoto, ...] = ()
    reported_s: float = 0.0


class Studio:
    """One base on one device, and whoever trains on it.

    Args:
        capacity: most people at once.
        class_images: folder of the shared class images of this machine.
        previews: pictures at each checkpoint.
    """

    def __init__(
        self, base: BaseModel, objects: Objects, line: Line, inbox: Inbox, *,
        capacity: int, class_images: str, previews: int,
    ) -> None:  # fmt: skip
        self.base, self.capacity = base, capacity
        self._objects, self._line, self._inbox = objects, line, inbox
        self._class_images, self._previews = Path(class_images), previews
        self._waiting: list[_Guest] = []
        self._inside: dict[str, _Guest] = {}
        self._together: Together | None = None
        self._to_score: list[_Guest] = []
        self._undelivered: list[tuple[_Guest, AdapterCard, bytes]] = []  # trained, and the store does not take it
        self._next_delivery_s = 0.0

    def serve_once(self) -> bool:
        """Listen, let people in, take one step. False: the supervisor said stop."""
        idle = not self._inside and not self._waiting and not self._to_score
        for said in self._inbox.take((1.0 if self._undelivered else None) if idle else 0.0):
            if said["do"] == "stop":
                self._put_down()
                return False
            if said["do"] == "leave":
                self._leave(said["job"])
            elif said["do"] == "work":
                self._receive(said)
        while (guest := self._next()) is not None:
            self._waiting.remove(guest)
            self._let_in(guest)
        if self._together is not None and self._inside:
            self._step(self._together)
        self._deliver()
        if self._to_score:
            self._score(self._to_score.pop(0))
        return True

    def _receive(self, said: Said) -> None:
        try:
            guest = _guest(said)
        except LikenessError as error:  # an order that is none: this job's end, nobody else's
            self._fail(said["job"], error)
        else:
            (self._to_score if said.get("score") else self._waiting).append(guest)

    def _next(self) -> _Guest | None:
        """Who comes in now."""
        if not self._waiting or len(self._inside) >= self.capacity:
            return None
        guest = self._waiting[0]
        if self._inside:
            rank = self._together.loop.bank.rank if self._together is not None else 0
            if guest.is_alone or guest.fine_tune.recipe.rank > rank:
                return None
            if any(inside.is_alone for inside in self._inside.values()):
                return None
        return guest

    def _let_in(self, guest: _Guest) -> None:
        job = guest.job
        self._line.send(event="began", job=job)
        try:
            guest.prepared = unpack_prepared(self._objects.get(places.prepared_key(guest.order.tenant, job)))
            data = training_set(
                self.base, guest.fine_tune, guest.prepared, class_images=self._class_images,
                watch=lambda advance: self._report(guest, advance), should_stop=lambda: self._is_wanted_out(job),
                clock=Stopwatch(),
            )  # fmt: skip
            step = self._join(guest, data)
        except Interrupted:
            return  # it leaves; the supervisor asked for it and knows
        except (StorageUnavailable, OSError) as error:
            self._line.send(event="fault", job=job, fault=type(error).__name__, message="the object store")
        except LikenessError as error:
            self._fail(job, error)
        except (RuntimeError, MemoryError) as error:
            _raise_unless_full(error)
            self._make_room(guest)
        else:
            self._inside[job] = guest
            self._line.send(event="joined", job=job, step=step, steps=guest.fine_tune.recipe.steps,
                            together=len(self._inside))  # fmt: skip

    def _join(self, guest: _Guest, data: TrainingSet) -> int:
        rank = guest.fine_tune.recipe.rank
        if not self._inside:
            if self._together is not None and self._together.loop.bank.rank != _roomy(rank):
                self._together.close()
                self._together = None
            if self._together is None:
                self._together = Together(self.base, capacity=self.capacity, rank=_roomy(rank))
        assert self._together is not None
        checkpoints = self._checkpoints(guest)
        try:
            return self._together.join(guest.job, guest.fine_tune, data, checkpoints=checkpoints)
        except CheckpointMismatch:  # of another base or version: what it has learnt is worth nothing here
            checkpoints.clear()
            return self._together.join(guest.job, guest.fine_tune, data, checkpoints=checkpoints)

    def _step(self, together: Together) -> None:
        try:
            taken = together.step()
        except (RuntimeError, MemoryError) as error:
            _raise_unless_full(error)
            last = self._inside[list(self._inside)[-1]]
            self._drop(last.job)
            self._make_room(last)
        else:
            for stepped in taken:
                self._after(together, self._inside[stepped.name], stepped)

    def _after(self, together: Together, guest: _Guest, stepped: Stepped) -> None:
        job = guest.job
        self._tell_unsaved(job, stepped.unsaved)
        if stepped.error is not None:
            del self._inside[job]
            self._fail(job, stepped.error)
        elif stepped.trained is not None:
            del self._inside[job]
            try:
                kept, content = bundle.encode(adapter_of(self.base, guest.fine_tune, guest.prepared, stepped.trained))
            except LikenessError as error:  # numbers that float16 does not hold, say: this job's end, nobody else's
                self._fail(job, error)
                return
            self._report(guest, stepped.advance, always=True)
            self._undelivered.append((guest, kept.card, content))
        else:
            self._report(guest, stepped.advance)
            if stepped.saved:
                guest.is_alone = False  # it has got past where it was
                self._line.send(event="checkpoint", job=job, step=stepped.advance.done)
                with suppress(StorageUnavailable, OSError):  # a picture less to look at
                    self._preview(together, guest, stepped.advance.done)

    def _deliver(self) -> None:
        """Hand over what was learnt, as often as it takes."""
        if time.monotonic() < self._next_delivery_s:
            return
        for guest, card, content in list(self._undelivered):
            try:
                self._objects.put(places.trained_key(guest.order.tenant, guest.job), content)
            except (StorageUnavailable, OSError) as error:
                self._next_delivery_s = time.monotonic() + SECONDS_BETWEEN_DELIVERIES
                self._line.send(event="fault", job=guest.job, fault=type(error).__name__,
                                message="the adapter was not taken yet", goes_on=True)  # fmt: skip
                return
            self._undelivered.remove((guest, card, content))
            self._line.send(event="trained", job=guest.job, adapter_sha256=card.content_sha256, steps=card.steps,
                            seconds=card.seconds)  # fmt: skip

    def _score(self, guest: _Guest) -> None:
        """Measure what was learnt. A card that cannot be made is no reason to withhold an adapter: it says why.

        Nobody trains meanwhile, so whoever wants out, of the loop or of here, is let out between two prompts; a card
        that was in the middle is begun again.
        """
        tenant, job = guest.order.tenant, guest.job
        self._line.send(event="began", job=job)
        try:
            adapter = bundle.decode(self._objects.get(places.trained_key(tenant, job)))
            prepared = unpack_prepared(self._objects.get(places.prepared_key(tenant, job)))
            card = score_adapter(
                self.base, adapter, prepared, seed=guest.order.seed,
                watch=lambda advance: self._report_unless_called(guest, advance),
            )  # fmt: skip
            self._objects.put(places.score_key(tenant, job), json.dumps(card.to_json(), indent=2).encode())
            self._line.send(event="scored", job=job, card=card.to_json())
        except Interrupted:
            self._to_score.insert(0, guest)
        except (StorageUnavailable, OSError) as error:
            self._line.send(event="fault", job=job, fault=type(error).__name__, message="the object store")
        except LikenessError as error:
            self._line.send(event="scored", job=job, card=None, reason=error.message, hint=error.hint)
        except (RuntimeError, MemoryError) as error:
            _raise_unless_full(error)
            self._line.send(event="scored", job=job, card=None, reason="the device had no memory for it", hint="")

    def _preview(self, together: Together, guest: _Guest, step: int) -> None:
        if not self._previews:
            return
        slot = together.loop.slot_of(guest.job)
        previews = preview_requests(guest.fine_tune, slot, self._previews)
        pixels = self.base.decode(denoise_all(self.base, together.loop.bank, *previews))  # (B, 3, H, W) in [-1, 1]
        sheet = torch.cat(list(pixels), dim=2).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        png = io.BytesIO()
        Image.fromarray(sheet).save(png, "PNG")
        key = places.preview_key(guest.order.tenant, guest.job, step)
        self._objects.put(key, png.getvalue())
        self._line.send(event="preview", job=guest.job, step=step, key=key)

    def _report(self, guest: _Guest, advance: Advance, *, always: bool = False) -> None:
        now_s = time.monotonic()
        if always or now_s - guest.reported_s >= SECONDS_BETWEEN_REPORTS:
            guest.reported_s = now_s
            recipe, left_s = guest.fine_tune.recipe, None
            if advance.images_per_s:
                rows = recipe.instance_rows + recipe.prior_rows
                left_s = round((advance.total - advance.done) * rows / advance.images_per_s, 1)
            self._line.send(
                event="advance", job=guest.job, stage=advance.stage, done=advance.done, total=advance.total,
                loss=advance.loss, images_per_s=advance.images_per_s, left_s=left_s, together=len(self._inside),
            )  # fmt: skip

    def _report_unless_called(self, guest: _Guest, advance: Advance) -> None:
        if self._inbox.peek(lambda said: said["do"] in ("stop", "leave")):
            raise Interrupted("somebody wants out", hint="the card is begun again")
        self._report(guest, advance)

    def _make_room(self, guest: _Guest) -> None:
        """The device is full: whoever came last trains later, with fewer others."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._inside:
            error = OutOfMemory(
                "the device has no memory for this job, even alone",
                hint="take a recipe with fewer rows or a lower rank",
            )
            self._fail(guest.job, error)
            return
        self.capacity = len(self._inside)
        self._line.send(event="full", job=guest.job, concurrency=self.capacity)
        self._waiting.insert(0, guest)

    def _leave(self, job: str) -> None:
        self._waiting = [guest for guest in self._waiting if guest.job != job]
        self._undelivered = [kept for kept in self._undelivered if kept[0].job != job]
        self._to_score = [guest for guest in self._to_score if guest.job != job]
        if job in self._inside:
            self._drop(job)
        self._line.send(event="left", job=job)

    def _drop(self, job: str) -> None:
        del self._inside[job]
        if self._together is not None:
            self._together.leave(job)

    def _put_down(self) -> None:
        """Checkpoints of everybody, so that nobody repeats a step."""
        for job in self._inside:
            if self._together is not None:
                self._tell_unsaved(job, self._together.try_to_save(job))

    def _tell_unsaved(self, job: str, error: Unsaved | None) -> None:
        if error is not None:
            self._line.send(event="fault", job=job, fault=type(error).__name__, message="a checkpoint was not taken",
                            goes_on=True)  # fmt: skip

    def _fail(self, job: str, error: LikenessError) -> None:
        self._line.send(event="failed", job=job, code=error.code, message=error.message, hint=error.hint)

    def _is_wanted_out(self, job: str) -> bool:
        return self._inbox.peek(lambda said: said["do"] == "stop" or (said["do"] == "leave" and said["job"] == job))

    def _checkpoints(self, guest: _Guest) -> Checkpoints:
        prefix = places.checkpoints_prefix(guest.order.tenant, guest.job)
        mark = mark_of(self.base, guest.fine_tune, guest.prepared)
        return Checkpoints(self._objects, mark, prefix, f"{guest.attempt:06d}")


def preview_requests(fine_tune: FineTuneOrder, slot: int, count: int) -> tuple[list[ImageRequest], list[AdapterSlot]]:
    """Images of a subject in training, as the adapter would make them if it were published now, and its slot."""
    subject, recipe = fine_tune.subject, fine_tune.recipe
    prompt = PREVIEW_PROMPT.format(f"{subject.identifier} {subject.class_noun}")
    adapter = AdapterSlot(slot, recipe.scale_of("unet"), recipe.scale_of("text_encoder"))
    return ImageRequest(prompt, steps=PREVIEW_STEPS).numbered(count), [adapter] * count


def _guest(said: Said) -> _Guest:
    order = read_order(said["order"])
    recipe = recipe_named(order.recipe, **order.changes)
    fine_tune = FineTuneOrder(Subject(order.name, order.class_noun), recipe, seed=order.seed)
    return _Guest(said["job"], order, said["attempt"], said["alone"], fine_tune)


def _raise_unless_full(error: Exception) -> None:
    """Raises again what does not say that memory is full."""
    if not is_out_of_memory(error):
        raise error


def _roomy(rank: int) -> int:
    """The rank of the loop that is made for a job: the next power of two, at least 16, so that most others fit in."""
    return max(16, 1 << (rank - 1).bit_length())
