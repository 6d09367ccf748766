"""A training worker: a supervisor process with two children, and nothing in it that could crash with a picture.

    supervisor   claims jobs (DBOS), walks them through their steps, beats, notices silent workers, sends messages
    preparer     reads photographs, one job at a time
    trainer      owns the device, one joint loop for all jobs

Start as many workers as there are devices, on any number of machines, all with the same database and object store; each
needs an id of its own that stays the same when it is started again (systemd's instance name, a pod's name).
"""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dbos import DBOS
from dbos._dbos import _get_or_create_dbos_registry
from filelock import FileLock, Timeout

from ..errors import AdapterBusy, NotFound, StorageError
from ..storage.library import AdapterLibrary
from . import holds
from .chores import Chore
from .heartbeat import Heartbeat
from .ledger import Ledger
from .link import Link
from .locations import Locations
from .notify import Notifier
from .queue import APP, APP_VERSION, QUEUE, SERIALIZER, Queue
from .retention import Retention
from .steps import Steps
from .tables import Database
from .workflow import register_workflow

TICK_S = 0.25
TIDY_EVERY_S = 1.0
SWEEP_EVERY_S = 3600.0
POLL_S = 0.3  # how often DBOS looks for the next job
STOP_PATIENCE_S = 30.0  # for the trainer's checkpoints


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is told. Times in seconds.

    Args:
        id: stable over restarts, and nobody else's.
        concurrency: most jobs at once; 0 = as many as the device's memory holds, measured at the start.
        exit_when_idle_s: end after so long without a job; None = never.
        keep_photos_s: after a job has succeeded.
        rank: the largest that a job may ask for.
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


