"""The engine process of Triton's models: `python -m likeness.deploy.triton.engine_process`.

It reads the settings (LIKENESS_BASE, LIKENESS_SLOTS, ...), loads the base, and serves a Unix socket until the process
that it watches has ended. The first model that needs it starts it. Frames are those of `engine_client`; a connection
carries one request, and a client that disconnects cancels it. An adapter is named by the path of its file and the hash
of its weights. Only this user can enter the socket's folder, so a client can name no file that it could not read.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ...config import settings_from
from ...errors import LikenessError, UsageError
from ..adapter_files import FileEngine, file_engine
from ..payload import INPUTS, request_of
from . import engine_client as wire

Reply = tuple[wire.Header, bytes]
READ_S = 5.0  # for the whole request, from a process of this machine
log = logging.getLogger("likeness.engine")


class EngineServer:
    """Serves one engine."""

    def __init__(self, files: FileEngine) -> None:
        self._files = files

    async def serve(self, path: Path, until: asyncio.Event) -> None:
        """Listen until `until` is set. The socket appears under its name once it accepts requests."""
        wire.secure_folder(path.parent)
        staged = path.with_name(f"{path.name}.new")
        staged.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connection, staged)
        staged.chmod(0o600)
        staged.rename(path)
        own = path.stat().st_ino
        async with server:
            await until.wait()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == own:  # else another engine has replaced it
                path.unlink()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_S):
                header_bytes, payload_bytes = wire.lengths(await reader.readexactly(wire.PREFIX.size))
                request = wire.decode(await reader.readexactly(header_bytes))
                await reader.readexactly(payload_bytes)
            writer.write(wire.encode(*await self._reply(request, reader, writer)))
            await writer.drain()
        except (OSError, ValueError, EOFError, TimeoutError):
            pass  # not a request of this protocol, or the client has disconnected
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _reply(self, request: wire.Header, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
        try:
            match request.get("verb"):
                case "ping":
                    return {"status": "ok", **self._facts()}, b""
                case "admit":
                    await asyncio.to_thread(self._files.admit, key_of(request))
                    return {"status": "ok"}, b""
                case "release":
                    self._files.release(key_of(request))
                    return {"status": "ok"}, b""
                case "generate":
                    return await self._generate(request, reader, writer)
                case _:
                    raise UsageError("expected a verb of ping, admit, generate and release")
        except LikenessError as error:
            return {"status": "error", "code": error.code, "message": str(error)}, b""
        except (OSError, EOFError, TimeoutError):
            raise
        except Exception as error:
            log.error("unexpected error in a request", exc_info=error)
            return {"status": "error", "code": "EngineError", "message": "the engine failed at this request"}, b""

    def _facts(self) -> wire.Header:
        facts = self._files.engine.facts()
        return {
            "pid": os.getpid(), "waiting": facts.waiting, "running": facts.running, "slots_held": facts.slots_held,
            "rows_per_step": asdict(facts.rows_per_step),
        }  # fmt: skip

    async def _generate(
        self, request: wire.Header, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Reply:
        key, deadline_s, texts = key_of(request), request.get("deadline_s"), [request.get(name) for name in INPUTS]
        if not all(isinstance(text, str) for text in texts) or not isinstance(deadline_s, int | float):
            raise UsageError(f"expected {', '.join(INPUTS)} as texts, and deadline_s in seconds")
        asked, media_type = request_of(*map(str, texts))
        ticket, remarks = await asyncio.to_thread(self._files.submit, asked, key, deadline_s)
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def on_loop(call: Callable[..., object], *arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(call, *arguments)

        ticket.add_start_callback(lambda: on_loop(writer.write, wire.encode({"status": "started"})))
        ticket.add_done_callback(lambda _: on_loop(over.set))
        watching = asyncio.create_task(_set_at_disconnect(over, reader))
        try:
            await over.wait()
            if not ticket.done:
                raise EOFError("the client has disconnected")
            image = ticket.result(0)
        finally:
            ticket.cancel()  # no effect on a finished one
            watching.cancel()
        file = await asyncio.to_thread(self._files.encode, image, media_type)
        return {"status": "ok", "media_type": media_type, "warnings": remarks}, file


async def _set_at_disconnect(event: asyncio.Event, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        await reader.read(1)
    event.set()


def key_of(request: wire.Header) -> str:
    """The engine's key of the adapter of a request, see `adapter_files`. Raises UsageError."""
    adapter = request.get("adapter")
    path, sha256 = (adapter.get("path"), adapter.get("sha256")) if isinstance(adapter, dict) else (None, None)
    if not isinstance(path, str) or not isinstance(sha256, str) or not path.startswith("/") or "/" in sha256:
        raise UsageError("expected an adapter with path and sha256")
    return f"{sha256}{path}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--socket", type=Path, required=True, help="appears when the engine answers")
    parser.add_argument("--base-sha256", required=True, help="refuse any other base")
    parser.add_argument("--watch-pid", type=int, required=True, help="end when this process does")
    args = parser.parse_args()
    try:
        watched = os.pidfd_open(args.watch_pid)  # first: loading takes long, and the number may be reused meanwhile
        with file_engine(settings_from(), base_sha256=args.base_sha256) as files:
            asyncio.run(_serve_while(watched, EngineServer(files), args.socket))
    except LikenessError as error:
        sys.exit(f"{wire.REFUSED}{error}")


async def _serve_while(watched: int, server: EngineServer, socket: Path) -> None:
    loop, until = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watched, until.set)  # a pidfd is readable when its process has ended (pidfd_open(2))
    for end in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(end, until.set)
    await server.serve(socket, until)


if __name__ == "__main__":
    main()
