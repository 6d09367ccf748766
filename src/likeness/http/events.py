"""Server-sent events (WHATWG HTML, section 9.2) that reach the client at once, also behind a proxy.

Proxies buffer responses and close idle connections. The header `X-Accel-Buffering` turns buffering off in nginx and
others; comments keep the connection alive.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

EVENTS = "text/event-stream"
KEEP_ALIVE_S = 15.0
COMMENT = b": waiting\n\n"


def event(kind: str, data: str, *, id: int | None = None) -> bytes:
    """One event; `data` is a JSON document on one line."""
    return (f"id: {id}\n" if id is not None else "").encode() + f"event: {kind}\ndata: {data}\n\n".encode()


async def kept_alive(events: AsyncGenerator[bytes], every_s: float) -> AsyncGenerator[bytes]:
    """The events, and a comment after every `every_s` without one. Closing it closes `events`."""
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=every_s)
            if not done:
                yield COMMENT
                continue
            (came,), coming = done, None
            try:
                found = came.result()
            except StopAsyncIteration:
                return
            yield found
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await events.aclose()


class EventStream(StreamingResponse):
    """A response of server-sent events.

    Args:
        events: see `event`.
        ended: called once when the response is over, even if the client left before it started.
    """

    def __init__(self, events: AsyncGenerator[bytes], *, ended: Callable[[], None] = lambda: None) -> None:
        super().__init__(kept_alive(events, KEEP_ALIVE_S), media_type=EVENTS, headers={"X-Accel-Buffering": "no"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
