"""The training service under kill -9 and under load: nothing lost, nothing twice, little repeated, and how fast.

python -m bench.jobs [--parts crash,outage,latency,speed] [--jobs 200] [--workers 3] [--kills 50] [--save]

crash     jobs over HTTP with idempotency keys; at random, workers, trainers in the middle of a training and the
          server are killed, and whole workers are stopped (SIGSTOP) until another has taken a job over, then go on
outage    the same without kills on a PostgreSQL that is away for `--outage-s` in the middle
latency   submit's p99 while trainings run; from a cancel to the next job in that slot; from a worker's death to another
          going on with its job
speed     eight jobs that wait, on one worker: eight at once against one after the other

Real processes, on a random tiny base (`speed`: on the base that people get) and pictures of noise as photographs.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fixtures.installation import PHOTOS, SMALL, Installation, installed, pids_with
from fixtures.postgres import postgres
from fixtures.tiny import build_tiny_folder
from fixtures.waiting import until
from likeness.config import Settings
from likeness.jobs.job import Job
from recipes.measurement import Row

from .report import Goal, finish, options

TRAINER, PREPARER = "likeness.worker.trainer", "likeness.worker.preparer"
PATIENCE_S = 3600.0
TAKEOVER_S = 120.0  # for another worker to have room for a stopped one's job
KILLS = {"worker": 3, "trainer in mid-step": 3, "worker stopped until taken over": 2, "server": 2}  # how often


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Server:
    """`likeness serve` on a port of its own, that can be killed and started again."""

    def __init__(self, installation: Installation) -> None:
        self.port, self._installation = free_port(), installation
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "likeness.cli", "serve", "--port", str(self.port), "--workers", "0"]
        with (self._installation.settings.home / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(words, env=self._installation.environment(), stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def submit(self, document: Mapping[str, object], key: str) -> str:
        """The job's id; tries again until the server says so, as any careful client."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        address = f"http://127.0.0.1:{self.port}/v1/jobs"
        while True:
            request = urllib.request.Request(address, json.dumps(document).encode(), headers)
            with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:  # HTTPError is an OSError
                return str(json.loads(answer.read())["id"])
            time.sleep(0.3)


def step_of(job: Job) -> int | None:
    """The last known step of a job that trains, else None."""
    step = job.progress.get("done" if job.progress.get("kind") == "progress" else "step")
    is_training = job.state == "running" and job.progress.get("stage", "train") == "train"
    return step if is_training and isinstance(step, int) else None


class Watch:
    """How far every job was seen to be, and when: what a death cost is told from it."""

    def __init__(self, installation: Installation) -> None:
        self._queue, self._stop = installation.training.queue, threading.Event()
        self.seen: dict[str, list[tuple[float, int]]] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            for job in self._queue.jobs_of("local", limit=1000):
                if (step := step_of(job)) is not None:
                    self.seen.setdefault(job.id, []).append((time.time(), step))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def repeated(self, job: Job) -> list[int]:
        """Steps that were taken again, for each time that the job joined a loop again.

        Trainers report once a second: steps between the last report and the death are not seen.
        """
        joins = [event for event in self._queue.events(job.id, "local") if event.kind == "joined"]
        out = []
        for join in joins[1:]:
            before = [step for at_s, step in self.seen.get(job.id, []) if at_s < join.at_s]
            out.append(max(0, max(before, default=0) - int(str(join.facts["step"]))))
        return out


def document(name: str, steps: int, every: int) -> dict[str, object]:
    recipe = {**SMALL, "steps": steps, "checkpoint_every": every}
    return {"name": name, "class_noun": "dog", "recipe": "fast", "recipe_changes": recipe}


def verdict(installation: Installation, ids: Sequence[str]) -> tuple[dict[str, int], list[Job]]:
    """What is wrong, counted; all zeros is what was promised."""
    training = installation.training
    found = [training.queue.status(id, "local") for id in ids]
    adapters = {record.name: record.card.content_sha256 for record in training.library.catalog.list_adapters("local")}
    good = {job.order.name: job.adapter_sha256 for job in found if job.state == "succeeded"}
    ends = {
        job.id: sum(
            event.kind == "state" and event.facts["state"] not in ("queued", "running")
            for event in training.queue.events(job.id, "local")
        )
        for job in found
    }
    wrong = {
        "lost": len(ids) - len(good),
        "finished twice": sum(count > 1 for count in ends.values()),
        "adapters without a succeeded job": len(adapters.keys() - good.keys()),
        "succeeded jobs without their adapter": sum(adapters.get(name) != sha256 for name, sha256 in good.items()),
    }
    return wrong, found


