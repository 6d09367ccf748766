"""Many jobs in one training loop: which of them train, which wait, and what is reported about them.

Between two steps waiting jobs join as long as there is a slot, in the order of their arrival. Three rules:
a job that needs a larger rank than the loop has waits until the loop is empty, and later jobs wait behind it; a job
that was running when an earlier process crashed trains alone until its next checkpoint; when the device has no memory
left, the job that joined last waits again and the capacity stays reduced.

Where an engine uses the same device, it goes first (`storage.device_turns`): between two steps, two images of a preview
or of a score card, and two batches of class images the trainer waits until the engine has no requests.
"""

import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from PIL import Image

from ..artifacts import bundle
from ..diffusion.base import BaseModel
from ..diffusion.devices import is_out_of_memory
from ..diffusion.sampling import AdapterSlot, denoise_all
from ..errors import Interrupted, LikenessError, Mismatch, OutOfMemory, StorageUnavailable
from ..jobs import object_keys
from ..jobs.job import JobOrder, read_order
from ..scoring.measure import score_adapter
from ..storage.device_turns import TrainingTurns
from ..storage.objects import Objects
from ..storage.prepared_photos import unpack_prepared
from ..training.checkpoint import Checkpoints, Unsaved
from ..training.data import TrainingSet
from ..training.loop import FineTune, Progress, StepMemory, TrainingLoop
from ..training.pipeline import adapter_of, mark_of, training_set
from ..training.recipe import FineTuneOrder
from ..types import AdapterCard, Advance, ImageRequest, PreparedPhoto, Stopwatch
from .child_process import Document, Inbox, Line

SECONDS_BETWEEN_REPORTS = 1.0
SECONDS_BETWEEN_TRIES = 2.0
LOOK_S = 0.02  # between two looks at an engine that has requests
PREVIEW_STEPS = 12
PREVIEW_PROMPT, STYLE_PREVIEW = "photo of {}", "picture of a person"


@dataclass(eq=False)
class _Member:
    """One job of the trainer."""

    job: str
    order: JobOrder
    attempt: int
    is_alone: bool
    fine_tune: FineTuneOrder
    prepared: tuple[PreparedPhoto, ...] = ()
    training: FineTune | None = None  # in the loop
    reported_s: float = 0.0


