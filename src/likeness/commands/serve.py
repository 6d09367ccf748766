"""`likeness serve` and `likeness keys`: the HTTP server and its API keys."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError, UsageError
from ..storage.api_keys import list_keys, new_key, revoke_key
from ..storage.catalog import LOCAL
from ..storage.scratch import scratch
from .group import Call
from .terminal import rows_table
from .workers import training_workers

keys = typer.Typer(help="API keys of the server.", no_args_is_help=False)


def serve(
    ctx: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines can reach requires API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")] = 8000,
    require_keys: Annotated[bool, typer.Option("--require-keys", help="Require API keys on this machine too.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the certificate, PEM.")] = None,
    workers: Annotated[int, typer.Option(min=0, max=8, help="Training workers to start with the server.")] = 1,
    sagemaker: Annotated[
        bool, typer.Option("--sagemaker", help="Run as a SageMaker container: all interfaces, no API keys.")
    ] = False,
) -> None:
    """Serve all adapters over HTTP: REST at /v1, OpenAI's API at /openai/v1, SageMaker's runtime API."""
    from ..http.app import create_app
    from ..http.logs import log_to_stderr
    from ..http.origins import loopback
    from ..http.server import Bind, listening, run, server_of, url_of

    call: Call = ctx.obj
    if sagemaker:
        if host != "127.0.0.1" or require_keys or certificate is not None or key is not None:
            raise UsageError(
                "expected --sagemaker with no option but --port", hint="SageMaker handles address, keys and TLS"
            )
        _serve_container(call, port)
        return
    likeness, is_local = call.likeness(), loopback([host])
    if not is_local and not any(one.revoked is None for one in list_keys(likeness.catalog)):
        raise SettingsError(
            "expected an API key before listening on a network address, got none",
            hint="create one with `likeness keys new`",
        )
    if not is_local and certificate is None:
        call.terminal.note(
            "warning: without TLS, API keys can be read on the network: use --certificate and --key, or a TLS proxy"
        )
    bind, root = Bind(host, port, certificate, key), likeness.home.root
    with listening(bind) as sockets, closing(likeness):
        log_to_stderr()
        likeness.open()
        app = create_app(likeness, needs_keys=require_keys or not is_local, protocols=call.extension.protocols())
        server = server_of(app, bind)
        with scratch(root), training_workers(workers, root, port=port):
            call.terminal.serving(url_of(bind, sockets))
            run(server, sockets)
    if not server.started:
        raise typer.Exit(1)


def _serve_container(call: Call, port: int) -> None:
    from ..http.logs import log_to_stderr
    from ..http.server import Bind, listening, run, server_of, url_of

    bind = Bind("0.0.0.0", port)
    with listening(bind) as sockets, call.extension.container(call.settings) as app:
        server = server_of(app, bind)
        log_to_stderr()
        call.terminal.serving(url_of(bind, sockets))
        run(server, sockets)
    if not server.started:
        raise typer.Exit(1)


@keys.command("new")
def make_key(
    ctx: typer.Context,
    tenant: Annotated[str, typer.Option(help="Tenant of the key: a-z, 0-9, _ and -.")] = LOCAL,
    label: Annotated[str, typer.Option(help="Note for `keys list`, for example the use of the key.")] = "",
) -> None:
    """Create an API key. It is shown only once; only its hash is stored."""
    call: Call = ctx.obj
    with closing(call.likeness()) as likeness:
        text, made = new_key(likeness.catalog, tenant, label)
    call.terminal.document({"key": text, "id": made.id, "tenant": made.tenant, "label": made.label})
    call.terminal.say(text)
    call.terminal.note("store this key now: it is not shown again")


@keys.command("list")
def show_keys(ctx: typer.Context) -> None:
    """List all API keys, without their secrets."""
    call: Call = ctx.obj
    with closing(call.likeness()) as likeness:
        rows: Sequence[dict[str, object]] = [asdict(one) for one in list_keys(likeness.catalog)]
    call.terminal.document({"keys": rows})
    if rows:
        call.terminal.table(rows_table(rows))
    else:
        call.terminal.say("no keys yet: likeness keys new")


@keys.command("revoke")
def end_key(ctx: typer.Context, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Revoke an API key."""
    call: Call = ctx.obj
    with closing(call.likeness()) as likeness:
        revoke_key(likeness.catalog, id)
    call.terminal.document({"revoked": True})
    call.terminal.say("revoked")
