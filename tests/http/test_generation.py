"""Images of a disconnected client are cancelled, in every protocol."""

import asyncio
from concurrent.futures import Future

import pytest
from starlette.requests import ClientDisconnect, Request

from likeness.http.generation import unless_gone


def request_of(*messages: dict[str, str]) -> Request:
    """A request whose client says this, and then nothing more."""
    said = list(messages)

    async def receive() -> dict[str, str]:
        if said:
            return said.pop(0)
        return await asyncio.Future()

    return Request({"type": "http", "headers": []}, receive)


def test_what_waits_at_a_model_server_is_cancelled_when_its_client_goes() -> None:
    waiting: Future[str] = Future()

    async def run() -> str:
        return await unless_gone(request_of({"type": "http.disconnect"}), asyncio.wrap_future(waiting))

    with pytest.raises(ClientDisconnect):
        asyncio.run(run())
    assert waiting.cancelled()


def test_what_is_done_is_the_answer_and_what_fails_fails() -> None:
    async def run(work: Future[str]) -> str:
        return await unless_gone(request_of(), asyncio.wrap_future(work))

    done: Future[str] = Future()
    done.set_result("picture")
    assert asyncio.run(run(done)) == "picture"
    failed: Future[str] = Future()
    failed.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run(failed))
