"""All replicas as one engine: what the HTTP application submits to.

Each image is a task, on the event loop of a thread, that reads the replica's messages. If the replica ends, the call
goes to another one, as `affinity.may_retry` allows, with what is left of its deadline. The same request gives the same
image on every replica, and only one result reaches the ticket.
"""

import asyncio
import concurrent.futures
import logging
import time
import uuid
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any

from ray.exceptions import ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ...engine.facts import EngineFacts, total
from ...engine.ticket import OnStep, StepEvent, Ticket
from ...errors import EngineBusy, EngineClosed, RequestCancelled
from ...types import Blend, GeneratedImage, ImageRequest
from ..affinity import may_retry
from .messages import KEYS_OF_A_STATE, Call, ReplicaState, Stage

if TYPE_CHECKING:
    from ...diffusion.base import BaseModel

STATE_S = 5.0  # for all replicas to answer a broadcast
ACCEPT_S = 30.0  # for a replica to take a request; `submit` blocks a thread until then
GRACE_S = 1.0  # after a deadline, for the replica's own error about it
AGAIN_S = 5.0  # Retry-After when replicas were lost
LOST = (RayActorError, ObjectLostError, WorkerCrashedError)

log = logging.getLogger("likeness.engine")


class RemoteEngine:
    """An `ImageEngine` over the replicas of a deployment.

    Args:
        base: without weights is enough: its tokenizer reads prompts.
        handle: of `EngineReplica`.
        deadline_s: of a request that has none.
    """

    def __init__(self, base: "BaseModel", handle: DeploymentHandle, *, deadline_s: float) -> None:
        self.base = base
        self._handle, self._deadline_s = handle, deadline_s
        self._make = handle.options(method_name="make", stream=True)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="likeness-replicas", daemon=True)
        self._thread.start()

    def submit(
        self, request: ImageRequest, *, adapters: Blend = (), tenant: str = "local", deadline_s: float | None = None,
        on_step: OnStep | None = None, preview_every: int = 0, request_id: str | None = None, wait: bool = False,
    ) -> Ticket:  # fmt: skip
        """As `Engine.submit`; returns when a replica has the request in its queue.

        Raises:
            EngineBusy: see `Engine.submit`; also ReplicaLost: no replica has taken it.
            EngineClosed: after `close`.
        """
        if self._loop.is_closed() or not self._thread.is_alive():
            raise EngineClosed("the engine is shutting down")
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        call = Call(
            request, adapters, tenant, limit_s, on_step is not None, preview_every,
            request_id or uuid.uuid4().hex[:16],
        )  # fmt: skip
        while True:
            errand = _Errand(self._make, call, on_step, self._loop)
            try:
                return errand.accepted()
            except EngineBusy as busy:
                if not wait:
                    raise
                time.sleep(busy.retry_after_s)

    def forget(self, key: str) -> None:
        """Drop an adapter from the memory of every replica.

        A replica that does not answer gets the call again from the next `Likeness.drop_stale_adapters`.
        """
        self._all("forget", key)

    def held(self) -> frozenset[str]:
        """Keys of the adapters in the memory of any replica."""
        found, after = set[str](), ""
        while True:
            parts = [state.held for state in self.states(after)]
            found.update(*parts)
            further = [part[-1] for part in parts if len(part) == KEYS_OF_A_STATE]
            if not further:
                return frozenset(found)
            after = min(further)

    def facts(self) -> EngineFacts:
        """The sums over the replicas that answer. Raises EngineBusy: there is none."""
        states = self.states()
        if not states:
            raise EngineBusy("expected a replica that answers, got none", code="ReplicaLost", retry_after_s=AGAIN_S)
        return total([state.facts for state in states])

    def states(self, after: str | None = None) -> list[ReplicaState]:
        """Of the replicas that answer within `STATE_S`, with keys that sort behind `after`; None: without keys."""
        return [state for state in self._all("state", after) if isinstance(state, ReplicaState)]

    def close(self) -> None:
        """Fail all unfinished requests with EngineClosed."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _all(self, method: str, *arguments: object) -> list[object]:
        """What each replica answers; an error is logged, and is an entry of the list."""
        try:
            answers = self._handle.broadcast(method, *arguments).results(timeout_s=STATE_S, return_exceptions=True)
        except (TimeoutError, RayServeException, *LOST) as error:
            answers = [error]
        failed = [type(answer).__name__ for answer in answers if isinstance(answer, BaseException)]
        if failed:
            log.warning("%d replicas did not answer a broadcast: %s", len(failed), ", ".join(failed))
        return answers


class _Errand:
    """One request, on its way through replicas."""

    def __init__(
        self, make: DeploymentHandle, call: Call, on_step: OnStep | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._make, self._call, self._on_step = make, call, on_step
        self._is_begun = self._is_started = False  # by the present replica, by any
        self._steps = 0  # steps reported; another replica starts at the first step again
        self._accepted: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ticket = Ticket(call.request_id or "", self._cancel)
        self._is_cancelled = False
        self._task = asyncio.run_coroutine_threadsafe(self._run(), loop)

    def accepted(self) -> Ticket:
        """Wait until a replica has taken the request. Raises LikenessError: it was refused."""
        self._accepted.result()
        return self._ticket

    def _cancel(self) -> None:
        self._is_cancelled = True
        self._task.cancel()

    async def _run(self) -> None:
        outcome: GeneratedImage | Exception
        try:
            outcome = await self._outcome()
        except asyncio.CancelledError:
            cancelled = RequestCancelled("the request was cancelled")
            outcome = cancelled if self._is_cancelled else EngineClosed("the engine is shutting down")
        except Exception as error:
            outcome = error
        if self._accepted.done():
            self._ticket.resolve(outcome)
        elif isinstance(outcome, Exception):
            self._accepted.set_exception(outcome)
        else:
            raise AssertionError("a replica answered without ACCEPTED")

    async def _outcome(self) -> GeneratedImage | Exception:
        assert self._call.deadline_s is not None
        loop, begun_tries = asyncio.get_running_loop(), 0
        end_s = loop.time() + self._call.deadline_s
        while True:
            self._is_begun = False
            left_s = max(end_s - loop.time(), 0.0)
            limit_s = left_s + GRACE_S if self._accepted.done() else min(left_s + GRACE_S, ACCEPT_S)
            try:
                async with asyncio.timeout(limit_s) as limit:
                    return await self._tried(replace(self._call, deadline_s=left_s), limit, end_s + GRACE_S)
            except TimeoutError:
                if self._accepted.done():
                    return EngineBusy(
                        "the deadline passed before a replica answered", code="DeadlinePassed", retry_after_s=AGAIN_S
                    )
                return _lost("no replica has taken the request")
            except RayServeException:
                return _lost("the replicas cannot be started")
            except LOST as error:
                log.warning("request %s lost its replica: %s", self._call.request_id, type(error).__name__)
                begun_tries += self._is_begun
                if not may_retry(self._is_begun, begun_tries):
                    return _lost("the replicas ended while they made the image")

    async def _tried(self, call: Call, limit: asyncio.Timeout, end_s: float) -> GeneratedImage | Exception:
        """What one replica answers. Raises `LOST`."""
        answer: Any = self._make.remote(call.routing_key, call)
        try:
            async for news in answer:
                match news:
                    case Stage.ACCEPTED if not self._accepted.done():
                        limit.reschedule(end_s)
                        self._accepted.set_result(None)
                    case Stage.STARTED:
                        self._start()
                    case StepEvent():
                        self._tell(news)
                    case GeneratedImage() | Exception():
                        return news
        except BaseException:
            answer.cancel()
            raise
        raise WorkerCrashedError

    def _start(self) -> None:
        if not self._is_started:
            self._ticket.start()
        self._is_begun = self._is_started = True

    def _tell(self, step: StepEvent) -> None:
        if self._on_step is not None and step.step > self._steps:
            self._steps = step.step
            self._on_step(step)


def _lost(what: str) -> EngineBusy:
    return EngineBusy(f"expected a replica that answers, but {what}", code="ReplicaLost", retry_after_s=AGAIN_S)


async def _end_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
