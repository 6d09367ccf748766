"""A worker's work on one job, stage by stage; the result of each stage is stored, so it is done once.

    fetch -> prepare (with check) -> train -> score -> publish

While the store, the disk or the database is unavailable, the job waits and tries again until its time limit. A fault of
the input ends the job with a reason. A job that was cancelled or taken over ends the stage silently and publishes
nothing.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from ..artifacts import adapter as folders
from ..artifacts import bundle
from ..artifacts.package import pack
from ..errors import (
    AlreadyExists,
    InputRefused,
    LikenessError,
    NotFound,
    StorageDamaged,
    StorageUnavailable,
    TrainingError,
)
from ..jobs import object_keys
from ..jobs.inputs import pack_photos
from ..jobs.job import SUBJECT_PHOTOS, Claim, Failure, JobOrder, State, read_order
from ..jobs.locations import Locations, artifact_url
from ..jobs.store import JobStore
from ..storage.catalog import adapter_exists
from ..storage.consent import covers_faces, require_consent
from ..storage.library import AdapterLibrary
from ..storage.objects import Objects
from ..training.recipe import check_rank
from ..types import PREPARED_PX, Adapter, Photo, Subject
from .child_process import ChildProcess, Document

T = TypeVar("T")

LOOK_EVERY_S = 0.5  # whether the job still runs under this worker's claim
MOST_DEATHS = 3  # of the child process with one job in it, without progress between
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before the next try, while a store, disk or database is away

log = logging.getLogger("likeness.worker")


class Gone(Exception):
    """The claim is not held any more, or the worker ends."""


class Failed(Exception):
    """A child process has refused the job."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


