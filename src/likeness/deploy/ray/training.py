"""Training on the cluster: `likeness work` in replicas whose number follows the backlog, down to none.

The queue stays in its database: a replica gets no requests, its worker claims jobs as any other worker does. When a
replica stops, its worker writes checkpoints first; when it is killed, another worker goes on from them.
"""

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from ...commands.workers import Process, end_worker, start_worker
from ...errors import DeviceFailed, SettingsError, StorageError
from ...service.training import Training, training_of
from .options import DRAIN_S, LOGS, options_of
from .replica import settings_at, stay_on_loopback

TRAINING_NAME = "likeness-training"
POLICY = "likeness.deploy.ray.training:FollowBacklog"
LOOK_S = 1.0  # between two looks at the queue
MORE_AFTER_S = 5.0  # a backlog is this old before a second worker starts; the first starts at once

log = logging.getLogger("likeness.workers")


@dataclass(frozen=True)
class TrainingOptions:
    """`args` of the application in a Serve config file.

    Args:
        home: of the installation on every node; LIKENESS_HOME by default.
        workers: the most at once.
        jobs: at once in one worker.
        idle_s: seconds that a worker which is not needed is kept.
        devices: of the node that a worker occupies, GPUs; 0: the CPU.
        threads: of a worker on the CPU.
    """

    home: str | None = None
    workers: int = 1
    jobs: int = 2
    idle_s: float = 300.0
    devices: float = 0
    threads: int = 1


def training(args: Mapping[str, object]) -> Application:
    """The application of the training workers, with `TrainingOptions`. Raises UsageError, SettingsError."""
    options = options_of(TrainingOptions, args)
    if options.workers < 1 or options.jobs < 1:
        raise SettingsError(f"expected workers and jobs of at least 1, got {options.workers} and {options.jobs}")
    settings_at(options.home)  # raises here, not in each replica
    scaling = AutoscalingConfig(
        min_replicas=0, max_replicas=options.workers, upscale_delay_s=MORE_AFTER_S, downscale_delay_s=options.idle_s,
        policy=AutoscalingPolicy(
            policy_function=POLICY, policy_kwargs={"home": options.home, "jobs_of_worker": options.jobs}
        ),
    )  # fmt: skip
    return TrainingReplica.options(  # type: ignore[attr-defined]
        num_replicas=None, autoscaling_config=scaling,
        ray_actor_options={"num_cpus": options.threads, "num_gpus": options.devices},
        graceful_shutdown_timeout_s=DRAIN_S, health_check_period_s=1.0, logging_config=LOGS,
    ).bind(options.home, options.jobs)  # fmt: skip


@serve.deployment
class TrainingReplica:
    """One `likeness work`, a process that ends with this one: on Linux also if this one is killed.

    Args:
        home: see `settings_at`.
        jobs: at once.
    """

    def __init__(self, home: str | None, jobs: int) -> None:
        stay_on_loopback()
        id = serve.get_replica_context().replica_id.unique_id
        self._worker: Process = start_worker(
            settings_at(home).home.expanduser().absolute(), f"ray-{id}", "--concurrency", str(jobs)
        )

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises."""
        if (status := self._worker.poll()) is not None:
            raise DeviceFailed(f"expected the training worker to run, got one that has ended with status {status}")

    async def __del__(self) -> None:
        """Called by Serve when the replica stops; the jobs go back to the queue."""
        await asyncio.to_thread(end_worker, self._worker)


class FollowBacklog:
    """Serve's autoscaling policy for `TrainingReplica`: enough workers for the jobs that wait or run.

    Serve's controller asks often and must not wait for a database, so a thread looks at the queue.

    Args:
        home: see `settings_at`.
        jobs_of_worker: that one worker trains at once.
    """

    def __init__(self, home: str | None, jobs_of_worker: int) -> None:
        self._jobs_of_worker = jobs_of_worker
        service = training_of(settings_at(home))
        self._backlog = Backlog(lambda: service.queue.backlog().open_jobs)
        weakref.finalize(self, self._backlog.stop.set)  # of a policy that was replaced
        threading.Thread(target=_watch, args=(self._backlog, service), name="likeness-backlog", daemon=True).start()

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        jobs = self._backlog.open_jobs
        if jobs is None:
            return context.target_num_replicas, {}
        return min(-(-jobs // self._jobs_of_worker), context.capacity_adjusted_max_replicas), {}


def _watch(backlog: "Backlog", service: Training) -> None:
    with closing(service):
        backlog.watch()


class Backlog:
    """The number of open jobs as it was at the last look; None before the first, and while the database is away."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self.open_jobs: int | None = None
        self.stop = threading.Event()

    def watch(self) -> None:
        """Look until `stop`."""
        while True:
            self.look()
            if self.stop.wait(LOOK_S):
                return

    def look(self) -> None:
        try:
            self.open_jobs = self._read()
        except StorageError:
            self.open_jobs = None
        except Exception:
            log.exception("the length of the queue could not be read")
            self.open_jobs = None