def crash(args: argparse.Namespace, home: Path, base: Path) -> tuple[list[Row], list[Goal]]:
    """Jobs, and kills at random over whatever is alive."""
    home.mkdir()
    (home / "inputs").mkdir()
    (home / "inputs" / "photos.tar").write_bytes(PHOTOS)
    rng = random.Random(args.seed)
    with installed(home, base, job_inputs=f"file://{home}/inputs", heartbeat_s=args.heartbeat_s) as one:
        server, workers = Server(one), [f"w-{k}" for k in range(args.workers)]
        for id in workers:
            one.start(id, "--concurrency", "4", wait=False)
        ids: dict[str, str] = {}

        def submit() -> None:
            for k in range(args.jobs):
                order = document(f"job-{k}", args.steps, args.checkpoint_every)
                ids[f"job-{k}"] = server.submit(order | {"photos": f"file://{home}/inputs/photos.tar"}, f"key-{k}")

        started_s = time.monotonic()
        submitting = threading.Thread(target=submit)
        submitting.start()
        watch, killed = Watch(one), dict.fromkeys(KILLS, 0)

        def is_over() -> bool:
            return len(ids) == args.jobs and one.training.queue.backlog().open_jobs == 0

        until(lambda: bool(watch.seen), PATIENCE_S)  # from here on a kill interrupts a training
        while not is_over() and time.monotonic() - started_s < PATIENCE_S:
            time.sleep(rng.expovariate(1 / args.kill_every_s) if sum(killed.values()) < args.kills else 1.0)
            if sum(killed.values()) < args.kills:
                killed[_kill_one(rng, one, server, workers)] += 1
        seconds = time.monotonic() - started_s
        submitting.join(60)
        watch.stop()
        wrong, jobs = verdict(one, list(ids.values()))
        repeated = [count for job in jobs for count in watch.repeated(job)]
        deaths = sum(killed.values())
        deaths_seen = sum(event.kind == "died" for job in jobs for event in one.training.queue.events(job.id, "local"))
        server.kill()
    failed = {job.failure.code for job in jobs if job.failure is not None}
    row: Row = {
        "jobs": args.jobs, "workers": args.workers, **{f"kills: {kind}": n for kind, n in killed.items()},
        "trainings that died with a trainer": deaths_seen, "minutes": seconds / 60, **wrong,
        "steps repeated at most": max(repeated, default=0),
        "jobs that went on": len(repeated), "codes of failures": ", ".join(sorted(failed)) or "none",
    }  # fmt: skip
    title = f"{args.jobs} jobs, {deaths} kills"
    goals = [Goal(f"{title}: {what}", count, 0, at_least=False) for what, count in wrong.items()]
    goals.append(Goal(f"{title}: jobs that a kill met in training and that went on", len(repeated), 1, at_least=True))
    goals += [Goal(f"{title}: {kind}", count, 1, at_least=True) for kind, count in killed.items()]
    goals.append(Goal(f"{title}: trainings that died with a trainer", deaths_seen, 1, at_least=True))
    limit = args.checkpoint_every
    goals.append(Goal(f"{title}: steps repeated at a kill", max(repeated, default=0), limit, at_least=False))
    return [row], goals


def _kill_one(rng: random.Random, one: Installation, server: Server, workers: Sequence[str]) -> str:
    """Kill or stop something; returns which of `KILLS` it was."""
    (kind,) = rng.choices(list(KILLS), list(KILLS.values()))
    training = [job for job in one.training.queue.jobs_of("local", limit=1000) if (step_of(job) or 0) >= 1]
    job = rng.choice(training) if training else None
    trainers = one.children(str(job.worker), TRAINER) if job is not None else []
    if kind == "server":
        server.kill()
        server.start()
    elif kind == "trainer in mid-step" and trainers:
        with suppress(ProcessLookupError):
            os.kill(trainers[0], signal.SIGKILL)
    elif kind == "worker stopped until taken over" and job is not None and _is_taken_over(one, job):
        pass
    else:
        kind, worker = "worker", rng.choice(workers)
        one.kill(worker)
        one.start(worker, "--concurrency", "4", wait=False)
    return kind


