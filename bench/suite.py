"""The test suite as run by `make test`: duration and number of tests.

python -m bench.suite [--save]
"""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from .report import ROOT, Goal, finish, options

MOST_S = 600.0


def run_suite(report: Path) -> float:
    """Seconds of a run that writes pytest's JUnit report.

    Raises:
        subprocess.CalledProcessError: a test failed.
    """
    started_s = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", f"--junitxml={report}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return time.perf_counter() - started_s


def counts(report: Path) -> dict[str, int]:
    """Tests, and how many of them were skipped."""
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    return {"tests": int(suite.attrib["tests"]), "skipped": int(suite.attrib["skipped"])}


def main() -> None:
    args = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        seconds = run_suite(report)
        found = counts(report)
    goals = [Goal(f"seconds of `make test`, {found['tests']} tests", seconds, MOST_S, at_least=False)]
    finish("suite", {"suite": [found | {"seconds": round(seconds, 1)}]}, goals=goals, settings={}, save=args.save)


if __name__ == "__main__":
    main()
