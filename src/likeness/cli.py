"""The command line, and the composition root: arguments -> methods of `service.Likeness` -> text or JSON.

Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 130 interrupted. Errors never repeat the user's text.
"""

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .commands import serve as serving
from .commands.backups import backup, restore
from .commands.group import Call, Commands, check_out
from .commands.jobs import jobs, train_remotely
from .commands.options import (
    Base,
    ClassNoun,
    House,
    ImportFormat,
    KeepStrangers,
    Name,
    NewName,
    Photos,
    Recipe,
    Revision,
    Sampler,
    Seed,
    Steps,
    SubjectKind,
    one_of,
    owner,
    said_of,
)
from .commands.plan import plan
from .commands.score import kept_reference, most_alike, score
from .commands.terminal import Terminal, interruptible, rows_table, set_lines, verdict_table
from .commands.warm_up import warm_up
from .commands.workers import work
from .config import settings_from
from .deploy.commands import deploy
from .deploy.extension import EXTENSION
from .engine.prompts import unread_of
from .errors import UsageError
from .photos import CheckResult, read_photos
from .service import AUTO, BARE_BASE, matte_path, save_prepared
from .service.image_files import facts, save_all
from .storage.catalog import LOCAL
from .storage.records import AdapterRecord
from .training.recipe import recipe_named
from .types import HOUSE_ADAPTERS, ImageRequest, Subject, blend_of, class_noun_of, size_of

