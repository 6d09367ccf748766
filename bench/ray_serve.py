"""Replicas on a local Ray: the cost of the hop, two against one, warm requests by router, and a killed replica.

python -m bench.ray_serve [--parts hop,two,kill,blend,warm] [--base built-in] [--adapters 10000] [--save]

hop        one image after the other, one step each, from this process: the seconds around the engine's own, against an
           engine in this process.
two        16 images at once of 16 adapters, on one replica of one thread and on two.
warm       requests for `--adapters` by Zipf's law with exponent 1 on four replicas, whose memory has room for 1.5 times
           their share; a fifth of the requests first, not counted, after one for each adapter. The tests' tiny base.
kill       the busiest of three replicas is killed every 5 s during 200 requests: requests without an image, with more
           than one, and the slowest next image for a killed replica's adapters. A client that gets 503 asks again.
blend      eight images at once of eight people by an engine in this process, two adapters each against one.

Replicas, callers and Ray's own processes share the cores of this machine. Where they are too few, the document says so:
`two` and `kill` then measure the lack of cores too.
"""

import os
from pathlib import Path
from typing import Any

from likeness.deploy.ray.local_cluster import set_environment

from .report import ROOT, finish, options

PARTS = ("hop", "two", "kill", "blend", "warm")
CORES = 4  # two replicas, the caller, Ray's own processes


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--base", default="built-in", help="of all parts but `warm`")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help="each has a document")
    parser.add_argument("--images", type=int, default=200, help="of `hop`")
    parser.add_argument("--steps", type=int, default=10, help="of an image of `two`, `kill` and `blend`")
    parser.add_argument("--rounds", type=int, default=3, help="of `two` and `blend`; the fastest counts")
    parser.add_argument("--killed-requests", type=int, default=200, help="of `kill`")
    parser.add_argument("--kill-every-s", type=float, default=5.0, help="of `kill`")
    parser.add_argument("--adapters", type=int, default=10_000, help="of `warm`")
    parser.add_argument("--requests", type=int, default=5_000, help="of `warm`")
    parser.add_argument("--replicas", type=int, default=4, help="of `warm`")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    os.environ["OMP_NUM_THREADS"] = "1"
    set_environment()
    from .ray_parts import measured

    settings: dict[str, Any] = {name: value for name, value in vars(args).items() if name not in ("save", "base")}
    settings["base"] = Path(args.base).name
    if (cores := len(os.sched_getaffinity(0))) < CORES:
        settings["note"] = f"{cores} cores for two replicas, the caller and Ray's processes: `two` cannot reach 2"
        print(settings["note"])
    measured(
        args,
        lambda part, rows, goals: finish(f"ray-{part}", {part: rows}, goals=goals, settings=settings, save=args.save),
    )


if __name__ == "__main__":
    main()
