"""`likeness backup` and `likeness restore`: everything that a tenant keeps, as one zip."""

import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import AlreadyExists, UsageError
from ..service.backup import Counts
from ..storage.catalog import LOCAL
from .group import Call

Tenant = Annotated[str, typer.Option(help="Tenant of the server's API keys.")]


def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Zip to write; must not exist.")],
    tenant: Tenant = LOCAL,
) -> None:
    """Write subjects, photographs, adapters, kept images and past jobs to one zip.

    Jobs that wait or run, receipts, API keys and the portraits in the home folder are not in it.
    """
    call: Call = ctx.obj
    found: list[Counts] = []
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise AlreadyExists("expected a new file, got one that exists", hint="choose another path") from error
    try:
        with os.fdopen(handle, "wb") as out, closing(call.likeness()) as likeness:
            for part in likeness.backup(tenant=tenant, done=found.append):
                out.write(part)
            out.flush()
            os.fsync(handle)
    except BaseException:
        file.unlink(missing_ok=True)  # incomplete
        raise
    counts, size = found[0], file.stat().st_size
    call.terminal.document({"file": str(file), "bytes": size, **asdict(counts)})
    call.terminal.say(f"{_listed(counts)}: {size} bytes")


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A zip of `likeness backup` or of GET /v1/backup.")],
    tenant: Tenant = LOCAL,
    restore_deleted: Annotated[
        bool,
        typer.Option("--restore-deleted", help="Also restore names that were deleted here after the backup was made."),
    ] = False,
) -> None:
    """Restore a backup. What exists already is not changed."""
    call: Call = ctx.obj
    if not file.is_file():
        raise UsageError("expected FILE to be a file", hint="check the path")
    with file.open("rb") as content, closing(call.likeness()) as likeness:
        restored = likeness.restore(content, tenant=tenant, restores_deleted=restore_deleted)
    left_out = [asdict(one) for one in restored.left_out]
    call.terminal.document({**asdict(restored.counts), "left_out": left_out})
    call.terminal.say(f"restored {_listed(restored.counts)}")
    for one in restored.left_out:
        call.terminal.note(f"left out {one.count} of {one.name}: {one.reason}")


def _listed(counts: Counts) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in asdict(counts).items())
