"""A worker's part, played by a test: claims, leases that run out, and stages without child processes."""

import sqlalchemy as sa

from likeness.jobs.job import Claim
from likeness.jobs.leases import Leases
from likeness.jobs.store import JobStore
from likeness.jobs.tables import jobs
from likeness.service.training import Training
from likeness.storage.database import Database
from likeness.worker.child_process import ChildProcess
from likeness.worker.stages import Stages


def next_claim(database: Database, worker: str = "w-0") -> Claim | None:
    return Leases(database, worker, beat_s=5.0).claim()


def claimed(database: Database, worker: str = "w-0", *, job: str | None = None) -> Claim:
    """The first job of the queue, or all up to this one, which a worker takes now."""
    while True:
        claim = next_claim(database, worker)
        assert claim is not None
        if job in (None, claim.job):
            return claim


def set_lease(database: Database, until_s: "float | sa.ColumnElement[float] | None") -> None:
    """Of every job; None: as if its worker had released it."""
    database.run(lambda connection: connection.execute(jobs.update().values(lease_until_s=until_s)))


def taken_over(database: Database, worker: str = "w-1") -> Claim:
    """The job that runs, by another worker after its lease was released."""
    set_lease(database, None)
    return claimed(database, worker)


def stages_of(training: Training, **options: object) -> Stages:
    """Stages whose child processes are never started."""
    preparer, trainer = ChildProcess("none", {}), ChildProcess("none", {})
    release = Leases(training.database, "w-0", beat_s=5.0).release
    return Stages(
        JobStore(training.database), training.library, training.locations, preparer, trainer, release,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
