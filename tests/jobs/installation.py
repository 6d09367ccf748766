"""An installation of its own for a test: a home, a tiny base, a queue, and real worker processes that can be killed."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from PIL import Image

from likeness.config import Settings
from likeness.jobs.job import Job, JobOrder
from likeness.service.training import Training, training_of
from tests.waiting import until

SRC = Path(__file__).parents[2] / "src"
SMALL = {"rank": 2, "alpha": 4, "class_images": 2, "variants": 1, "instance_rows": 2, "prior_rows": 1}


def picture(seed: int, side_px: int = 280) -> bytes:
    """A sharp picture of nothing, which a check of things accepts."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side_px, side_px, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


PHOTOS = archive({f"{seed}.jpg": picture(seed) for seed in range(3)})


@dataclass(frozen=True, eq=False)
class Installation:
    """A home with a queue.

    Args:
        settings: of it and of its workers.
    """

    settings: Settings
    training: Training
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def order(self, name: str, *, tenant: str = "local", steps: int = 6, **changes: object) -> JobOrder:
        """A short training on a thing; the photographs are uploaded."""
        fields = {key: changes.pop(key) for key in list(changes) if key in JobOrder.__dataclass_fields__}
        photos = fields.pop("photos", None) or self.training.upload(tenant, name, PHOTOS)
        recipe = {**SMALL, "steps": steps, "checkpoint_every": 3, **changes}
        return JobOrder(tenant, name, photos, class_noun="dog", recipe="fast", changes=recipe, **fields)  # type: ignore[arg-type]

    def submit(self, name: str, **changes: object) -> Job:
        return self.training.submit(self.order(name, **changes))  # type: ignore[arg-type]

    def job(self, job: Job) -> Job:
        return self.training.queue.status(job.id, job.order.tenant)

    def kinds(self, job: Job) -> list[str]:
        return [event.kind for event in self.training.queue.events(job.id, job.order.tenant)]

    def start(self, id: str, *options: str, wait: bool = True) -> "subprocess.Popen[bytes]":
        """A worker process of this id."""
        log = self.settings.home / f"{id}.log"
        words = [sys.executable, "-m", "likeness.cli", "work", "--id", id, "--previews", "0", "--no-score", *options]
        with log.open("ab") as file:
            size = file.tell()
            process = subprocess.Popen(words, env=self.environment(), stdout=file, stderr=file, start_new_session=True)
        self.processes[id] = process
        if wait:
            until(lambda: b"ready, waiting" in log.read_bytes()[size:])
        return process

    def environment(self) -> dict[str, str]:
        """Of the worker processes: this installation's settings."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LIKENESS_")}
        said = {
            f"LIKENESS_{field.name.upper()}": str(getattr(self.settings, field.name))
            for field in fields(self.settings)
            if getattr(self.settings, field.name) != field.default
        }
        path = os.pathsep.join(filter(None, (str(SRC), os.environ.get("PYTHONPATH"))))
        said |= {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        return kept | said

    def kill(self, id: str) -> None:
        """kill -9 of the supervisor alone; its children have to notice by themselves."""
        self.processes[id].kill()
        self.processes[id].wait()

    def children(self, id: str, module: str) -> list[int]:
        """Process ids of a worker's children of one kind."""
        return [pid for pid in pids_with(module) if parent_of(pid) == self.processes[id].pid]

    def log(self, id: str) -> str:
        return (self.settings.home / f"{id}.log").read_text()

    def stop(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.training.close()
        self.training.library.catalog.close()


@contextmanager
def installed(home: Path, base: Path, **settings: object) -> Iterator[Installation]:
    """An installation, and its end."""
    home.mkdir(parents=True, exist_ok=True)
    chosen = Settings(home=home, base=str(base), **{"heartbeat_s": 1, **settings})  # type: ignore[arg-type]
    installation = Installation(chosen, training_of(chosen))
    try:
        yield installation
    finally:
        installation.stop()


def pids_with(module: str) -> list[int]:
    """Running processes that were started as `python -m module`."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and module in (entry / "cmdline").read_bytes().decode().split("\0"):
                found.append(int(entry.name))
    return found


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