class JointTrainer:
    """One base on one device, and the jobs that train on it.

    Args:
        capacity: most jobs at once.
        previews: number of preview images at each checkpoint.
        memory: see `TrainingLoop`.
        turns: for a device that an engine also uses.
    """

    def __init__(
        self, base: BaseModel, objects: Objects, line: Line, inbox: Inbox, *,
        capacity: int, previews: int, memory: StepMemory | None = None, turns: TrainingTurns | None = None,
    ) -> None:  # fmt: skip
        self.base, self.capacity, self._memory = base, capacity, memory
        self._objects, self._line, self._inbox = objects, line, inbox
        self._previews, self._turns = previews, turns
        self._gave_way = False  # the last step was not taken, because the engine had requests
        self._waiting: list[_Member] = []
        self._members: dict[str, _Member] = {}
        self._loop: TrainingLoop | None = None
        self._to_score: list[_Member] = []
        self._trained: list[tuple[_Member, AdapterCard, bytes]] = []  # trained, but not yet accepted by the store
        self._next_try_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to train, to store or to measure."""
        return not (self._members or self._waiting or self._trained or self._to_score)

    def serve_once(self) -> bool:
        """Read new messages, admit waiting jobs, take one step. False: the worker sent 'stop'."""
        try:
            return self._serve_once()
        finally:
            self._end_turn()

    def _serve_once(self) -> bool:
        if self.is_idle:
            patience_s = None
        elif self._members or self._waiting or self._to_score:
            patience_s = LOOK_S if self._gave_way else 0.0
        else:  # the store has not taken an adapter
            patience_s = 1.0
        for said in self._inbox.take(patience_s):
            if said["do"] == "stop":
                self._save_all()
                return False
            if said["do"] == "leave":
                self._leave(said["job"])
            elif said["do"] == "work":
                self._receive(said)
        while (member := self._next_to_join()) is not None:
            self._waiting.remove(member)
            self._admit(member)
        if self._loop is not None and self._members:
            self._gave_way = not self._begin_turn()
            if not self._gave_way:
                self._step(self._loop)
        self._store_trained()
        if self._to_score:
            self._score(self._to_score.pop(0))
        return True

    def _receive(self, said: Document) -> None:
        try:
            member = _member(said, self.base.family.name)
        except LikenessError as error:  # the order cannot be read: only this job fails
            self._fail(said["job"], error)
        else:
            (self._to_score if said.get("score") else self._waiting).append(member)

    def _next_to_join(self) -> _Member | None:
        """The job that joins now, if any."""
        if not self._waiting or len(self._members) >= self.capacity:
            return None
        member = self._waiting[0]
        if self._members:
            rank = self._loop.bank.rank if self._loop is not None else 0
            if member.is_alone or member.fine_tune.recipe.rank > rank:
                return None
            if any(other.is_alone for other in self._members.values()):
                return None
        return member

    def _admit(self, member: _Member) -> None:
        job = member.job
        self._line.send(event="began", job=job)

        def watch(advance: Advance) -> None:
            self._report(member, advance)
            self._give_way(lambda: self._must_leave(job))

        try:
            member.prepared = unpack_prepared(self._objects.get(object_keys.prepared_key(member.order.tenant, job)))
            data = training_set(
                self.base, member.fine_tune, member.prepared, class_images=self._objects,
                watch=watch, should_stop=lambda: self._must_leave(job), clock=Stopwatch(),
            )  # fmt: skip
            member.training = self._join(member, data)
        except Interrupted:
            return  # requested by the worker
        except (StorageUnavailable, OSError) as error:
            self._line.send(event="fault", job=job, fault=type(error).__name__, message="the object store")
        except LikenessError as error:
            self._fail(job, error)
        except (RuntimeError, MemoryError) as error:
            _raise_unless_full(error)
            self._make_room(member)
        else:
            self._members[job] = member
            self._line.send(event="joined", job=job, step=member.training.step, steps=member.fine_tune.recipe.steps,
                            together=len(self._members))  # fmt: skip

    def _join(self, member: _Member, data: TrainingSet) -> FineTune:
        order, rank = member.fine_tune, _loop_rank(member.fine_tune.recipe.rank)
        if not self._members:
            if self._loop is not None and self._loop.bank.rank != rank:
                self.close()
            if self._loop is None:
                self._loop = TrainingLoop(self.base, capacity=self.capacity, rank=rank, memory=self._memory)
        assert self._loop is not None
        checkpoints = self._checkpoints(member)
        join = partial(self._loop.join, member.job, order.recipe, data, seed=order.seed, checkpoints=checkpoints)
        try:
            return join()
        except Mismatch:  # the checkpoint is of another base or version: start again
            checkpoints.clear()
            return join()

    def _step(self, loop: TrainingLoop) -> None:
        try:
            taken = loop.step()
        except (RuntimeError, MemoryError) as error:
            _raise_unless_full(error)
            last = self._members[list(self._members)[-1]]
            self._drop(last.job)
            self._make_room(last)
        else:
            for progress in taken:
                self._after(loop, self._members[progress.name], progress)

    def _after(self, loop: TrainingLoop, member: _Member, progress: Progress) -> None:
        job = member.job
        self._tell_unsaved(job, progress.unsaved)
        if progress.error is not None:
            del self._members[job]
            self._fail(job, progress.error)
        elif progress.finished:
            del self._members[job]
            assert member.training is not None
            weights = loop.leave(job)
            try:
                adapter = adapter_of(self.base, member.fine_tune, member.prepared, member.training, weights)
                kept, content = bundle.encode(adapter)
            except LikenessError as error:  # for example numbers that float16 cannot hold: only this job fails
                self._fail(job, error)
                return
            self._report(member, progress.advance, always=True)
            self._trained.append((member, kept.card, content))
        else:
            self._report(member, progress.advance)
            if progress.saved:
                member.is_alone = False  # it is past the step of the crash
                self._line.send(event="checkpoint", job=job, step=progress.step)
                with suppress(StorageUnavailable, OSError, Interrupted):  # one preview less
                    self._preview(loop, member, progress.step)

    def _store_trained(self) -> None:
        """Write trained adapters to the object store, until it accepts them."""
        if time.monotonic() < self._next_try_s:
            return
        for member, card, content in list(self._trained):
            try:
                self._objects.put(object_keys.trained_key(member.order.tenant, member.job), content)
            except (StorageUnavailable, OSError) as error:
                self._next_try_s = time.monotonic() + SECONDS_BETWEEN_TRIES
                self._line.send(event="fault", job=member.job, fault=type(error).__name__,
                                message="the object store did not accept the adapter yet", goes_on=True)  # fmt: skip
                return
            self._trained.remove((member, card, content))
            self._line.send(event="trained", job=member.job, adapter_sha256=card.content_sha256, steps=card.steps,
                            seconds=card.seconds)  # fmt: skip

    def _score(self, member: _Member) -> None:
        """Write an adapter's score card. If that fails, the adapter is published without it; the event has the reason.

        No job trains meanwhile, so 'stop' and 'leave' are handled between two prompts; the card is then started again.
        """
        tenant, job = member.order.tenant, member.job
        self._line.send(event="began", job=job)
        try:
            self._give_way(self._is_interrupted)
            adapter = bundle.decode(self._objects.get(object_keys.trained_key(tenant, job)))
            prepared = unpack_prepared(self._objects.get(object_keys.prepared_key(tenant, job)))
            card = score_adapter(
                self.base, adapter, prepared, seed=member.order.seed,
                watch=lambda advance: self._report_or_yield(member, advance),
            )  # fmt: skip
            self._objects.put(object_keys.score_key(tenant, job), json.dumps(card.to_json(), indent=2).encode())
            self._line.send(event="scored", job=job, card=card.to_json())
        except Interrupted:
            self._to_score.insert(0, member)
        except (StorageUnavailable, OSError) as error:
            self._line.send(event="fault", job=job, fault=type(error).__name__, message="the object store")
        except LikenessError as error:
            self._line.send(event="scored", job=job, card=None, reason=error.message, hint=error.hint)
        except (RuntimeError, MemoryError) as error:
            _raise_unless_full(error)
            self._line.send(event="scored", job=job, card=None, reason="the device had no memory for it", hint="")

    def _preview(self, loop: TrainingLoop, member: _Member, step: int) -> None:
        if not self._previews or member.training is None:
            return
        self._give_way(lambda: self._must_leave(member.job))
        previews = preview_requests(member.fine_tune, member.training.slot, self._previews)
        pixels = self.base.decode(denoise_all(self.base, loop.bank, *previews))  # (B, 3, H, W) in [-1, 1]
        sheet = torch.cat(list(pixels), dim=2).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        png = io.BytesIO()
        Image.fromarray(sheet).save(png, "PNG")
        key = object_keys.preview_key(member.order.tenant, member.job, step)
        self._objects.put(key, png.getvalue())
        self._line.send(event="preview", job=member.job, step=step, key=key)

    def _report(self, member: _Member, advance: Advance, *, always: bool = False) -> None:
        now_s = time.monotonic()
        if always or now_s - member.reported_s >= SECONDS_BETWEEN_REPORTS:
            member.reported_s = now_s
            recipe, left_s = member.fine_tune.recipe, None
            if advance.images_per_s:
                rows = recipe.instance_rows + recipe.prior_rows
                left_s = round((advance.total - advance.done) * rows / advance.images_per_s, 1)
            told = replace(advance, left_s=left_s, together=len(self._members))
            self._line.send(event="advance", job=member.job, **told.to_json())

    def _report_or_yield(self, member: _Member, advance: Advance) -> None:
        if self._is_interrupted():
            raise _interrupted()
        self._report(member, advance)
        self._give_way(self._is_interrupted)

    def _is_interrupted(self) -> bool:
        return self._inbox.peek(lambda said: said["do"] in ("stop", "leave"))

    def _begin_turn(self) -> bool:
        return self._turns is None or self._turns.begin()

    def _end_turn(self) -> None:
        if self._turns is not None:
            self._turns.end()

    def _give_way(self, is_asked: Callable[[], bool]) -> None:
        """Wait while an engine has requests. Raises Interrupted: by the worker."""
        self._end_turn()
        while not self._begin_turn():
            if is_asked():
                raise _interrupted()
            time.sleep(LOOK_S)

    def _make_room(self, member: _Member) -> None:
        """The device is full: the job that joined last waits, and later trains with fewer others."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._members:
            error = OutOfMemory(
                "expected memory for this job alone, got too little on the device",
                hint="use a lower rank or a smaller base, or free device memory",
            )
            self._fail(member.job, error)
            return
        self.capacity = len(self._members)
        self._line.send(event="full", job=member.job, concurrency=self.capacity)
        self._waiting.insert(0, member)

    def _leave(self, job: str) -> None:
        self._waiting = [member for member in self._waiting if member.job != job]
        self._trained = [kept for kept in self._trained if kept[0].job != job]
        self._to_score = [member for member in self._to_score if member.job != job]
        if job in self._members:
            self._drop(job)
        self._line.send(event="left", job=job)

    def _drop(self, job: str) -> None:
        del self._members[job]
        if self._loop is not None:
            self._loop.leave(job)

    def _save_all(self) -> None:
        """Checkpoints of all jobs, so that no step is repeated."""
        for job in self._members:
            if self._loop is not None:
                self._tell_unsaved(job, self._loop.try_to_save(job))

    def close(self) -> None:
        """Restore the base."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _tell_unsaved(self, job: str, error: Unsaved | None) -> None:
        if error is not None:
            self._line.send(event="fault", job=job, fault=type(error).__name__, message="a checkpoint was not written",
                            goes_on=True)  # fmt: skip

    def _fail(self, job: str, error: LikenessError) -> None:
        self._line.send(event="failed", job=job, code=error.code, message=error.message, hint=error.hint)

    def _must_leave(self, job: str) -> bool:
        return self._inbox.peek(lambda said: said["do"] == "stop" or (said["do"] == "leave" and said["job"] == job))

    def _checkpoints(self, member: _Member) -> Checkpoints:
        prefix = object_keys.checkpoints_prefix(member.order.tenant, member.job)
        mark = mark_of(self.base, member.fine_tune, member.prepared)
        return Checkpoints(self._objects, mark, prefix, f"{member.attempt:06d}")


def preview_requests(
    fine_tune: FineTuneOrder, slot: int, count: int
) -> tuple[list[ImageRequest], list[list[AdapterSlot]]]:
    """Images of a subject in training, as the adapter would make them if it were published now, and its slot."""
    subject, recipe = fine_tune.subject, fine_tune.recipe
    is_style = subject.kind == "style"
    prompt = subject.added_to(STYLE_PREVIEW) if is_style else PREVIEW_PROMPT.format(subject.words)
    adapter = AdapterSlot(slot, recipe.scale_of("unet"), recipe.scale_of("text_encoder"))
    return ImageRequest(prompt, steps=PREVIEW_STEPS).numbered(count), [[adapter]] * count


def _member(said: Document, family: str) -> _Member:
    order = read_order(said["order"])
    return _Member(said["job"], order, said["attempt"], said["alone"], order.fine_tune(family))


def _interrupted() -> Interrupted:
    return Interrupted("interrupted by the worker", hint="the work starts again")


def _raise_unless_full(error: Exception) -> None:
    """Raise the error again unless it means that memory is full."""
    if not is_out_of_memory(error):
        raise error


def _loop_rank(rank: int) -> int:
    """The rank of the loop that is made for a job: the next power of two, at least 16, so that most others fit in."""
    return max(16, 1 << (rank - 1).bit_length())
