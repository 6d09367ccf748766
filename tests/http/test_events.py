"""Streams of events: kept alive, passed on at once by proxies, and cleaned up however they end."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from likeness.http.events import COMMENT, EventStream, event, kept_alive


def test_an_event_is_lines_of_its_protocol() -> None:
    assert event("step", '{"a": 1}', id=3) == b'id: 3\nevent: step\ndata: {"a": 1}\n\n'
    assert event("done", "{}") == b"event: done\ndata: {}\n\n"


def test_a_comment_is_sent_while_nothing_happens_and_no_event_is_lost() -> None:
    async def run() -> list[bytes]:
        released = asyncio.Event()

        async def slow() -> AsyncGenerator[bytes]:
            yield b"first"
            await released.wait()
            yield b"second"

        got = []
        async for sent in kept_alive(slow(), every_s=0.001):
            got.append(sent)
            if got.count(COMMENT) == 2:
                released.set()
        return got

    got = asyncio.run(run())
    assert [sent for sent in got if sent != COMMENT] == [b"first", b"second"]
    assert got.count(COMMENT) >= 2 and got[-1] == b"second"


def test_an_error_of_the_events_is_passed_on() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"first"
        raise ZeroDivisionError

    async def run() -> None:
        async for _ in kept_alive(failing(), every_s=60):
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_closing_a_stream_that_waits_closes_the_events() -> None:
    closed = []

    async def endless() -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def run() -> None:
        stream = kept_alive(endless(), every_s=0.001)
        assert await anext(stream) == b"first"
        assert await anext(stream) == COMMENT
        await stream.aclose()

    asyncio.run(run())
    assert closed == [True]


@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_what_a_stream_holds_is_released_where_the_client_left_before_it_began(version: str) -> None:
    begun, ended = [], []

    async def events() -> AsyncGenerator[bytes]:
        begun.append(True)
        yield b"never sent"

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        raise OSError("the client is gone")

    async def run() -> None:
        stream = EventStream(events(), ended=lambda: ended.append(True))
        await stream({"type": "http", "asgi": {"spec_version": version}}, receive, send)

    with pytest.raises(BaseException):  # noqa: B017, PT011 # which one is the framework's business
        asyncio.run(run())
    assert (begun, ended) == ([], [True])