@dataclass(frozen=True, eq=False)
class Stages:
    """The stages, and what they need.

    Args:
        release: takes back the lease of a claim.
        full: called with the number of jobs that fit on the device after it was full.
        photo_px: the side of prepared photographs for the trainer's base.
        aspects: its buckets, see `photos.prepare`.
        scores: whether every adapter gets a score card.
        most_rank: the largest that a job may ask for; config.json in an archive that lies elsewhere is read here.
        keep_photos_s: after a job has succeeded or failed.
        stop: set when the worker ends.
    """

    store: JobStore
    library: AdapterLibrary
    locations: Locations
    preparer: ChildProcess
    trainer: ChildProcess
    release: Callable[[Claim], None]
    full: Callable[[int], None] = lambda concurrency: None
    photo_px: Callable[[], int] = lambda: PREPARED_PX
    aspects: Callable[[], Sequence[Sequence[int]]] = lambda: ()
    scores: bool = True
    most_rank: int = 32
    keep_photos_s: float = 0.0
    stop: Event = field(default_factory=Event)

    @property
    def objects(self) -> Objects:
        return self.library.objects

    def run(self, claim: Claim) -> None:
        """Run the remaining stages of a job, and end it. Raises nothing."""
        order: JobOrder | None = None
        state: State = "failed"
        failure: Failure | None = None
        try:
            kept = self.store.kept(claim)
            order = self._order(claim)
            self._once(claim, kept, "fetch", lambda: self.fetch(claim, self._order(claim)))
            self._once(claim, kept, "prepare", lambda: self.prepare(claim, self._order(claim)))
            order = self._order(claim)  # with what came in the archive
            trained = self._once(claim, kept, "train", lambda: self.train(claim, self._order(claim)))
            if self.scores:
                self._once(claim, kept, "score", lambda: self.score(claim, self._order(claim)))
            self._once(
                claim, kept, "publish", lambda: self.publish(claim, self._order(claim), trained["adapter_sha256"])
            )
            state = "succeeded"
        except Gone:
            return
        except Failed as refused:
            failure = refused.failure
        except LikenessError as error:
            hint = "submit it again" if isinstance(error, StorageDamaged) else error.hint
            failure = Failure(error.code, error.message, hint)
        except Exception:  # unexpected: the job ends with a reason instead of running forever
            log.exception("job %s failed unexpectedly", claim.job)
            failure = Failure(
                "InternalError", "the service failed at this job", "submit it again; if it fails again, report it"
            )
        finally:
            try:
                if state == "succeeded" or failure is not None:
                    keep_s = 0.0 if order is None else self.keep_photos_s
                    self.store.finish(claim, state, failure=failure, keep_photos_s=keep_s)
            finally:
                self.clean_up(claim, order)

    def fetch(self, claim: Claim, order: JobOrder) -> Document:
        """Copy the photographs to the job's other objects. Raises InputRefused, Gone, TrainingError."""
        key = object_keys.photos_key(order.tenant, claim.job)

        def work() -> Document:
            if order.photos == SUBJECT_PHOTOS:
                content = self._subject_archive(order)
            else:
                content = self.locations.read(order.photos, order.tenant)
            self.objects.put(key, content)
            return {"photos": key, "bytes": len(content)}

        self._tell(claim, "stage", {"stage": "fetch"})
        return self.patiently(claim, order, work)

    def prepare(self, claim: Claim, order: JobOrder) -> Document:
        """Check the photographs and crop them, in a process of its own. The order is amended by their config.json.

        Raises:
            ConsentMissing: the order, as it is now, is of a person without consent on record.
            AdapterBusy, AlreadyExists, UsageError: the name that came with the photographs is taken or reserved.
            Mismatch: the rank that came with them is above the installation's largest.
            Failed, Gone, TrainingError: see `_in_child`.
        """
        self._tell(claim, "stage", {"stage": "check"})
        asked: Document = {
            "photos": object_keys.photos_key(order.tenant, claim.job),
            "prepared": object_keys.prepared_key(order.tenant, claim.job),
        }  # fmt: skip

        def configured(said: Document) -> Document | None:
            return said if said["event"] == "configured" else None

        def heard(said: Document) -> Document | None:
            if said["event"] == "checked":
                self._tell(claim, "photos", said["report"])
            return {"photos": said["photos"]} if said["event"] == "prepared" else None

        first = {**asked, "order": order.document(), "only": "order"}
        found = self._in_child(self.preparer, claim, order, asked=first, heard=configured)
        final = read_order(found["order"])
        self.patiently(claim, order, lambda: self.admit(claim, final, consent=found["consent"]))
        wanted = final.fine_tune()
        agreed = self.patiently(claim, order, lambda: covers_faces(self.library.catalog, final.tenant, wanted.subject))
        asked |= {
            "order": final.document(), "has_consent": agreed, "aspects": self.aspects(),
            "size_px": max(self.photo_px(), wanted.recipe.resolution_px or 0),
        }  # fmt: skip
        return self._in_child(self.preparer, claim, final, asked=asked, heard=heard)

    def admit(self, claim: Claim, order: JobOrder, *, consent: str) -> None:
        """The checks of `submit`, on the order as the archive has made it."""
        catalog = self.library.catalog
        check_rank(order.fine_tune().recipe, self.most_rank)
        require_consent(catalog, order.tenant, Subject(order.name, order.class_noun), consent=consent)
        if not order.replace and catalog.has_adapter(order.tenant, order.name):
            raise adapter_exists()
        self.store.amend(claim, order)

    def train(self, claim: Claim, order: JobOrder) -> Document:
        """Train together with the trainer's other jobs. Returns the hash of the trained adapter. Raises Mismatch."""
        check_rank(order.fine_tune().recipe, self.most_rank)
        self._tell(claim, "stage", {"stage": "train"})
        asked = {"order": order.document(), "attempt": claim.attempt, "alone": False}

        def heard(said: Document) -> Document | None:
            if said["event"] == "full":
                self.full(said["concurrency"])
            if said["event"] in ("checkpoint", "joined", "preview"):
                self._tell(claim, said["event"], _facts(said))
            if said["event"] == "trained":
                return {key: said[key] for key in ("adapter_sha256", "steps", "seconds")}
            return None

        return self._in_child(self.trainer, claim, order, asked=asked, heard=heard)

    def score(self, claim: Claim, order: JobOrder) -> Document:
        """Measure the adapter: similarity, prompt following, memorisation."""
        self._tell(claim, "stage", {"stage": "score"})
        asked = {"order": order.document(), "attempt": claim.attempt, "alone": False, "score": True}

        def heard(said: Document) -> Document | None:
            if said["event"] != "scored":
                return None
            self._tell(claim, "score", _facts(said))
            return _facts(said)

        return self._in_child(self.trainer, claim, order, asked=asked, heard=heard)

    def publish(self, claim: Claim, order: JobOrder, adapter_sha256: str) -> Document:
        """Publish the adapter. Raises AlreadyExists, CorruptAdapter, Gone."""
        self._tell(claim, "stage", {"stage": "publish"})

        def work() -> Document:
            content = self.objects.get(object_keys.trained_key(order.tenant, claim.job))
            adapter = bundle.reopen(content, adapter_sha256)
            if not self.store.publishes(claim, adapter_sha256):
                raise Gone
            try:
                self.library.publish(adapter, order.tenant, replace=order.replace)
            except AlreadyExists:  # by this job, before a crash?
                if self.library.catalog.find_adapter(order.tenant, order.name).card.content_sha256 != adapter_sha256:
                    raise
            if not self.store.holds(claim):  # meanwhile it was cancelled, forgotten, or taken over
                found = self.store.find(claim.job)
                if found is None or found.state not in ("running", "succeeded"):
                    self.library.withdraw(order.tenant, adapter.card)
                raise Gone  # a worker that has taken over the job publishes the same bytes
            if order.invocation is not None:
                self._write_artifact(order, adapter)
            return {"adapter_sha256": adapter_sha256}

        return self.patiently(claim, order, work)

    def clean_up(self, claim: Claim, order: JobOrder | None) -> None:
        """Delete the intermediate objects if the job has ended, and release the lease."""
        if self.preparer.is_inside(claim.job) or self.trainer.is_inside(claim.job):
            return  # it may still write; the lease ends with this worker's process
        try:
            if order is not None:
                self._sweep(order, claim.job)
        except LikenessError as error:
            log.warning("objects of job %s stay until its retention is over: %s", claim.job, error)
        finally:
            self.release(claim)

    def patiently(self, claim: Claim, order: JobOrder, work: Callable[[], T]) -> T:
        """Do work that needs the store or the disk; retry it while they are unavailable."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return work()
            except NotFound:
                raise
            except (StorageUnavailable, OSError) as error:
                said = error.message if isinstance(error, StorageUnavailable) else error.strerror
                self._tell(claim, "waiting", {"fault": type(error).__name__, "message": said or "unknown"})
            self._pause(claim, order, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _once(self, claim: Claim, kept: Document, stage: str, work: Callable[[], Mapping[str, Any]]) -> Document:
        """A stage's result: the stored one, or of running it now. Raises Gone."""
        if stage not in kept:
            self._look(claim)
            kept[stage] = dict(work())
            if not self.store.keep(claim, kept):
                raise Gone
        result: Document = kept[stage]
        return result

    def _order(self, claim: Claim) -> JobOrder:
        if (found := self.store.order_of(claim)) is None:
            raise Gone
        return found

    def _tell(self, claim: Claim, kind: str, facts: Mapping[str, object]) -> None:
        if not self.store.tell(claim, kind, facts):
            raise Gone

    def _pause(self, claim: Claim, order: JobOrder, pause_s: float) -> None:
        until_s = time.monotonic() + pause_s
        while time.monotonic() < until_s:
            self._look(claim, order)
            time.sleep(min(LOOK_EVERY_S, max(0.0, until_s - time.monotonic())))

    def _look(self, claim: Claim, order: JobOrder | None = None) -> None:
        """Raises Gone, TrainingError."""
        if self.stop.is_set() or not self.store.holds(claim):
            raise Gone
        if order is not None and self.store.left_s(claim, order.time_limit_s) <= 0:
            raise TrainingError(
                f"the job did not end within its {order.time_limit_s} s",
                hint="give it more time, or a recipe with fewer steps",
                code="TimeLimitReached",
            )

    def _in_child(
        self, child: ChildProcess, claim: Claim, order: JobOrder, *,
        asked: Document, heard: Callable[[Document], Document | None],
    ) -> Document:  # fmt: skip
        """Run a stage in a child process, and record its messages until `heard` returns the stage's result."""
        job, looked_s, pause_s = claim.job, time.monotonic(), FIRST_PAUSE_S
        child.enter(job)
        try:
            child.ask(job, asked)
            while True:
                said = child.take(job, LOOK_EVERY_S / 2)
                if said is None or time.monotonic() - looked_s >= LOOK_EVERY_S:
                    self._look(claim, order)
                    looked_s = time.monotonic()
                if said is None:
                    continue
                match said["event"]:
                    case "advance":
                        self._tell(claim, "progress", _facts(said))
                    case "failed":
                        raise Failed(Failure(said["code"], said["message"], said["hint"]))
                    case "fault":
                        self._tell(claim, "waiting", {"fault": said["fault"], "message": said["message"]})
                        if not said.get("goes_on"):
                            self._pause(claim, order, pause_s)
                            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                            child.ask(job, asked)
                    case "died":
                        asked = self._after_death(claim, asked, said)
                        child.ask(job, asked)
                    case _ if (result := heard(said)) is not None:
                        child.done(job)
                        return result
                    case "checkpoint":
                        self.store.got_further(claim)
                        asked = asked | {"alone": False}
        finally:
            child.leave(job)

    def _after_death(self, claim: Claim, asked: Document, said: Document) -> Document:
        """Retry a job of a crashed process alone until it makes progress."""
        if not said["crashed"]:
            return asked
        deaths = self.store.died(claim)
        self._tell(claim, "died", {"code": said["code"], "together": said["together"], "deaths": deaths})
        if deaths >= MOST_DEATHS:
            raise TrainingError(
                f"the process that worked on this job died {deaths} times at the same place",
                hint="send other photographs or another recipe; other jobs are not affected",
                code="PoisonJob",
            )
        return asked | {"alone": True}

    def _sweep(self, order: JobOrder, job: str) -> None:
        """Delete the intermediate objects of a job that has ended, or all of them if the job was forgotten."""
        state = self.store.state_of(job, order.tenant)
        if state is None:
            for facts in list(self.objects.list(object_keys.job_prefix(order.tenant, job))):
                self.objects.delete(facts.key)
        elif state not in ("queued", "running"):
            keys = [object_keys.photos_key(order.tenant, job)]
            keys += [facts.key for facts in self.objects.list(object_keys.checkpoints_prefix(order.tenant, job))]
            keys += [object_keys.trained_key(order.tenant, job), object_keys.prepared_key(order.tenant, job)]
            for key in keys:
                self.objects.delete(key)
            self.store.drop_upload(self.objects, order)

    def _write_artifact(self, order: JobOrder, adapter: Adapter) -> None:
        """NAME.tar.gz beside the job's result, as the reference solution leaves it. Raises StorageUnavailable."""
        if order.invocation is None or self.locations.outputs is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            folders.write(adapter, Path(folder) / "adapter")
            content = pack(Path(folder) / "adapter")
        self.locations.write(artifact_url(order), content)

    def _subject_archive(self, order: JobOrder) -> bytes:
        """The photographs kept for a subject, as an archive. Raises InputRefused, NotFound."""
        records = self.library.catalog.list_photos(order.tenant, order.name)
        if not records:
            raise InputRefused("expected photographs of this subject, got none", hint="upload some first")
        return pack_photos([Photo(record.file, self.objects.get(record.key)) for record in records])


def _facts(said: Document) -> Document:
    return {key: value for key, value in said.items() if key not in ("event", "job")}
