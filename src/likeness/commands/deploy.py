"""`likeness deploy`: Triton on this machine or as a repository, and SageMaker."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..command_group import Call, check_out
from ..errors import UsageError
from ..storage.consent import require_word
from ..training.recipe import recipe_named
from ..types import Subject, checked_seed, checked_subject
from .options import ClassNoun, KeepStrangers, NewName, Photos, Recipe, Seed
from .sending import photos_to_send

deploy = typer.Typer(help="Deploy to NVIDIA Triton and Amazon SageMaker.", no_args_is_help=False)
sagemaker = typer.Typer(help="Deploy to an AWS account, as one CloudFormation stack.", no_args_is_help=False)
deploy.add_typer(sagemaker, name="sagemaker")

StackName = Annotated[str, typer.Option("--stack", help="Name of the CloudFormation stack.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print all calls to AWS without making them.")]
_STACK = "likeness"


@deploy.command("triton")
def triton(
    ctx: typer.Context,
    local: Annotated[
        bool, typer.Option("--local", help="Serve SageMaker's protocol with a tritonserver on this machine.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a model repository of all adapters; must not exist.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --local: port on 127.0.0.1; 0: any free port.")
    ] = 8000,
    models: Annotated[int, typer.Option(min=1, max=1000, help="With --local: largest number of loaded models.")] = 64,
) -> None:
    """Serve all adapters with NVIDIA Triton and one shared engine."""
    from ..deploy.triton.local import local_front, write_repository

    call: Call = ctx.obj
    if local == (out is not None):
        raise UsageError("expected either --local or --out")
    with closing(call.likeness()) as likeness:
        if out is not None:
            written = write_repository(likeness, out)
            call.terminal.document({"repository": str(out), "models": [path.name for path in written]})
            call.terminal.say(f"{len(written)} models in {out}")
            return
        from ..http.app import create_app
        from ..http.logs import log_to_stderr
        from ..http.server import Bind, listening, run, server_of

        bind = Bind(port=port)
        with listening(bind) as sockets, local_front(likeness, most_models=models) as front:
            server = server_of(create_app(likeness, portrait_backend=front), bind)
            log_to_stderr()
            run(server, sockets)  # returns, so that adapters are removed from the temporary folder
    if not server.started:
        raise typer.Exit(1)


@sagemaker.command()
def package(ctx: typer.Context, out: Annotated[Path, typer.Option(help="A new folder.")]) -> None:
    """Write template, fine-tuning package and image recipe, and print how to build the images."""
    from ..deploy.sagemaker.images import build_lines, recipe
    from ..deploy.sagemaker.stack import template, tuning_package

    call: Call = ctx.obj
    files = {"template.yaml": template().encode(), "fine-tuning.tar.gz": tuning_package(), "Dockerfile": recipe()}
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise UsageError("expected --out to be a new folder, got one that exists") from None
    for name, content in files.items():
        (out / name).write_bytes(content)
    call.terminal.document({"folder": str(out), "files": sorted(files), "build": build_lines(out / "Dockerfile")})
    for line in (*(str(out / name) for name in sorted(files)), "", *build_lines(out / "Dockerfile")):
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
    from ..deploy.sagemaker.stack import Stack, parameters_of, template

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
    class_noun: ClassNoun = Subject.class_noun,
    consent: Annotated[str, typer.Option(help="Who agreed, and when; required for a person.")] = "",
    recipe: Recipe = "standard",
    seed: Seed = 0,
    keep_strangers: KeepStrangers = False,
    wait_s: Annotated[int, typer.Option(min=0, help="Seconds to wait for the result; 0: do not wait.")] = 0,
    stack: StackName = _STACK,
    dry_run: DryRun = False,
) -> None:
    """Upload photographs and queue a fine-tune on the asynchronous endpoint."""
    from ..deploy.sagemaker import invoke
    from ..deploy.sagemaker.stack import Stack

    call: Call = ctx.obj
    require_word(checked_subject(Subject(name, class_noun)), consent)
    checked_seed(seed)
    recipe_named(recipe)
    calls = _calls(call, dry_run)
    config = {
        "name": name, "class_noun": class_noun, "consent": consent, "recipe": recipe, "seed": seed,
        "keep_strangers": keep_strangers,
    }  # fmt: skip
    queued: dict[str, object] = {**invoke.fine_tune(Stack(calls, stack), photos_to_send(call, photos), config)}
    if wait_s and not dry_run:
        queued |= invoke.wait_for(calls, {key: str(value) for key, value in queued.items()}, limit_s=wait_s)
    call.terminal.document(queued)
    for key, value in queued.items():
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
    steps: Annotated[int, typer.Option(help="Sampling steps, 1 to 200.")] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale, 1 (off) to 30.")] = 7.5,
    seed: Seed = 0,
    stack: StackName = _STACK,
    dry_run: DryRun = False,
) -> None:
    """Make one portrait on the multi-model endpoint."""
    from ..deploy.sagemaker import invoke
    from ..deploy.sagemaker.stack import Stack

    call: Call = ctx.obj
    check_out(out.parent)
    gen_args = {"num_inference_steps": steps, "guidance_scale": guidance, "seed": seed}
    picture = invoke.portrait(
        Stack(_calls(call, dry_run), stack), target, prompt, negative_prompt=negative, gen_args=gen_args
    )
    if not dry_run:
        out.write_bytes(picture)
    call.terminal.document({"file": str(out), "bytes": len(picture), "dry_run": dry_run})
    call.terminal.say(str(out))


@sagemaker.command()
def status(ctx: typer.Context, stack: StackName = _STACK) -> None:
    """Show the stack's outputs and the state of its endpoints."""
    from ..deploy.sagemaker.stack import Stack

    call: Call = ctx.obj
    document = Stack(_calls(call, False), stack).status()
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
    from ..deploy.sagemaker.stack import Stack

    call: Call = ctx.obj
    if not yes and not dry_run:
        if call.terminal.as_json:
            raise UsageError("expected --yes together with --json", hint="with --json there is no confirmation prompt")
        typer.confirm("Delete the endpoints" + (" and all data for good?" if with_data else "?"), abort=True, err=True)
    bucket = Stack(_calls(call, dry_run), stack).teardown(with_data=with_data)
    call.terminal.document({"stack": stack, "bucket": bucket, "bucket_deleted": with_data, "dry_run": dry_run})
    call.terminal.say("deleted" if with_data else f"deleted; the data stays in {bucket}")


def _calls(call: Call, dry_run: bool, *, is_new: bool = False):  # type: ignore[no-untyped-def]  # a Calls, imported late
    from ..deploy.sagemaker.calls import Aws, Rehearsal
    from ..deploy.sagemaker.stack import REHEARSED

    return Rehearsal(call.terminal.say, None if is_new else REHEARSED) if dry_run else Aws()
