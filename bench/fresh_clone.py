"""From `git clone` to the first portrait with nothing installed: clone into an empty folder, `make demo`, wait.

python -m bench.fresh_clone [--no-cache] [--save]

Clones the last commit, not the working tree. Most of the time is the installation of packages; pip's cache is used
unless --no-cache is given.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .report import ROOT, Goal, finish, options

POLL_EVERY_S = 0.2
MOST_S = 360.0
# file that appears -> finished stage; the paths are those of the Makefile and of `likeness demo`
MARKS = {
    ".venv/.installed-run": "installed",
    "demo-output/portraits/*.png": "first portrait",
    "demo-output/report.html": "report",
}


def clean_environment(folder: Path, *, no_cache: bool) -> dict[str, str]:
    """This process's environment without its Python and without the person's Likeness home."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    kept = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith("LIKENESS_")}
    venv = str(Path(sys.prefix) / "bin")
    kept["PATH"] = os.pathsep.join(place for place in kept["PATH"].split(os.pathsep) if place != venv)
    return kept | {"LIKENESS_HOME": str(folder / "home")} | ({"PIP_NO_CACHE_DIR": "1"} if no_cache else {})


def clone_and_run(folder: Path, *, no_cache: bool) -> dict[str, float]:
    """Seconds from the start to each event.

    Raises:
        subprocess.CalledProcessError: clone or make failed.
    """
    clone, log = folder / "likeness", folder / "log"
    started_s = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
    seconds = {"cloned": time.perf_counter() - started_s}
    with log.open("w") as output:
        environment = clean_environment(folder, no_cache=no_cache)
        make = subprocess.Popen(["make", "demo"], cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = None
            while code is None:
                code = make.poll()  # before the look, so that the last look sees everything
                for pattern, event in MARKS.items():
                    if event not in seconds and any(clone.glob(pattern)):
                        seconds[event] = time.perf_counter() - started_s
                time.sleep(POLL_EVERY_S)
        finally:
            make.terminate()  # where we are interrupted; one that has ended does not mind
    seconds["end"] = time.perf_counter() - started_s
    if code:
        raise subprocess.CalledProcessError(code, "make demo", log.read_text())
    return seconds


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--no-cache", action="store_true", help="fetch every package anew")
    args: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            seconds = clone_and_run(Path(folder), no_cache=args.no_cache)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{error.cmd} failed with exit code {error.returncode}:\n{(error.output or '')[-4000:]}")
    rows = [{"since git clone": event, "seconds": value} for event, value in seconds.items()]
    goals = [Goal("seconds to the first portrait", seconds["first portrait"], MOST_S, at_least=False)]
    finish("fresh-clone", {"events": rows}, goals=goals, settings={"pip_cache": not args.no_cache}, save=args.save)


if __name__ == "__main__":
    main()
