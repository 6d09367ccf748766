"""What a worker does with one job, step by step. Plain methods: who calls them once and only once is `workflow`'s.

A fault that is ours (store, disk or database away) is waited out, until the job's time is over. A fault that is the
sender's ends the job. A job that was cancelled, or taken over by another worker, ends the step without a word.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..artifacts import bundle
from ..errors import (
    AlreadyExists,
    InputRefused,
    LikenessError,
    NotFound,
    OutOfMemory,
    StorageUnavailable,
    TrainingError,
)
from ..storage.consent import require_consent
from ..storage.library import AdapterLibrary
from ..storage.objects import Objects
from ..types import Photo, Subject, checked_rank
from . import holds, places
from .child import Said
from .inputs import pack_photos
from .ledger import PATIENCE_S, Ledger
from .link import Link
from .locations import Locations
from .types import SUBJECT_PHOTOS, Claim, JobOrder, rank_of, read_order
from .uploads import drop_upload

T = TypeVar("T")

LOOK_EVERY_S = 0.5  # whether the job is still wanted, and whose it is
MOST_DEATHS = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before trying again where the fault is ours


class Gone(Exception):
    """This worker has no business with the job any more."""


class Failed(Exception):
    """The job has ended; the document says why."""

    def __init__(self, document: Mapping[str, str]) -> None:
        super().__init__(document["code"])
        self.document = document


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps, and what they need.

    Args:
        full: told how many people the device can hold after it was full.
        scores: whether every adapter gets a score card.
        most_rank: the largest that a job may ask for; config.json in an archive that lies elsewhere is read here.
    """

    ledger: Ledger
    library: AdapterLibrary
    locations: Locations
    preparer: Link
    trainer: Link
    full: Callable[[int], None]
    scores: bool = True
    most_rank: int = 32

    @property
    def objects(self) -> Objects:
        return self.library.objects

    def fetch(self, claim: Claim, order: JobOrder) -> Said:
        """Bring the photographs to where the job's other objects are. Raises InputRefused, Gone, TrainingError."""
        key = places.photos_key(order.tenant, claim.job)

        def work() -> Said:
            if order.photos == SUBJECT_PHOTOS:
                content = self._subject_archive(order)
            else:
                content = self.locations.read(order.photos, order.tenant)
            self.objects.put(key, content)
            return {"photos": key, "bytes": len(content)}

        self.ledger.tell(claim, "stage", {"stage": "fetch"})
        return self.patiently(claim, order, work)

    def prepare(self, claim: Claim, order: JobOrder) -> Said:
        """Check the photographs and crop them, in a process of its own. Returns the order with what came with them.

        Raises:
            ConsentMissing: the order, as it is now, is of a person who has not agreed.
            AdapterBusy, AlreadyExists, UsageError: the name that came with the photographs is taken or reserved.
            RankTooLarge: the rank that came with them is above the installation's largest.
            Failed, Gone, TrainingError: see `_in_child`.
        """
        self.ledger.tell(claim, "stage", {"stage": "check"})
        asked = {
            "photos": places.photos_key(order.tenant, claim.job),
            "prepared": places.prepared_key(order.tenant, claim.job),
        }

        def configured(said: Said) -> Said | None:
            return said if said["event"] == "configured" else None

        def heard(said: Said) -> Said | None:
            if said["event"] == "checked":
                self.ledger.tell(claim, "photos", said["report"])
            return {"photos": said["photos"]} if said["event"] == "prepared" else None

        first = {**asked, "order": order.document(), "only": "order"}
        found = self._in_child(self.preparer, claim, order, asked=first, heard=configured)
        final = read_order(found["order"])
        self.patiently(claim, order, lambda: self._admit(claim, final, consent=found["consent"]))
        asked["order"] = final.document()
        return {**self._in_child(self.preparer, claim, final, asked=asked, heard=heard), "order": asked["order"]}

    def _admit(self, claim: Claim, order: JobOrder, *, consent: str) -> None:
        """The checks of the door, on the order as the archive has made it."""
        catalog = self.library.catalog
        checked_rank(rank_of(order), self.most_rank)
        require_consent(catalog, order.tenant, Subject(order.name, order.class_noun), consent=consent)
        if not order.replace and catalog.has_adapter(order.tenant, order.name):
            raise AlreadyExists(
                "an adapter of this name exists already",
                hint="choose another name, or say to replace it",
                code="AdapterExists",
            )
        self.ledger.amend(claim, order)

    def train(self, claim: Claim, order: JobOrder) -> Said:
        """Train together with whoever else is there. Returns the hash of what was learnt. Raises RankTooLarge."""
        checked_rank(rank_of(order), self.most_rank)
        self.ledger.tell(claim, "stage", {"stage": "train"})
        asked = {"order": order.document(), "attempt": claim.attempt, "alone": False}

        def heard(said: Said) -> Said | None:
            if said["event"] == "full":
                self.full(said["concurrency"])
            if said["event"] in ("checkpoint", "joined", "preview"):
                facts = {key: value for key, value in said.items() if key not in ("event", "job")}
                self.ledger.tell(claim, said["event"], facts)
            if said["event"] == "trained":
                return {key: said[key] for key in ("adapter_sha256", "steps", "seconds")}
            return None

        return self._in_child(self.trainer, claim, order, asked=asked, heard=heard)

    def score(self, claim: Claim, order: JobOrder) -> Said:
        """Measure what was learnt: likeness, prompt following, signs of over-fitting."""
        self.ledger.tell(claim, "stage", {"stage": "score"})
        asked = {"order": order.document(), "attempt": claim.attempt, "alone": False, "score": True}

        def heard(said: Said) -> Said | None:
            if said["event"] != "scored":
                return None
            facts = {key: value for key, value in said.items() if key not in ("event", "job")}
            self.ledger.tell(claim, "score", facts)
            return facts

        return self._in_child(self.trainer, claim, order, asked=asked, heard=heard)

    def publish(self, claim: Claim, order: JobOrder, adapter_sha256: str) -> Said:
        """Make the adapter exist. Raises AlreadyExists, CorruptAdapter, Gone."""
        self.ledger.tell(claim, "stage", {"stage": "publish"})

        def work() -> Said:
            content = self.objects.get(places.trained_key(order.tenant, claim.job))
            adapter = bundle.reopen(content, adapter_sha256)
            if not self.ledger.publishes(claim, adapter_sha256):
                raise Gone
            try:
                self.library.publish(adapter, order.tenant, replace=order.replace)
            except AlreadyExists:  # by us, before a crash?
                if self.library.catalog.find_adapter(order.tenant, order.name).card.content_sha256 != adapter_sha256:
                    raise
            found = self.ledger.find(claim.job)
            if found is None or found.state == "cancelled":  # at this moment, perhaps by whoever forgets the name
                self.library.withdraw(order.tenant, adapter.card)
                raise Gone
            if order.invocation is not None:
                self.locations.write_artifact(order, adapter)
            return {"adapter_sha256": adapter_sha256}

        return self.patiently(claim, order, work)

    def tidy(self, order: JobOrder, job: str) -> None:
        """What only the way there needed goes, the photographs first: those of a subject are the catalog's to keep."""
        keys = [places.photos_key(order.tenant, job)]
        keys += [facts.key for facts in self.objects.list(places.checkpoints_prefix(order.tenant, job))]
        keys += [places.trained_key(order.tenant, job), places.prepared_key(order.tenant, job)]
        for key in keys:
            self.objects.delete(key)
        drop_upload(self.ledger, self.objects, order)

    def let_go(self, claim: Claim, order: JobOrder | None) -> None:
        """The last word on a job here, however it went: what is not needed is swept, and nobody writes any more."""
        if self.preparer.is_inside(claim.job) or self.trainer.is_inside(claim.job):
            return  # it may still write; this worker's end says that it does not
        try:
            if order is not None:
                self.sweep_if_over(order, claim.job)
        finally:
            holds.let_go(self.ledger.database, claim.worker, claim.job)

    def sweep_if_over(self, order: JobOrder, job: str) -> None:
        """Nobody writes for this job any more; what was written after it was cancelled or forgotten goes."""
        found = self.ledger.find(job, patience_s=PATIENCE_S)
        if found is None:
            for facts in list(self.objects.list(places.job_prefix(order.tenant, job))):
                self.objects.delete(facts.key)
        elif found.is_over:
            self.tidy(order, job)

    def patiently(self, claim: Claim, order: JobOrder, work: Callable[[], T]) -> T:
        """Do something that needs the store or the disk, again and again while they are away."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return work()
            except NotFound:
                raise
            except (StorageUnavailable, OSError) as error:
                said = error.message if isinstance(error, StorageUnavailable) else error.strerror
                self.ledger.tell(claim, "waiting", {"fault": type(error).__name__, "message": said or "unknown"})
            self._pause(claim, order, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _pause(self, claim: Claim, order: JobOrder, pause_s: float) -> None:
        until_s = time.monotonic() + pause_s
        while time.monotonic() < until_s:
            self._look(claim, order)
            time.sleep(min(LOOK_EVERY_S, max(0.0, until_s - time.monotonic())))

    def _look(self, claim: Claim, order: JobOrder) -> None:
        """Raises Gone, TrainingError."""
        if not self.ledger.holds(claim):
            raise Gone
        if self.ledger.left_s(claim, order.time_limit_s) <= 0:
            raise TrainingError(
                f"the job did not end within its {order.time_limit_s} s",
                hint="give it more time, or a recipe with fewer steps",
                code="TimeLimitReached",
            )

    def _in_child(
        self, link: Link, claim: Claim, order: JobOrder, *, asked: Said, heard: Callable[[Said], Said | None]
    ) -> Said:
        job, looked_s, pause_s = claim.job, time.monotonic(), FIRST_PAUSE_S
        link.enter(job)
        try:
            link.ask(job, asked)
            while True:
                said = link.take(job, LOOK_EVERY_S / 2)
                if said is None or time.monotonic() - looked_s >= LOOK_EVERY_S:
                    self._look(claim, order)
                    looked_s = time.monotonic()
                if said is None:
                    continue
                if said["event"] == "advance":
                    facts = {key: value for key, value in said.items() if key not in ("event", "job")}
                    self.ledger.tell(claim, "progress", facts)
                elif said["event"] == "failed":
                    raise Failed({key: said[key] for key in ("code", "message", "hint")})
                elif said["event"] == "fault":
                    self.ledger.tell(claim, "waiting", {"fault": said["fault"], "message": said["message"]})
                    if not said.get("goes_on"):
                        self._pause(claim, order, pause_s)
                        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                        link.ask(job, asked)
                elif said["event"] == "died":
                    asked = self._after_death(link, claim, asked, said)
                    link.ask(job, asked)
                elif (result := heard(said)) is not None:
                    link.done(job)
                    return result
                if said["event"] == "checkpoint":
                    self.ledger.got_further(claim)
                    asked = asked | {"alone": False}
        finally:
            link.leave(job)

    def _after_death(self, link: Link, claim: Claim, asked: Said, said: Said) -> Said:
        """Who was in a process that died is suspected, and trains alone until it has got further."""
        if not said["to_blame"]:
            return asked
        deaths = self.ledger.died(claim)
        self.ledger.tell(claim, "died", {"code": said["code"], "together": said["together"], "deaths": deaths})
        if deaths >= MOST_DEATHS:
            raise TrainingError(
                f"the process that worked on this job died {deaths} times at the same place",
                hint="send other photographs or another recipe; other jobs are not affected",
                code="PoisonJob",
            )
        return asked | {"alone": True}

    def _subject_archive(self, order: JobOrder) -> bytes:
        """The photographs kept for a subject, as an archive. Raises InputRefused, NotFound."""
        records = self.library.catalog.list_photos(order.tenant, order.name)
        if not records:
            raise InputRefused("expected photographs of this subject, got none", hint="upload some first")
        return pack_photos([Photo(record.file, self.objects.get(record.key)) for record in records])


def failure_document(error: LikenessError | OutOfMemory) -> dict[str, str]:
    """An error as plain JSON."""
    return {"code": error.code, "message": error.message, "hint": error.hint}