app = typer.Typer(
    cls=Commands, name="likeness", add_completion=False, pretty_exceptions_enable=False,
    help="Portraits of you from any prompt, trained on about ten photographs.",
    epilog="--home and --json can also follow the command.",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def main_options(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Home folder of this installation; LIKENESS_HOME.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Portraits of you from any prompt, trained on about ten photographs."""
    ctx.obj = Call(settings_from(home=home), Terminal(as_json=as_json), EXTENSION)
    ctx.call_on_close(ctx.obj.close)
    if version:
        ctx.obj.terminal.document({"version": __version__})
        ctx.obj.terminal.say(f"likeness {__version__}")
    elif ctx.invoked_subcommand is None:
        raise UsageError("expected a command, got none", hint="`likeness --help` lists the commands")


@app.command()
def check(
    ctx: typer.Context,
    photos: Photos,
    class_noun: ClassNoun = None,
    kind: SubjectKind = None,
    keep_strangers: KeepStrangers = False,
) -> None:
    """Check photographs: a verdict and a hint for each, and advice for the set."""
    call: Call = ctx.obj
    noun = class_noun_of(kind, class_noun)
    with call.terminal.progress() as watch:
        checked = call.likeness().check(read_photos(photos), noun, keep_strangers=keep_strangers, watch=watch)
    call.terminal.document(checked.to_json())
    call.terminal.table(verdict_table(checked))
    for line in set_lines(checked):
        call.terminal.say(line)
    if checked.set_report.verdict == "refused":
        raise typer.Exit(1)


@app.command()
def prepare(
    ctx: typer.Context,
    photos: Photos,
    out: Annotated[Path, typer.Option(help="Folder for the prepared photographs.")],
    class_noun: ClassNoun = None,
    kind: SubjectKind = None,
    keep_strangers: KeepStrangers = False,
) -> None:
    """Crop photographs for training: 512 x 512 PNG files with mattes, without metadata."""
    call: Call = ctx.obj
    noun = class_noun_of(kind, class_noun)
    check_out(out)
    likeness = call.likeness()
    with call.terminal.progress() as watch:
        checked = likeness.check(read_photos(photos), noun, keep_strangers=keep_strangers, watch=watch)
        checked.raise_if_refused(few_are_enough=True)
        prepared = likeness.prepare(checked, watch=watch)
    names = {one.photo.sha256: one.photo.name for one in checked.usable}
    paths = save_prepared(prepared, out)
    files = [
        {"file": names[p.source_sha256], "framing": p.framing, "image": str(path), "matte": str(matte_path(path))}
        for p, path in zip(prepared, paths, strict=True)
    ]
    call.terminal.document({**checked.to_json(), "prepared": files})
    for path in paths:
        call.terminal.say(str(path))


@app.command()
def train(
    ctx: typer.Context,
    photos: Photos,
    name: NewName,
    class_noun: ClassNoun = None,
    kind: SubjectKind = None,
    base: Base = None,
    revision: Revision = None,
    recipe: Recipe = "standard",
    steps: Steps = None,
    seed: Seed = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over instead of resuming from a checkpoint.")
    ] = False,
    replace_existing: Annotated[bool, typer.Option("--replace", help="Replace an adapter of this name.")] = False,
    keep_strangers: KeepStrangers = False,
    remote: Annotated[
        str | None, typer.Option(metavar="URL", help="Train on this server; uses LIKENESS_API_KEY.")
    ] = None,
    house: House = False,
    consent: Annotated[
        str,
        typer.Option(
            help="With --remote: who agreed, and when; required for a person, and for pictures of a style with faces."
        ),
    ] = "",
) -> None:
    """Train an adapter on photographs of a subject, or on pictures of a style. An interrupted run resumes."""
    from .training.recipe import FineTuneOrder

    call: Call = ctx.obj
    subject = Subject(name, class_noun_of(kind, class_noun))
    changes = {} if steps is None else {"steps": steps}
    if remote is not None:
        if base is not None or revision is not None or restart or house:
            raise UsageError(
                "expected --remote without --base, --revision, --restart and --house", hint="the server chooses them"
            )
        wanted = {
            "name": name, "recipe": recipe, "recipe_changes": changes, "seed": seed, "replace": replace_existing,
            "keep_strangers": keep_strangers, "consent": consent, **said_of(subject),
        }  # fmt: skip
        train_remotely(call, remote, photos, wanted)
        return
    if consent:
        raise UsageError("expected --consent with --remote only", hint="a training on this machine needs no --consent")
    recipe_named(recipe, **changes)  # refused before photographs are read
    likeness, read = call.likeness(base, revision), read_photos(photos)
    chosen = recipe_named(recipe, likeness.family.name, **changes)
    order = FineTuneOrder(subject, chosen, seed=seed, restart=restart, replace=replace_existing)
    with interruptible() as should_stop, call.terminal.progress() as watch:

        def show(checked: CheckResult) -> None:
            call.terminal.err.print(verdict_table(checked))
            for line in set_lines(checked):
                call.terminal.note(line)

        result = likeness.train(
            read, order, tenant=owner(house), keep_strangers=keep_strangers, watch=watch, should_stop=should_stop,
            on_checked=show,
        )  # fmt: skip
    call.terminal.document(
        {
            "adapter": asdict(result.card),
            **result.checked.to_json(),
            "losses": result.losses,
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in result.stage_seconds.items()},
        }
    )
    call.terminal.say(f"trained {name}: {result.card.steps} steps in {result.card.seconds:.0f} s")
    prompt = "a man in the snow" if subject.kind == "style" else "oil painting of {me}"
    call.terminal.say(f'next: likeness generate {name} "{prompt}"')


@app.command()
def generate(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=f"Name of an adapter, several with weights (anna+oil@0.6; the first is the subject), or `{BARE_BASE}` "
            "for the base without an adapter.",
        ),
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Prompt; {me} stands for the subject.")],
    negative: Annotated[str, typer.Option(help="Negative prompt: what to avoid in the image.")] = "",
    count: Annotated[
        int, typer.Option("-n", "--count", help="Number of images; the seed increases by 1 for each.")
    ] = 1,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps, 1 to 200; the base's default if not given.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale, 1 (off) to 30; the base's default if not given.")
    ] = None,
    seed: Seed = 0,
    scale: Annotated[float, typer.Option(help="Scale of the adapter, 0 to 2.")] = 1.0,
    negative_scale: Annotated[
        float | None,
        typer.Option(help="Scale of the adapter for the negative prompt, 0 to 2; the base's default if not given."),
    ] = None,
    sampler: Sampler = None,
    size: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT in pixels, such as 832x1216; the base's own square if not given."),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Fewer steps than by default: softer images, sooner. Built-in base only.")
    ] = False,
    best_of: Annotated[
        int | None, typer.Option(help="Make this many images and keep the -n most similar ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the images; in the home folder by default.")] = None,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Make portraits. 'photo of <<TOK>> CLASS-NOUN, ' is put before a prompt without {me}; styles add their words."""
    from .service.contact_sheet import Tile, contact_sheet

    call: Call = ctx.obj
    likeness = call.likeness(base, revision)
    request = ImageRequest(
        prompt, blend_of(name), negative, seed, steps, guidance, scale, negative_scale, sampler, fast,
        *size_of(size),
    )  # fmt: skip
    if best_of is not None and (request.subject is None or best_of < count):
        raise UsageError("expected --best-of with an adapter, and a number of at least -n")
    requests = request.numbered(best_of or count)
    for one in request.adapters:
        likeness.catalog.find_usable(LOCAL, one.name)  # an unknown one is refused before the base is loaded
    if request.width is not None:
        likeness.family.checked_size(request.width, request.height)  # likewise
    if out is not None:
        check_out(out)
    reference = None if best_of is None else kept_reference(likeness.home.photos_folder(request.subject or BARE_BASE))
    with closing(likeness), call.terminal.progress() as watch:
        images = likeness.generate(requests, watch=watch)
    warnings = unread_of(likeness.base, images[0].request).remarks
    for warning in warnings:
        call.terminal.note(f"warning: {warning}")
    if reference is not None:
        images = most_alike(images, reference, count)
    folder = out or likeness.home.outputs_folder(*([one.name for one in request.adapters] or [BARE_BASE]))
    saved = save_all(images, folder, likeness.encode)
    sheet = None
    if len(saved) > 1:
        sheet = folder / f"sheet-{next(iter(saved)).stem}.png"
        tiles = [Tile(image.image, f"seed {image.request.seed}") for image in images]
        contact_sheet(tiles, title=images[0].request.prompt).save(sheet)
    call.terminal.document(
        {
            "images": [{"file": str(path), **facts(image)} for path, image in saved.items()],
            "contact_sheet": None if sheet is None else str(sheet),
            "warnings": warnings,
        }
    )
    for path in [*saved, *([sheet] if sheet else [])]:
        call.terminal.say(str(path))


@app.command("list")
def list_adapters(ctx: typer.Context) -> None:
    """List all adapters."""
    call: Call = ctx.obj
    rows = [_summary(record) for record in call.likeness().catalog.list_usable(LOCAL)]
    call.terminal.document({"adapters": rows})
    if rows:
        call.terminal.table(rows_table([{**row, "base_sha256": str(row["base_sha256"])[:12]} for row in rows]))
    else:
        call.terminal.say("no adapters yet: likeness train PHOTO... --name NAME")


@app.command()
def show(ctx: typer.Context, name: Name) -> None:
    """Show all properties of one adapter."""
    call: Call = ctx.obj
    likeness = call.likeness()
    record = likeness.catalog.find_usable(LOCAL, name)
    card = likeness.library.at(record).card
    document = {**asdict(card), "kind": card.subject.kind, "bytes": record.bytes, "object": record.key}
    call.terminal.document(document)
    for key, value in document.items():
        call.terminal.say(f"{key}: {value}")


@app.command()
def forget(
    ctx: typer.Context,
    name: Name,
    house: House = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete an adapter with its photographs, checkpoints and portraits, and print a receipt."""
    call: Call = ctx.obj
    likeness = call.likeness()
    likeness.refuse_unknown(name, tenant=owner(house))
    if not yes:
        if call.terminal.as_json:
            raise UsageError("expected --yes together with --json", hint="with --json there is no confirmation prompt")
        typer.confirm("Permanently delete the adapter, its photographs and portraits?", abort=True, err=True)
    receipt = likeness.forget(name, tenant=owner(house))
    call.terminal.document(asdict(receipt))
    call.terminal.say(f"forgotten at {receipt.at}")
    for item in receipt.items:
        call.terminal.say(f"  {item.kind}: {item.count} files, {item.bytes} bytes")


@app.command()
def export(
    ctx: typer.Context,
    name: Name,
    format: Annotated[str, one_of(EXTENSION.formats)],
    out: Annotated[Path, typer.Option(help="File or folder to write; must not exist.")],
) -> None:
    """Export an adapter for another program."""
    call: Call = ctx.obj
    path = call.likeness().export(name, format, out)
    call.terminal.document({"name": name, "format": format, "path": str(path), "bytes": size_bytes(path)})
    call.terminal.say(str(path))


@app.command("import")
def import_adapter(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .safetensors file, a folder, or its tar.gz.")],
    name: NewName,
    format: ImportFormat = AUTO,
    house: House = False,
    class_noun: ClassNoun = None,
    kind: SubjectKind = None,
    identifier: Annotated[
        str, typer.Option(help="Identifier that the adapter was trained with; <<TOK>>, of a style <<STY>>.")
    ] = "",
    strength: Annotated[
        float | None,
        typer.Option(help="Strength of an adapter of the undistilled base on the distilled --base; 1 if not given."),
    ] = None,
    extract: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            help="For a file that is not a plain LoRA (DoRA) or has a larger rank: import the nearest LoRA of at most "
            "this rank, and print the error.",
        ),
    ] = None,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Import an adapter that another program trained on the same base."""
    call: Call = ctx.obj
    card = call.likeness(base, revision).import_adapter(
        path, name, format, class_noun=class_noun_of(kind, class_noun), identifier=identifier, strength=strength,
        extract=extract, tenant=owner(house),
    )  # fmt: skip
    call.terminal.document(asdict(card))
    call.terminal.say(
        f"imported {name}: rank {card.rank}, for base {card.base_sha256[:12]}, identifier {card.identifier}"
    )
    if card.extraction:
        error, largest = card.extraction["error"], card.extraction["largest_error"]
        call.terminal.say(
            f"extracted: its weights differ from the file's by {error:.2%} of their norm, in one layer by {largest:.2%}"
        )


@app.command()
def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for all output.")] = Path("demo-output"),
    seed: Seed = 0,
    recipe: Recipe = "standard",
    steps: Steps = None,
    base: Base = None,
    revision: Revision = None,
) -> None:
    """Train on shipped photographs of a virtual person; writes portraits, a contact sheet and a report."""
    from .commands.demo import demo_settings, run_demo

    call: Call = ctx.obj
    changes = {} if steps is None else {"steps": steps}
    recipe_named(recipe, **changes)
    check_out(out)
    likeness = replace(call, settings=demo_settings(call.settings, out)).likeness(base, revision)
    chosen = recipe_named(recipe, likeness.family.name, **changes)
    with closing(likeness), interruptible() as should_stop, call.terminal.progress() as watch:
        result = run_demo(likeness, out, recipe=chosen, seed=seed, watch=watch, should_stop=should_stop)
    call.terminal.document(result.to_json())
    for stage, seconds in result.stage_seconds.items():
        call.terminal.say(f"{stage:<14}{seconds:7.1f} s")
    call.terminal.say(f"{'total':<14}{sum(result.stage_seconds.values()):7.1f} s")
    call.terminal.say(f"peak memory   {result.peak_memory_bytes / 2**20:7.0f} MiB")
    call.terminal.say(f"contact sheet: {result.contact_sheet}")
    call.terminal.say(f"report: {result.report}")
    call.terminal.say(f'more: likeness --home {result.home} generate demo "oil painting of {{me}}"')


app.command()(backup)
app.command()(restore)
app.command()(serving.serve)
app.add_typer(serving.keys, name="keys")
app.command()(work)
app.command()(plan)
app.command("warm-up")(warm_up)
app.command()(score)
app.add_typer(jobs, name="jobs")
app.add_typer(deploy, name="deploy")


def size_bytes(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _summary(record: AdapterRecord) -> dict[str, object]:
    card, size = record.card, record.bytes
    return {
        "name": card.name, "kind": card.subject.kind, "class_noun": card.class_noun,
        "recipe": card.recipe.get("name", "imported"), "photos": card.photos, "steps": card.steps,
        "rank": card.rank, "bytes": size, "created": card.created,
        "base_sha256": card.base_sha256, "house": record.tenant == HOUSE_ADAPTERS,
    }  # fmt: skip


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
