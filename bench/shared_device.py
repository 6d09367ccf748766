"""A training and an engine on one core: the seconds to an image, and the training's steps, with and without waiting.

python -m bench.shared_device [--images 40] [--steps 10] [--pause-s 1.0] [--save]

One core stands for a device that both share. One image after the other, a pause between two, on the built-in base:

alone            no training
steps wait       the default: no step begins while there is a request
steps do not     LIKENESS_TRAINING_WAIT_S=0
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fixtures.installation import Installation, installed
from fixtures.waiting import until
from likeness.jobs.job import Job
from likeness.service import build
from likeness.types import ImageRequest
from recipes.measurement import Row

from .report import Goal, finish, options

MOST = 1.5  # times: a step that has begun is not interrupted
STANDARD = {"rank": 8, "alpha": 8, "instance_rows": 6, "prior_rows": 2, "checkpoint_every": 20_000}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--base", default="built-in")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10, help="of an image")
    parser.add_argument("--pause-s", type=float, default=1.0, help="between two images: the training's")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = [
        measured(name, args.base, wait_s, images=args.images, steps=args.steps, pause_s=args.pause_s)
        for name, wait_s in {"alone": None, "steps wait": 30, "steps do not": 0}.items()
    ]
    settings: dict[str, Any] = {name: value for name, value in vars(args).items() if name not in ("save", "base")}
    alone_s, waiting_s = (float(str(row["p50 s"])) for row in rows[:2])
    goals = [Goal("median seconds to an image, over those without a training", waiting_s / alone_s, MOST, False)]
    finish(
        "shared-device", {"images": rows}, goals=goals, settings=settings | {"base": Path(args.base).name},
        save=args.save,
    )  # fmt: skip


def measured(name: str, base: str, wait_s: int | None, *, images: int, steps: int, pause_s: float) -> Row:
    """One row: `wait_s` of the training's steps; None: there is no training."""
    with tempfile.TemporaryDirectory() as folder, installed(
        Path(folder), Path(base), training_wait_s=wait_s or 0, heartbeat_s=30
    ) as installation:  # fmt: skip
        likeness = build(installation.settings)
        job = None
        if wait_s is not None:
            job = installation.submit("rex", steps=20_000, **STANDARD)
            installation.start("w-0")
            until(lambda: trained(installation, job) > 2)
        likeness.generate([ImageRequest("a portrait", seed=0, steps=steps)])
        begun_s, before, took_s = time.perf_counter(), trained(installation, job), list[float]()
        for seed in range(images):
            started_s = time.perf_counter()
            likeness.generate([ImageRequest("a portrait", seed=seed, steps=steps)])
            took_s.append(time.perf_counter() - started_s)
            time.sleep(pause_s)
        taken, seconds = trained(installation, job) - before, time.perf_counter() - begun_s
        likeness.close()
    p50, p90 = np.percentile(took_s, (50, 90))
    return {"training": name, "p50 s": float(p50), "p90 s": float(p90), "training steps a second": taken / seconds}


def trained(installation: Installation, job: Job | None) -> int:
    """Steps of the training so far, as it was reported last."""
    if job is None:
        return 0
    progress = installation.job(job).progress
    return int(str(progress.get("done", 0))) if progress.get("stage") == "train" else 0


if __name__ == "__main__":
    main()