class Worker:
    """One worker of one installation. `run` blocks until it is told to stop, or is idle for long enough.

    Args:
        resume: goes on with deletions that are under way.
        sweep: deletes what processes that were killed left in the store.
    """

    def __init__(
        self, options: WorkerOptions, database: Database, library: AdapterLibrary, *,
        locations: Locations, notifier: Notifier, resume: Callable[[], object], sweep: Callable[[], object],
    ) -> None:  # fmt: skip
        self.options = options
        self._database, self._library = database, library
        self._notifier = notifier
        self._queue = Queue(database, published_in(library))
        self._retention = Retention(database, library.objects, library.catalog)
        self._heart = Heartbeat(
            database, options.id, beat_s=options.beat_s, concurrency=options.concurrency or 1, beaten=self._beaten
        )
        shared = {"objects": options.objects, "lease_s": self._heart.lease_s}
        self._preparer = Link("likeness.jobs.preparer", shared, kill_to_leave=True)
        trainer = {
            **shared, "base": options.base, "revision": options.revision, "concurrency": options.concurrency,
            "previews": options.previews, "class_images": str(options.home / "class-images"),
        }  # fmt: skip
        self._trainer = Link("likeness.jobs.trainer", trainer)
        self._steps = Steps(
            Ledger(database),
            library,
            locations,
            preparer=self._preparer,
            trainer=self._trainer,
            full=self._is_full,
            scores=options.scores,
            most_rank=options.rank,
        )
        works: dict[str, tuple[Callable[[], object], float]] = {
            "recover jobs": (self._recover, TIDY_EVERY_S), "deliver messages": (notifier.deliver_due, TIDY_EVERY_S),
            "purge photographs": (self._retention.purge_due, TIDY_EVERY_S), "resume deletions": (resume, TIDY_EVERY_S),
            "sweep": (sweep, SWEEP_EVERY_S),
        }  # fmt: skip
        self._chores = {name: Chore(name, work, every_s=every_s) for name, (work, every_s) in works.items()}
        self._stop = threading.Event()
        self._jobs: Callable[[], int] = lambda: 0

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Work.

        Args:
            ready: called once jobs can be claimed.

        Raises:
            AdapterBusy: a worker of this id runs on this machine already.
            NotFound, ...: the trainer cannot load the base; nothing was claimed.
        """
        lock = FileLock(self.options.home / f"worker-{self.options.id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise AdapterBusy("a worker of this id runs already", hint="give each worker an id of its own") from None
        try:
            self._work(ready)
        finally:
            lock.release()

    def stop(self) -> None:
        """Ask it to end: the trainer writes its checkpoints, the jobs go back to the queue."""
        self._stop.set()

    def _work(self, ready: Callable[[], None]) -> None:
        self._heart.start()
        try:
            holds.let_go(self._database, self.options.id)  # of an earlier process of this id, whose children are gone
            self._chores["sweep"].run()
            for link in (self._preparer, self._trainer):
                link.tend()
            while not self._trainer.is_ready and not self._stop.wait(TICK_S):  # nobody claims what nobody can train
                self._tend()
            if not self._stop.is_set():
                self._claim_jobs()
                ready()
            self._watch()
        finally:
            self._end()

    def _claim_jobs(self) -> None:
        DBOS(
            config={
                "name": APP, "system_database_url": self._database.url, "executor_id": self.options.id,
                "application_version": APP_VERSION, "serializer": SERIALIZER,
                "log_level": "WARNING", "console_log_level": "WARNING",
                "notification_listener_polling_interval_sec": 1.0, "scheduler_polling_interval_sec": 3600.0,
            }
        )  # fmt: skip
        registry = _get_or_create_dbos_registry()
        # Not DBOS.register_queue: that is one row for all workers, and each knows best how many jobs its device holds.
        concurrency = self._trainer.facts["concurrency"]
        self._dbos_queue = registry._register_internal_queue(
            QUEUE, worker_concurrency=concurrency, polling_interval_sec=POLL_S
        )
        self._heart.concurrency = concurrency
        register_workflow(self._steps, self.options.id, keep_photos_s=self.options.keep_photos_s)
        DBOS.launch()

    def _watch(self) -> None:
        busy_s = time.monotonic()
        while not self._stop.wait(TICK_S):
            self._tend()
            done = [chore.run() for chore in self._chores.values() if chore.is_due]
            now_s = time.monotonic()
            if not all(done) or self._has_work():
                busy_s = now_s
            idle_s = self.options.exit_when_idle_s
            if idle_s is not None and now_s - busy_s >= idle_s:
                return

    def _recover(self) -> None:
        if self._heart.may_judge:
            self._queue.recover()
        else:
            self._queue.observe()  # what it sees now it can judge by later

    def _tend(self) -> None:
        for link in (self._preparer, self._trainer):
            link.tend()
            if link.unusable is not None:
                raise NotFound(link.unusable["message"], hint=link.unusable["hint"], code="BaseNotFound")
        if self._heart.is_replaced:
            raise AdapterBusy("another process has started with this worker's id", hint="give each an id of its own")

    def _has_work(self) -> bool:
        """Whether there is a reason not to end; asked only where this worker ends when it is idle."""
        if self.options.exit_when_idle_s is None:
            return True
        try:
            return self._queue.open_jobs() > 0 or self._notifier.has_due()
        except StorageError:  # nobody knows
            return True

    def _beaten(self) -> None:
        for link in (self._preparer, self._trainer):
            link.alive()

    def _is_full(self, concurrency: int) -> None:
        self._heart.concurrency = concurrency
        self._dbos_queue._worker_concurrency = concurrency

    def _end(self) -> None:
        """Children first, so that their last checkpoints are there before somebody else may take over."""
        self._trainer.close(patience_s=STOP_PATIENCE_S)
        self._preparer.close(patience_s=1.0)
        self._heart.stop()


def published_in(library: AdapterLibrary) -> Callable[[str, str], str | None]:
    """What the catalog says is published under a name."""

    return library.catalog.content_sha256


def stop_on_signals(worker: Worker) -> None:
    """SIGTERM and SIGINT end the worker in order."""

    def asked(number: int, frame: FrameType | None) -> None:
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
