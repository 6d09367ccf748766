"""Between the event loop and the engine's threads: submit requests, wait for their images, cancel on disconnect.

Blocking work (the catalog, encoding) runs on threads, so that one slow request does not delay the others.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from ..engine.ticket import StepEvent, Ticket
from ..service import Likeness
from ..service.image_files import JPEG_QUALITY
from ..types import GeneratedImage, ImageRequest

T = TypeVar("T")

PREVIEW_EVERY = 5  # steps; a preview costs a decoding


def likeness_of(request: Request) -> Likeness:
    """The installation that this application serves."""
    likeness: Likeness = request.app.state.likeness
    return likeness


async def made(request: Request, asked: Sequence[ImageRequest], *, tenant: str) -> list[GeneratedImage]:
    """All images, in order. When one fails or the client disconnects, the others are cancelled.

    Raises:
        ClientDisconnect: the client disconnected.
        LikenessError: of the first that failed.
    """
    async with Generation(request, asked, tenant=tenant) as generation:
        return await unless_gone(request, generation.images())


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects. The body must have been read.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    gone, doing = asyncio.create_task(_gone(request)), asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, doing}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        for task in (gone, doing):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def encoded(
    likeness: Likeness, images: Sequence[GeneratedImage], media_type: str, *, quality: int = JPEG_QUALITY
) -> list[bytes]:
    """The images as files with their provenance."""
    return await asyncio.to_thread(lambda: [likeness.encode(image, media_type, quality=quality) for image in images])


class Generation:
    """The images of one HTTP request; leaving the block cancels those that are not finished."""

    def __init__(
        self, request: Request, asked: Sequence[ImageRequest], *, tenant: str, with_steps: bool = False
    ) -> None:
        self._likeness, self._asked, self._tenant = likeness_of(request), asked, tenant
        self._id, self._with_steps = request.state.request_id, with_steps
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[int, StepEvent | Ticket]] = asyncio.Queue()
        self._tickets: list[Ticket] = []

    async def __aenter__(self) -> "Generation":
        await self.submit()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.cancel()

    async def submit(self) -> None:
        """Hand the requests to the engine. Raises as `Likeness.submit`."""
        self._tickets = await asyncio.to_thread(
            self._likeness.submit, self._asked, tenant=self._tenant, deadline_s=self._likeness.settings.deadline_s,
            on_step=self._tell if self._with_steps else None,
            preview_every=PREVIEW_EVERY if self._with_steps else 0, request_id=self._id,
        )  # fmt: skip
        for index, ticket in enumerate(self._tickets):
            ticket.add_done_callback(partial(self._tell, index))

    def cancel(self) -> None:
        """Cancel the images that are not finished."""
        for ticket in self._tickets:
            ticket.cancel()

    async def events(self) -> AsyncIterator[tuple[int, StepEvent | GeneratedImage]]:
        """Index and step or image, as they come, until all are done. Raises LikenessError of the first that failed."""
        left = len(self._tickets)
        while left:
            index, news = await self._news.get()
            if isinstance(news, StepEvent):
                yield index, news
            else:
                yield index, news.result(0)
                left -= 1

    async def images(self) -> list[GeneratedImage]:
        """All images, in order. Raises as `events`."""
        done = {index: news async for index, news in self.events() if isinstance(news, GeneratedImage)}
        return [done[index] for index in range(len(self._tickets))]

    def _tell(self, index: int, news: StepEvent | Ticket) -> None:
        """Called on the engine's threads."""
        with suppress(RuntimeError):  # the event loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._news.put_nowait, (index, news))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
