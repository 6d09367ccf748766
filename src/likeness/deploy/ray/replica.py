"""A replica: one engine on one device, which does the batching; Serve neither batches nor caches for it."""

import asyncio
import heapq
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import ray.util
from ray import serve

from ...config import Settings, settings_from
from ...engine.ticket import StepEvent, Ticket
from ...errors import DeviceFailed, LikenessError
from ...service import build
from ...service.loading import loaded_base, refuse_unservable, started_engine
from .messages import KEYS_OF_A_STATE, QUEUE_S, Call, News, ReplicaState, Stage


def settings_at(home: str | None) -> Settings:
    """The settings of this node: its LIKENESS_* variables and its home folder. Raises SettingsError."""
    return settings_from(home=None if home is None else Path(home))


def stay_on_loopback() -> None:
    """On a node of loopback, open the port for calls between replicas there too: Ray 2.60 does on every interface.

    Called by a deployment's constructor, after which Serve opens the port. `tests/services/test_ray.py` has the check.
    """
    host = ray.util.get_node_ip_address()
    if host == "127.0.0.1":
        serve_replica: Any = import_module("ray.serve._private.replica")
        open_port = serve_replica.add_port_to_grpc_server
        serve_replica.add_port_to_grpc_server = lambda server, address: open_port(server, address.replace("[::]", host))


@serve.deployment
class EngineReplica:
    """Args: home: see `settings_at`."""

    def __init__(self, home: str | None = None) -> None:
        stay_on_loopback()
        settings = settings_at(home)
        refuse_unservable(settings)
        self._engine = started_engine(settings, loaded_base(settings), build(settings).library)
        self._queued, self._queue_s = self._engine.facts().queue_s, 0.0  # at the last report

    async def make(self, routing_key: str, call: Call) -> AsyncIterator[News]:
        """Make one image. The routing key is for the router. Closing the iterator cancels the image."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Stage | StepEvent | Ticket] = asyncio.Queue()

        def tell(news: Stage | StepEvent | Ticket) -> None:
            with suppress(RuntimeError):  # the event loop is closed: the replica has ended
                loop.call_soon_threadsafe(queue.put_nowait, news)

        try:
            ticket = self._engine.submit(
                call.request, adapters=call.adapters, tenant=call.tenant, deadline_s=call.deadline_s,
                on_step=tell if call.with_steps else None, preview_every=call.preview_every,
                request_id=call.request_id,
            )  # fmt: skip
        except LikenessError as error:
            yield error
            return
        try:
            yield Stage.ACCEPTED
            ticket.add_start_callback(partial(tell, Stage.STARTED))
            ticket.add_done_callback(tell)
            while isinstance(news := await queue.get(), Stage | StepEvent):
                yield news
            yield _outcome(news)
        finally:
            ticket.cancel()  # no effect on a finished one

    async def state(self, after: str | None = None) -> ReplicaState:
        """Facts, and the first keys behind `after`; None: no keys."""
        keys = () if after is None else keys_after(self._engine.held(), after)
        return ReplicaState(os.getpid(), keys, self._engine.facts())

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve, for `router.follow_load`: of the images that joined a batch since the last call."""
        facts = self._engine.facts()
        joined = facts.queue_s.count - self._queued.count
        if joined:
            self._queue_s = (facts.queue_s.sum - self._queued.sum) / joined
        elif not facts.waiting:
            self._queue_s = 0.0
        self._queued = facts.queue_s
        return {QUEUE_S: self._queue_s}

    async def forget(self, key: str) -> None:
        """Drop an adapter from memory, see `Engine.forget`."""
        self._engine.forget(key)

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises."""
        if not self._engine.is_alive:
            raise DeviceFailed("expected the device thread to run, got one that has ended")


def keys_after(held: Iterable[str], after: str) -> tuple[str, ...]:
    """The first `KEYS_OF_A_STATE` keys that sort behind `after`."""
    return tuple(heapq.nsmallest(KEYS_OF_A_STATE, (key for key in held if key > after)))


def _outcome(ticket: Ticket) -> News:
    try:
        return ticket.result(0)
    except Exception as error:
        return error