def _is_taken_over(one: Installation, job: Job) -> bool:
    """Stop a job's worker and its children, as a host that hangs, until another worker has the job; then go on."""
    stopped = [
        one.processes[str(job.worker)].pid,
        *(pid for module in (TRAINER, PREPARER) for pid in one.children(str(job.worker), module)),
    ]
    before = one.kinds(job).count("taken over")
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        end_s = time.monotonic() + TAKEOVER_S
        while time.monotonic() < end_s and not one.job(job).is_over:
            if one.kinds(job).count("taken over") > before:
                return True
            time.sleep(0.25)
        return False
    except ProcessLookupError:
        return False
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def outage(args: argparse.Namespace, home: Path, base: Path) -> tuple[list[Row], list[Goal]]:
    """The database is stopped while jobs run."""
    count = min(args.jobs, 20)
    with ExitStack() as open_now:
        folder = Path(open_now.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        cluster = open_now.enter_context(postgres(folder / "cluster"))
        one = open_now.enter_context(installed(home, base, jobs=cluster.url, catalog=cluster.url))
        sizes = {"steps": args.steps, "checkpoint_every": args.checkpoint_every}
        jobs = [one.submit(f"job-{k}", **sizes) for k in range(count)]
        for k in range(2):
            one.start(f"w-{k}", "--concurrency", "4")
        until(lambda: any(one.job(job).state == "succeeded" for job in jobs), PATIENCE_S)
        cluster.stop()
        time.sleep(args.outage_s)
        cluster.start()
        until(lambda: one.training.queue.backlog().open_jobs == 0, PATIENCE_S)
        wrong, _ = verdict(one, [job.id for job in jobs])
    row: Row = {"jobs": count, "seconds without a database": args.outage_s, **wrong}
    title = f"database away for {args.outage_s:g} s"
    return [row], [Goal(f"{title}: {what}", n, 0, at_least=False) for what, n in wrong.items()]


def latency(args: argparse.Namespace, home: Path, base: Path) -> tuple[list[Row], list[Goal]]:
    """Latencies of submit, cancel and takeover."""
    with installed(home, base, heartbeat_s=args.heartbeat_s) as one:
        queue = one.training.queue
        running = one.submit("running", steps=20_000)
        one.start("w-0", "--concurrency", "1")
        until(lambda: "joined" in one.kinds(running), PATIENCE_S)
        taken, waiting = [], []
        for order in [one.order(f"many-{k}", tenant=f"tenant-{k}", steps=20_000) for k in range(args.submits)]:
            started_s = time.perf_counter()
            waiting.append(queue.submit(order))
            taken.append(time.perf_counter() - started_s)
        p99_s = sorted(taken)[int(0.99 * (len(taken) - 1))]
        cancels = [_seconds_to_free(one, running, waiting[0])]
        cancels += [_seconds_to_free(one, waiting[k], waiting[k + 1]) for k in range(min(4, args.submits - 1))]
        for job in waiting:
            queue.cancel(job.id, job.order.tenant)
        until(lambda: queue.backlog().open_jobs == 0, PATIENCE_S)
        one.start("w-1", "--concurrency", "1")
        takeovers = [_seconds_to_take_over(one, f"taken-{k}") for k in range(3)]
    times = {
        "submit while a training runs, p99": ([p99_s], 0.1),
        "from a cancel to the next job in its slot": (cancels, 2.0),
        "from a worker's death to another's going on": (takeovers, 2 * args.heartbeat_s + 5.0),
    }
    rows: list[Row] = [{"what": what, "times": len(s), "s at most": max(s)} for what, (s, _) in times.items()]
    return rows, [Goal(f"s {what}", max(s), limit, at_least=False) for what, (s, limit) in times.items()]


def _seconds_to_free(one: Installation, running: Job, following: Job) -> float:
    """From the cancel of a job in the loop to the start of the one that waits for its slot."""
    until(lambda: "joined" in one.kinds(running), PATIENCE_S)
    asked_s = time.time()
    one.training.queue.cancel(running.id, running.order.tenant)
    until(lambda: one.job(following).state == "running", PATIENCE_S, 0.02)
    return (one.job(following).started_s or 0.0) - asked_s


def _seconds_to_take_over(one: Installation, name: str) -> float:
    """From a worker's death to another one's claim; the dead one comes back afterwards."""
    job = one.submit(name, steps=20_000, checkpoint_every=5)
    until(lambda: "checkpoint" in one.kinds(job), PATIENCE_S)
    holder = str(one.job(job).worker)
    one.kill(holder)
    died_s = time.time()
    until(lambda: "taken over" in one.kinds(job), PATIENCE_S)
    events = one.training.queue.events(job.id, "local")
    seconds = next(event.at_s for event in events if event.kind == "taken over") - died_s
    one.training.queue.cancel(job.id, "local")
    one.start(holder, "--concurrency", "1")
    return seconds


def speed(args: argparse.Namespace, home: Path, base: str) -> tuple[list[Row], list[Goal]]:
    """Jobs an hour with eight at once and with one at a time."""
    rows = [_hourly(home / f"at-once-{count}", Path(base), count, steps=args.speed_steps) for count in (8, 1)]
    gain = float(str(rows[0]["jobs an hour"])) / float(str(rows[1]["jobs an hour"]))
    return rows, [Goal("times the jobs an hour, 8 at once against 1", gain, 2.5, at_least=True)]


def _hourly(home: Path, base: Path, at_once: int, *, steps: int) -> Row:
    """Eight jobs of one photo and one class image a step, as the reference solution trains."""
    few: dict[str, object] = {
        "rank": 8, "alpha": 8, "class_images": 2, "variants": 1, "instance_rows": 1, "prior_rows": 1,
        "prior_from_base": False,
    }  # fmt: skip
    with installed(home, base, heartbeat_s=5) as one:
        warm = one.submit("warm", steps=1, **few)  # class images and caches
        one.start("w-0", "--concurrency", str(at_once))
        until(lambda: one.job(warm).is_over, PATIENCE_S)
        started_s = time.time()
        jobs = [one.submit(f"job-{k}", steps=steps, checkpoint_every=1000, **few) for k in range(8)]
        until(lambda: all(one.job(job).is_over for job in jobs), PATIENCE_S)
        ends = [one.job(job) for job in jobs]
    seconds = max(job.finished_s or 0.0 for job in ends) - started_s
    good = sum(job.state == "succeeded" for job in ends)
    return {"jobs at once": at_once, "seconds": seconds, "jobs an hour": 3600 * good / seconds, "succeeded": good}


@contextmanager
def homes() -> Iterator[Callable[[str], Path]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield lambda name: Path(folder) / name


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--parts", default="crash,outage,latency,speed")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kill-every-s", type=float, default=8.0, help="on average")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--checkpoint-every", type=int, default=10)
    parser.add_argument("--outage-s", type=float, default=30.0)
    parser.add_argument("--submits", type=int, default=100)
    parser.add_argument("--heartbeat-s", type=int, default=1)
    parser.add_argument("--speed-base", default=Settings.base)
    parser.add_argument("--speed-steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args: argparse.Namespace = parser.parse_args()
    settings = {key: value for key, value in vars(args).items() if key != "save"}
    with homes() as home:
        base = build_tiny_folder(home("base"))
        parts: dict[str, Callable[[], tuple[list[Row], list[Goal]]]] = {
            "crash": lambda: crash(args, home("crash"), base),
            "outage": lambda: outage(args, home("outage"), base),
            "latency": lambda: latency(args, home("latency"), base),
            "speed": lambda: speed(args, home("speed"), args.speed_base),
        }
        for name in args.parts.split(","):
            print(f"-- {name}", flush=True)
            rows, goals = parts[name]()
            left = [pid for pid in pids_with(TRAINER) if pid]
            facts = settings | {"processes left": len(left)}
            finish(f"jobs-{name}", {name: rows}, goals=goals, settings=facts, save=args.save)


if __name__ == "__main__":
    main()
