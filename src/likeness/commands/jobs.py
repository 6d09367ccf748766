"""`likeness jobs`: submit, list, follow and cancel training jobs."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..service.training import training_of
from ..storage.catalog import LOCAL
from ..types import class_noun_of
from .group import Call
from .options import ClassNoun, Consent, KeepStrangers, NewName, Photos, Recipe, Seed, Steps, SubjectKind
from .sending import photos_to_send
from .terminal import interruptible, rows_table

if TYPE_CHECKING:
    from ..jobs.job import Job, JobEvent

jobs = typer.Typer(help="The training queue.", no_args_is_help=False)
Id = Annotated[str, typer.Argument(metavar="ID")]
LOOK_EVERY_S = 0.5


@jobs.command("list")
def list_jobs(
    ctx: typer.Context, name: Annotated[str | None, typer.Option(help="Only jobs of this adapter.")] = None
) -> None:
    """List all jobs, the newest first."""
    call: Call = ctx.obj
    with closing(training_of(call.settings)) as training:
        found = training.queue.jobs_of(LOCAL, name=name)
    call.terminal.document({"jobs": [job.to_json() for job in found]})
    if found:
        call.terminal.table(rows_table([_row(job) for job in found]))
    else:
        call.terminal.say("no jobs yet: likeness jobs submit PHOTO... --name NAME")


@jobs.command()
def submit(
    ctx: typer.Context,
    photos: Photos,
    name: NewName,
    class_noun: ClassNoun = None,
    kind: SubjectKind = None,
    recipe: Recipe = "standard",
    steps: Steps = None,
    seed: Seed = 0,
    replace_existing: Annotated[bool, typer.Option("--replace", help="Replace an adapter of this name.")] = False,
    keep_strangers: KeepStrangers = False,
    consent: Consent = "",
    key: Annotated[str | None, typer.Option(help="Idempotency key: a repeated key creates no second job.")] = None,
) -> None:
    """Submit a training job to the queue; `likeness work` runs it."""
    from ..jobs.inputs import pack_photos
    from ..jobs.job import JobOrder

    call: Call = ctx.obj
    archive = pack_photos(photos_to_send(call, photos))
    with closing(training_of(call.settings)) as training:
        changes = {} if steps is None else {"steps": steps}
        order = JobOrder(
            LOCAL, name, "", class_noun=class_noun_of(kind, class_noun), recipe=recipe, changes=changes, seed=seed,
            replace=replace_existing, keep_strangers=keep_strangers,
        )  # fmt: skip
        job = training.submit(order, archive=archive, consent=consent, idempotency_key=key)
    call.terminal.document(job.to_json())
    call.terminal.say(f"{job.id}: place {job.place_in_queue} in the queue")
    call.terminal.note(f"likeness jobs follow {job.id}")


@jobs.command()
def show(ctx: typer.Context, id: Id) -> None:
    """Show one job, its events and its notifications."""
    call: Call = ctx.obj
    with closing(training_of(call.settings)) as training:
        document = training.queue.status(id, LOCAL).to_json()
        document["events"] = [asdict(event) for event in training.queue.events(id, LOCAL)]
        document["messages"] = [asdict(one) for one in training.deliveries.of_job(LOCAL, id)]
    call.terminal.document(document)
    for key, value in document.items():
        call.terminal.say(f"{key}: {value}")


@jobs.command()
def follow(ctx: typer.Context, id: Id) -> None:
    """Print the events of a job until it ends; exits 1 unless it succeeds."""
    call: Call = ctx.obj
    with closing(training_of(call.settings)) as training:
        after = 0
        while True:
            job = training.queue.status(id, LOCAL)
            for event in training.queue.events(id, LOCAL, after=after):
                after = event.seq
                call.terminal.note(event_line(event))
            if job.is_over:
                break
            time.sleep(LOOK_EVERY_S)
    call.terminal.document(job.to_json())
    call.terminal.say(job.state)
    if job.state != "succeeded":
        raise typer.Exit(1)


@jobs.command()
def cancel(ctx: typer.Context, id: Id) -> None:
    """Cancel a queued or running job."""
    call: Call = ctx.obj
    with closing(training_of(call.settings)) as training:
        job = training.queue.cancel(id, LOCAL)
    call.terminal.document(job.to_json())
    call.terminal.say(job.state)


@jobs.command()
def replay(ctx: typer.Context, id: Id) -> None:
    """Send all notifications of a job again; a worker or the server delivers them."""
    call: Call = ctx.obj
    with closing(training_of(call.settings)) as training:
        training.queue.status(id, LOCAL)
        count = training.deliveries.replay(LOCAL, id)
    call.terminal.document({"job": id, "messages": count})
    call.terminal.say(f"{count} notifications will be sent again")


def train_remotely(call: Call, url: str, photos: Sequence[Path], order: Mapping[str, object]) -> None:
    """`likeness train --remote URL`: train on another machine. Exits 1 unless the job succeeds."""
    from ..jobs.inputs import pack_photos
    from .remote import Remote, follow

    remote = Remote(url, call.settings.api_key)
    job = remote.submit(pack_photos(photos_to_send(call, photos)), order)
    call.terminal.note(f"job {job['id']}: place {job['place_in_queue']} in the queue")
    with interruptible() as should_stop, call.terminal.progress() as watch:
        over = follow(remote, job["id"], watch=watch, should_stop=should_stop)
    call.terminal.document(over)
    failure = over["failure"]
    call.terminal.say(over["state"] if failure is None else f"{over['state']}: {failure['reason']}")
    if failure is not None:
        call.terminal.note(failure["hint"])
        raise typer.Exit(1)


def _row(job: "Job") -> dict[str, str]:
    """A job in the table of jobs."""
    shown = {
        "id": job.id, "name": job.order.name, "state": job.state, "place_in_queue": job.place_in_queue,
        "stage": job.progress.get("stage"), "step": job.progress.get("done"),
        "reason": job.failure.reason if job.failure else None,
    }  # fmt: skip
    return {key: _cell(value) for key, value in shown.items()}


def event_line(event: "JobEvent") -> str:
    """An event as a line of text."""
    shown = {key: value for key, value in event.facts.items() if not isinstance(value, Mapping | list)}
    return f"{time.strftime('%H:%M:%S', time.localtime(event.at_s))} {event.kind} " + " ".join(
        f"{key}={_cell(value)}" for key, value in shown.items() if value is not None
    )


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
