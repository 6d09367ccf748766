"""The templates for systemd and Kubernetes say what the product understands."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from likeness.cli import app
from likeness.jobs.job import JobOrder
from likeness.jobs.queue import Queue
from tests.worker.claims import claimed

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


def options_of(words: list[str]) -> set[str]:
    assert "work" in words
    return {word for word in words if word.startswith("--")}


@pytest.fixture(scope="module")
def known() -> set[str]:
    shown = CliRunner().invoke(app, ["work", "--help"], env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})
    return set(re.findall(r"--[a-z-]+", shown.output))


def test_the_units_command_is_one_of_ours(known: set[str]) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "likeness-worker@.service")
    assert options_of(shlex.split(unit["Service"]["ExecStart"])) <= known
    assert unit["Service"]["KillMode"] == "control-group"
    assert "%i" in unit["Service"]["ExecStart"]  # an id of its own for each instance


def test_the_scaled_jobs_command_and_query_are_ours(known: set[str], queue: Queue) -> None:
    _, job = yaml.safe_load_all((DEPLOY / "keda-scaledjob.yaml").read_text())
    assert job["kind"] == "ScaledJob"
    container = job["spec"]["jobTargetRef"]["template"]["spec"]["containers"][0]
    assert options_of(container["command"]) <= known
    (trigger,) = job["spec"]["triggers"]
    query = trigger["metadata"]["query"].replace("ceil(count(*) / 2.0)", "(count(*) + 1) / 2")  # SQLite has no ceil

    def wanted() -> int:
        return int(queue.database.run(lambda connection: connection.execute(sa.text(query)).scalar_one()))

    assert wanted() == 0
    made = [queue.submit(JobOrder("anna", f"rex-{k}", "anna/x")) for k in range(3)]
    assert wanted() == 2
    for job_made in made[:2]:
        queue.cancel(job_made.id, "anna")
    assert claimed(queue.database).job == made[2].id
    assert wanted() == 1  # running jobs count: somebody must be there should their worker die
