"""`likeness deploy`: a model repository for Triton, a cluster of replicas on Ray, and the stack on SageMaker."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..commands.group import Call, check_out
from ..commands.options import (
    ClassNoun,
    Consent,
    KeepStrangers,
    NewName,
    Photos,
    Recipe,
    Seed,
    SubjectKind,
    said_of,
)
from ..commands.sending import photos_to_send
from ..errors import UsageError
from ..storage.catalog import LOCAL
from ..storage.consent import require_word
from ..training.recipe import recipe_named
from ..types import Subject, checked_seed, checked_subject, class_noun_of

if TYPE_CHECKING:
    from .sagemaker.aws import Aws

deploy = typer.Typer(help="Deploy to NVIDIA Triton, Ray Serve and Amazon SageMaker.", no_args_is_help=False)
sagemaker = typer.Typer(help="Deploy to an AWS account, as one CloudFormation stack.", no_args_is_help=False)
deploy.add_typer(sagemaker, name="sagemaker")

StackName = Annotated[str, typer.Option("--stack", help="Name of the CloudFormation stack.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print all calls to AWS without making them.")]
_STACK = "likeness"


@deploy.command("triton")
def triton(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the model repository; must not exist.")],
) -> None:
    """Write every adapter as a model for NVIDIA Triton; all models share one engine."""
    from .triton.export import write_model

    call: Call = ctx.obj
    with closing(call.likeness()) as likeness:
        records = likeness.catalog.list_adapters(LOCAL)
        written = [write_model(likeness.library.at(record), out / record.name) for record in records]
    call.terminal.document({"repository": str(out), "models": [path.name for path in written]})
    call.terminal.say(f"{len(written)} models in {out}")


@deploy.command("ray")
def ray_cluster(
    ctx: typer.Context,
    replicas: Annotated[
        int, typer.Option(min=1, max=64, help="Number of replicas, each a process with its own engine.")
    ] = 2,
    most_replicas: Annotated[
        int | None, typer.Option(min=1, max=64, help="Add replicas up to this number while images wait.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
    require_keys: Annotated[bool, typer.Option("--require-keys", help="Require API keys.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, max=8, help="Largest number of training workers, started while jobs wait or run.")
    ] = 1,
) -> None:
    """Serve all adapters from several replicas on this machine, with Ray Serve, as on a cluster."""
    from .ray.local_cluster import serve_here

    serve_here(
        ctx.obj, replicas=replicas, most_replicas=most_replicas or replicas, port=port, needs_keys=require_keys,
        workers=workers,
    )  # fmt: skip


@sagemaker.command()
def package(ctx: typer.Context, out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")]) -> None:
    """Write template, fine-tuning package and Dockerfile, and print how to build the images."""
    from .sagemaker.stack import build_commands, dockerfile, template, tuning_package

    call: Call = ctx.obj
    files = {"template.yaml": template().encode(), "fine-tuning.tar.gz": tuning_package(), "Dockerfile": dockerfile()}
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise UsageError("expected --out to be a new folder, got one that exists") from None
    for name, content in files.items():
        (out / name).write_bytes(content)
    build = build_commands(out / "Dockerfile")
    call.terminal.document({"folder": str(out), "files": sorted(files), "build": build})
    for line in (*(str(out / name) for name in sorted(files)), "", *build):
        call.terminal.say(line)


@sagemaker.command("deploy")
def deploy_stack(
    ctx: typer.Context,
    stack: StackName = _STACK,
    dry_run: DryRun = False,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Parameter of the template, NAME=VALUE.")
    ] = None,
) -> None:
    """Create or update the stack: bucket, package, endpoints."""
    from .sagemaker.stack import Stack, parameters_of, template

    call: Call = ctx.obj
    if dry_run:
        call.terminal.say(template())
    outputs = Stack(_calls(call, dry_run, is_new=True), stack, parameters_of(parameters or [])).deploy()
    call.terminal.document({"stack": stack, "outputs": outputs, "dry_run": dry_run})
    for name, value in outputs.items():
        call.terminal.say(f"{name}: {value}")


@sagemaker.command("fine-tune")
def fine_tune(
    ctx: typer.Context,
    photos: Photos,
    name: NewName,
    class_noun: ClassNoun = None,
    kind: SubjectKind = None,
    consent: Consent = "",
    recipe: Recipe = "standard",
    seed: Seed = 0,
    keep_strangers: KeepStrangers = False,
    wait_s: Annotated[int, typer.Option(min=0, help="Seconds to wait for the result; 0: do not wait.")] = 0,
    stack: StackName = _STACK,
    dry_run: DryRun = False,
) -> None:
    """Upload photographs and queue a fine-tune on the asynchronous endpoint."""
    from .sagemaker import client
    from .sagemaker.stack import Stack

    call: Call = ctx.obj
    subject = checked_subject(Subject(name, class_noun_of(kind, class_noun)))
    require_word(subject, consent)
    checked_seed(seed)
    recipe_named(recipe)
    calls = _calls(call, dry_run)
    config = {
        "name": name, "consent": consent, "recipe": recipe, "seed": seed, "keep_strangers": keep_strangers,
        **said_of(subject),
    }  # fmt: skip
    queued = client.fine_tune(Stack(calls, stack), photos_to_send(call, photos), config)
    done = client.wait_for(calls, queued, limit_s=wait_s) if wait_s and not dry_run else {}
    document: dict[str, object] = {**queued, **done}
    call.terminal.document(document)
    for key, value in document.items():
        call.terminal.say(f"{key}: {value}")


@sagemaker.command("invoke")
def invoke_model(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET_MODEL", help="Name of the archive, from the result of fine-tune.")
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT")],
    out: Annotated[Path, typer.Option(help="File for the image.")],
    negative: Annotated[str, typer.Option(help="Negative prompt: what to avoid in the image.")] = "",
    steps: Annotated[int | None, typer.Option(help="Sampling steps, 1 to 200; by default the base's own.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale, 1 (off) to 30; by default the base's own.")
    ] = None,
    seed: Seed = 0,
    stack: StackName = _STACK,
    dry_run: DryRun = False,
) -> None:
    """Make one portrait on the multi-model endpoint."""
    from .sagemaker import client
    from .sagemaker.stack import Stack

    call: Call = ctx.obj
    check_out(out.parent)
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "seed": seed}
    gen_args = json.dumps({name: value for name, value in asked.items() if value is not None})
    image = client.portrait(Stack(_calls(call, dry_run), stack), target, [prompt, negative, gen_args])
    if not dry_run:
        out.write_bytes(image)
    call.terminal.document({"file": str(out), "bytes": len(image), "dry_run": dry_run})
    call.terminal.say(str(out))


@sagemaker.command()
def status(ctx: typer.Context, stack: StackName = _STACK) -> None:
    """Show the stack's outputs and the state of its endpoints."""
    from .sagemaker.stack import Stack

    call: Call = ctx.obj
    document = Stack(_calls(call, dry_run=False), stack).status()
    call.terminal.document(document)
    call.terminal.say(json.dumps(document, indent=2))


@sagemaker.command()
def teardown(
    ctx: typer.Context,
    stack: StackName = _STACK,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Also delete the bucket with all photographs and adapters.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Delete the stack. Its bucket stays unless --with-data."""
    from .sagemaker.stack import Stack

    call: Call = ctx.obj
    if not yes and not dry_run:
        if call.terminal.as_json:
            raise UsageError("expected --yes together with --json", hint="with --json there is no confirmation prompt")
        typer.confirm("Delete the endpoints" + (" and all data for good?" if with_data else "?"), abort=True, err=True)
    bucket = Stack(_calls(call, dry_run), stack).teardown(with_data=with_data)
    call.terminal.document({"stack": stack, "bucket": bucket, "bucket_deleted": with_data, "dry_run": dry_run})
    call.terminal.say("deleted" if with_data else f"deleted; the data stays in {bucket}")


def _calls(call: Call, dry_run: bool, *, is_new: bool = False) -> "Aws":
    from .sagemaker.aws import Aws, DryRun
    from .sagemaker.stack import DRY_RUN_OUTPUTS

    return DryRun(call.terminal.say, None if is_new else DRY_RUN_OUTPUTS) if dry_run else Aws()
