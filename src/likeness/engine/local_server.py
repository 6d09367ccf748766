"""The engine behind a Unix socket, for processes of this machine that have no device: Triton's thin models.

The frames are those of `artifacts.triton.engine_client`. A connection is one request; who hangs up takes it back.
An adapter is named by the path of its file and the hash of its weights, and is read by the engine's loader. The socket
lies in a folder that only this user can enter, so whoever asks could read those files himself.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifacts.adapter import check_base
from ..artifacts.triton import engine_client as wire
from ..errors import DeadlinePassed, EngineBusy, LikenessError, UsageError
from ..types import GeneratedImage
from .cards import Cards
from .gen_args import request_of
from .prompts import unread_of, worded

if TYPE_CHECKING:
    from .engine import Engine
    from .ticket import Ticket

Encode = Callable[[GeneratedImage, str], bytes]  # picture and media type -> a file
Answer = tuple[wire.Header, bytes]
READ_S = 5.0  # for the whole request, from a process of this machine
BUSY_S = 1.0
log = logging.getLogger("likeness.engine")


class LocalServer:
    """Answers for one engine.

    Args:
        encode: the picture's file.
        connections: at most so many at once; further ones are told that the engine is busy.
    """

    def __init__(self, engine: "Engine", *, encode: Encode, connections: int = 512) -> None:
        self.engine, self._encode, self._most = engine, encode, connections
        self._open, self._cards = 0, Cards()

    async def serve(self, path: Path, until: asyncio.Event) -> None:
        """Listen until told to stop. The socket appears under its name when it answers, and goes at the end."""
        wire.make_private(path.parent)
        staged = path.with_name(f"{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            staged.unlink()
        server = await asyncio.start_unix_server(self._connection, staged)
        os.chmod(staged, 0o600)
        os.rename(staged, path)
        own = path.stat().st_ino
        async with server:
            await until.wait()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == own:  # else another engine has taken the place
                path.unlink()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(READ_S):
                header_bytes, payload_bytes = wire.lengths(await reader.readexactly(wire.PREFIX.size))
                request = wire.decode(await reader.readexactly(header_bytes))
                await reader.readexactly(payload_bytes)
            header, payload = await self._answered(request, reader, writer)
            writer.write(wire.encode(header, payload))
            await writer.drain()
        except (OSError, ValueError, EOFError, TimeoutError):
            pass  # no request of this protocol, or nobody waits for the answer any more
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answered(
        self, request: wire.Header, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer:
        try:
            match request.get("verb"):
                case "ping":
                    return {"status": "ok", **self._facts()}, b""
                case "admit":
                    return await asyncio.to_thread(self._admit, key_of(request))
                case "release":
                    self._release(key_of(request))
                    return {"status": "ok"}, b""
                case "generate":
                    if self._open > self._most:
                        raise EngineBusy(f"{self._most} requests are open already", retry_after_s=BUSY_S)
                    return await self._generate(request, reader, writer)
                case _:
                    raise UsageError("expected a verb of ping, admit, generate and release")
        except LikenessError as error:
            return _refusal(error), b""
        except (OSError, EOFError, TimeoutError):
            raise
        except Exception as error:
            log.error("a request failed", exc_info=error)
            return {"status": "error", "code": "EngineError", "message": "the engine failed at this request"}, b""

    def _facts(self) -> wire.Header:
        facts = self.engine.facts()
        return {
            "pid": os.getpid(), "base_sha256": self.engine.base.sha256, "waiting": facts.waiting,
            "running": facts.running, "slots_held": facts.slots_held, "rows_per_step": asdict(facts.rows_per_step),
        }  # fmt: skip

    def _admit(self, key: str) -> Answer:
        """Read the adapter, so that a damaged one is refused when its model is loaded."""
        check_base(self._cards.of(key), self.engine.base.sha256)
        return {"status": "ok"}, b""

    def _release(self, key: str) -> None:
        """Nobody asks for this adapter any more."""
        self._cards.release(key)
        self.engine.forget(key)

    async def _generate(
        self, request: wire.Header, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer:
        key, deadline_s = key_of(request), request.get("deadline_s")
        texts = [request.get(name) for name in ("prompt", "negative_prompt", "gen_args")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(deadline_s, int | float):
            raise UsageError("expected prompt, negative_prompt and gen_args as texts, and deadline_s in seconds")
        prompt, negative_prompt, gen_args = map(str, texts)
        card = await asyncio.to_thread(self._cards.of, key)
        asked, media_type = request_of(prompt, negative_prompt, gen_args)
        asked = worded(self.engine.base, asked, card)
        loop = asyncio.get_running_loop()
        started, done = asyncio.Event(), asyncio.Event()
        ticket = self.engine.submit(asked, key=key, tenant=key, deadline_s=deadline_s)

        def say(event: asyncio.Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(event.set)

        ticket.add_start_callback(lambda: say(started))
        ticket.add_done_callback(lambda _: say(done))
        image = await self._outcome(ticket, done, telling=partial(_tell_start, started, writer), reader=reader)
        header = {"status": "ok", "media_type": media_type, "warnings": unread_of(self.engine.base, asked).remarks}
        return header, await asyncio.to_thread(self._encode, image, media_type)

    async def _outcome(
        self, ticket: "Ticket", done: asyncio.Event, *, telling: Callable[[], Awaitable[None]],
        reader: asyncio.StreamReader,
    ) -> GeneratedImage:  # fmt: skip
        """Wait for the picture; cancel it when the client hangs up."""
        telling_task = asyncio.ensure_future(telling())
        ended, hung_up = asyncio.ensure_future(done.wait()), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({ended, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not done.is_set():
                raise EOFError("the client has gone")
            return ticket.result(0)
        finally:
            ticket.cancel()  # what is done stays done
            for task in (telling_task, ended, hung_up):
                task.cancel()


async def _tell_start(started: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    await started.wait()
    writer.write(wire.encode({"status": "started"}))


def key_of(request: wire.Header) -> str:
    """What the engine calls the adapter of a request: hash and path. Raises UsageError."""
    adapter = request.get("adapter")
    path, sha256 = (adapter.get("path"), adapter.get("sha256")) if isinstance(adapter, dict) else (None, None)
    if not isinstance(path, str) or not isinstance(sha256, str) or not path.startswith("/") or "/" in sha256:
        raise UsageError("expected an adapter with path and sha256")
    return f"{sha256}{path}"


def _refusal(error: LikenessError) -> wire.Header:
    refusal = {"status": "error", "code": error.code, "message": str(error)}
    return refusal | ({"retry_after_s": error.retry_after_s} if isinstance(error, EngineBusy | DeadlinePassed) else {})
