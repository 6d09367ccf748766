"""A training worker: one process that claims jobs and takes them through their stages, with two child processes.

    worker       claims jobs, one thread a job; renews the leases, sends messages, runs the chores
    preparer     reads photographs, one job at a time
    trainer      owns the device, one training loop for all jobs

Start as many workers as there are devices, on any number of machines, all with the same database and object store; each
needs an id of its own that stays the same when it is started again (systemd's instance name, a pod's name).
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from ..errors import AdapterBusy, NotFound, StorageError, StorageUnavailable
from ..jobs.job import Claim
from ..jobs.leases import Leases
from ..jobs.locations import Locations
from ..jobs.queue import Queue
from ..jobs.retention import Retention
from ..storage.database import Database
from ..storage.library import AdapterLibrary
from .child_process import ChildProcess
from .chores import Chore
from .notifier import Notifier
from .stages import Stages

TICK_S = 0.25
TIDY_EVERY_S = 1.0
SWEEP_EVERY_S = 3600.0
STOP_PATIENCE_S = 30.0  # for the trainer's checkpoints
THREADS_PATIENCE_S = 10.0  # for what the jobs' threads are writing

log = logging.getLogger("likeness.worker")


@dataclass(frozen=True)
class WorkerOptions:
    """The options of a worker. Times in seconds.

    Args:
        id: stable over restarts, and no other worker's.
        concurrency: most jobs at once; 0 = as many as the device's memory holds, measured at the start.
        exit_when_idle_s: end after so long without a job; None = never.
        keep_photos_s: after a job has succeeded or failed.
        rank: the largest that a job may ask for.
        wait_s, memory_share: where an engine uses the same device, see `storage.device_turns`; the share of its memory,
            0 to 1, 0: not limited.
    """

    id: str
    base: str
    revision: str | None
    objects: str
    home: Path
    concurrency: int = 2
    beat_s: float = 5.0
    exit_when_idle_s: float | None = None
    keep_photos_s: float = 30 * 86_400.0
    rank: int = 32
    previews: int = 1
    scores: bool = True
    wait_s: float = 30.0
    memory_share: float = 0.0


class Worker:
    """One worker of one installation. `run` blocks until `stop` is called, or until it was idle for `exit_when_idle_s`.

    Args:
        resume: goes on with deletions that are under way.
        sweep: deletes what processes that were killed left in the store.
    """

    def __init__(
        self, options: WorkerOptions, database: Database, library: AdapterLibrary, *,
        locations: Locations, notifier: Notifier, resume: Callable[[], object], sweep: Callable[[], object],
    ) -> None:  # fmt: skip
        self.options, self._notifier = options, notifier
        self._queue = Queue(database, library.catalog.content_sha256)
        self._leases = Leases(database, options.id, beat_s=options.beat_s, concurrency=options.concurrency or 1)
        shared = {"objects": options.objects, "lease_s": self._leases.lease_s}
        trainer = {
            **shared, "base": options.base, "revision": options.revision, "concurrency": options.concurrency,
            "previews": options.previews, "home": str(options.home), "wait_s": options.wait_s,
            "memory_share": options.memory_share,
        }  # fmt: skip
        self._preparer = ChildProcess("likeness.worker.preparer", shared, kill_to_leave=True)
        self._trainer = ChildProcess("likeness.worker.trainer", trainer)
        self._stages = Stages(
            self._queue.store, library, locations, self._preparer, self._trainer, self._leases.release,
            full=self._is_full, photo_px=lambda: self._trainer.facts["photo_px"],
            aspects=lambda: self._trainer.facts["aspects"], scores=options.scores,
            most_rank=options.rank, keep_photos_s=options.keep_photos_s,
        )  # fmt: skip
        retention = Retention(database, library.objects, library.catalog)
        works: dict[str, tuple[Callable[[], object], float]] = {
            "expire jobs": (self._queue.store.expire, TIDY_EVERY_S),
            "deliver messages": (notifier.deliver_due, TIDY_EVERY_S),
            "purge photographs": (retention.purge_due, TIDY_EVERY_S),
            "resume deletions": (resume, TIDY_EVERY_S),
            "drop old workers": (self._leases.drop_old_workers, SWEEP_EVERY_S),
            "sweep": (sweep, SWEEP_EVERY_S),
        }
        self._chores = {name: Chore(name, work, every_s=every_s) for name, (work, every_s) in works.items()}
        self._threads: list[threading.Thread] = []
        self._stop, self._end_of_beats = threading.Event(), threading.Event()

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Work.

        Args:
            ready: called once jobs can be claimed.

        Raises:
            AdapterBusy: a worker of this id runs on this machine already.
            NotFound, ...: the trainer cannot load the base; no job was claimed.
        """
        lock = FileLock(self.options.home / f"worker-{self.options.id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise AdapterBusy("a worker with this id runs already", hint="give each worker its own --id") from None
        try:
            self._work(ready)
        finally:
            lock.release()

    def stop(self) -> None:
        """Stop the worker: the trainer writes its checkpoints, the jobs return to the queue."""
        self._stop.set()

    def _work(self, ready: Callable[[], None]) -> None:
        self._leases.register()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        try:
            self._chores["sweep"].run()
            self._tend()
            while not self._trainer.is_ready and not self._stop.wait(TICK_S):  # no claim before it can be trained
                self._tend()
            if not self._stop.is_set():
                self._leases.concurrency = self._trainer.facts["concurrency"]
                ready()
            self._watch()
        finally:
            self._end()

    def _watch(self) -> None:
        busy_s = time.monotonic()
        while not self._stop.wait(TICK_S):
            self._tend()
            self._claim_jobs()
            done = [chore.run() for chore in self._chores.values() if chore.is_due]
            now_s = time.monotonic()
            if not all(done) or self._has_work():
                busy_s = now_s
            idle_s = self.options.exit_when_idle_s
            if idle_s is not None and now_s - busy_s >= idle_s:
                return

    def _claim_jobs(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        try:
            while len(self._threads) < self._leases.concurrency and (claim := self._leases.claim()) is not None:
                self._threads.append(threading.Thread(target=self._run_job, args=(claim,), daemon=True))
                self._threads[-1].start()
        except StorageUnavailable:
            pass  # tried again later
        except Exception:
            log.exception("a claim failed")

    def _run_job(self, claim: Claim) -> None:
        try:
            self._stages.run(claim)
        except Exception:
            log.exception("job %s could not be ended; it is taken up again when its lease has run out", claim.job)
            self._leases.abandon(claim)

    def _beat(self) -> None:
        def renewed() -> None:
            self._preparer.alive()
            self._trainer.alive()

        renew_until(self._end_of_beats, self._leases, renewed=renewed)

    def _tend(self) -> None:
        for child in (self._preparer, self._trainer):
            child.tend()
            if child.unusable is not None:
                raise NotFound(child.unusable["message"], hint=child.unusable["hint"], code="BaseNotFound")
        if self._leases.is_replaced:
            raise AdapterBusy("another process has started with this worker's id", hint="give each an id of its own")

    def _has_work(self) -> bool:
        """Whether there is a reason not to end; asked only where this worker ends when it is idle."""
        if self.options.exit_when_idle_s is None:
            return True
        try:
            return self._queue.backlog().open_jobs > 0 or self._notifier.has_due()
        except StorageError:  # unknown, while the database is unavailable
            return True

    def _is_full(self, concurrency: int) -> None:
        self._leases.concurrency = concurrency

    def _end(self) -> None:
        """The children first, so that their last checkpoints are written before another worker may take over."""
        self._trainer.close(patience_s=STOP_PATIENCE_S)
        self._preparer.close(patience_s=1.0)
        self._stages.stop.set()  # each job's thread releases its lease
        until_s = time.monotonic() + THREADS_PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        self._end_of_beats.set()
        self._leases.unregister()


def renew_until(stop: threading.Event, leases: Leases, *, renewed: Callable[[], None]) -> None:
    """Heartbeats, one after the other; `renewed` is called after each that reached the database."""
    while not stop.wait(leases.beat_s):
        try:
            leases.renew()
        except StorageUnavailable:
            leases.interrupted()
        except Exception:  # without a heartbeat the leases expire, so it is tried again after any error
            log.exception("a heartbeat failed")
            leases.interrupted()
        else:
            if not leases.is_replaced:
                renewed()


def stop_on_signals(worker: Worker) -> None:
    """SIGTERM and SIGINT end the worker in order."""

    def asked(number: int, frame: FrameType | None) -> None:
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
