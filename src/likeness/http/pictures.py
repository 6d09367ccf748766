"""Between the event loop and the engine's threads: hand pictures in, wait for them, take them back.

Everything that blocks (the catalog, encoding) runs on threads, so that one slow request does not hold up the others.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect, Request

from ..portraits import JPEG_QUALITY, numbered
from ..service import BARE_BASE, Likeness
from ..types import GeneratedImage, ImageRequest

if TYPE_CHECKING:
    from ..engine.ticket import StepEvent, Ticket

T = TypeVar("T")

PREVIEW_EVERY = 5  # steps; a preview costs a decoding


@dataclass(frozen=True, eq=False)
class Done:
    """One picture of an order is finished."""

    place: int
    image: GeneratedImage


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one picture is done."""

    place: int
    event: "StepEvent"


def likeness_of(request: Request) -> Likeness:
    """The installation that this application serves."""
    likeness: Likeness = request.app.state.likeness
    return likeness


def adapter_asked(name: str | None) -> str | None:
    """None stands for the bare base, as does its name."""
    return None if name in (None, "", BARE_BASE) else name


async def orders(likeness: Likeness, request: ImageRequest, count: int, guidance: float | None) -> list[ImageRequest]:
    """`count` requests that differ in their seeds, guided as the base likes it unless said. Raises UsageError."""
    if guidance is None:
        guidance = (await asyncio.to_thread(lambda: likeness.base)).family.guidance_scale
    return numbered(replace(request, guidance_scale=guidance), count)


async def made(request: Request, asked: Sequence[ImageRequest], *, tenant: str) -> list[GeneratedImage]:
    """All pictures, in order.

    Raises:
        ClientDisconnect: the client went away; its pictures were taken back.
        LikenessError: of the first that failed; the others were taken back.
    """
    async with Order(request, asked, tenant=tenant) as order:
        return await unless_gone(request, order.images())


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away. The body has been read.

    Raises:
        ClientDisconnect: the client went away.
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
    """The pictures as files, with their origin in them."""
    return await asyncio.to_thread(lambda: [likeness.encode(image, media_type, quality=quality) for image in images])


class Order:
    """Pictures under way; leaving the block takes back what is not finished."""

    def __init__(
        self, request: Request, asked: Sequence[ImageRequest], *, tenant: str, with_steps: bool = False
    ) -> None:
        self._likeness, self._asked, self._tenant = likeness_of(request), asked, tenant
        self._id, self._with_steps = request.state.request_id, with_steps
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Queue[Step | tuple[int, Ticket]] = asyncio.Queue()  # at most a few a step
        self._tickets: list[Ticket] = []

    async def __aenter__(self) -> "Order":
        await self.submit()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.cancel()

    async def submit(self) -> None:
        """Hand the pictures to the engine. Raises as `Likeness.submit`."""
        self._tickets = await asyncio.to_thread(self._submit)
        for place, ticket in enumerate(self._tickets):
            ticket.add_done_callback(partial(self._tell, place))

    def cancel(self) -> None:
        """Take back what is not finished."""
        for ticket in self._tickets:
            ticket.cancel()

    async def events(self) -> AsyncIterator[Step | Done]:
        """Steps and pictures as they come, until all are there. Raises LikenessError of the first that failed."""
        left = len(self._tickets)
        while left:
            said = await self._said.get()
            if isinstance(said, Step):
                yield said
            else:
                place, ticket = said
                yield Done(place, ticket.result(0))
                left -= 1

    async def images(self) -> list[GeneratedImage]:
        """All pictures, in order. Raises as `events`."""
        done = {event.place: event.image async for event in self.events() if isinstance(event, Done)}
        return [done[place] for place in range(len(self._tickets))]

    def _submit(self) -> "list[Ticket]":
        settings = self._likeness.settings
        return self._likeness.submit(
            self._asked, tenant=self._tenant, deadline_s=settings.deadline_s,
            watch=(lambda place, event: self._say(Step(place, event))) if self._with_steps else None,
            preview_every=PREVIEW_EVERY if self._with_steps else 0, request_id=self._id,
        )  # fmt: skip

    def _tell(self, place: int, ticket: "Ticket") -> None:
        self._say((place, ticket))

    def _say(self, said: "Step | tuple[int, Ticket]") -> None:
        with suppress(RuntimeError):  # the server is gone, and so is whoever would have listened
            self._loop.call_soon_threadsafe(self._said.put_nowait, said)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
