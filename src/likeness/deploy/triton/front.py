"""What SageMaker does around the container of a multi-model endpoint, for a tritonserver on this machine.

    fetch -> write -> POST /models -> invoke, invoke, ... -> drain -> DELETE -> remove

A model is loaded by its first request, once, however many ask for it together. When there are too many, or Triton has
no room (507), the one that was not asked for longest goes, after its last request. A process of Triton's that died is
found by its absence: nothing in Triton tells of it or starts another. Written after measurements of tritonserver 2.51:

* DELETE during a request of the same model blocks for 350 s, so a model is drained first, always;
* a dead process that no request has reached yet can be unloaded; after that only a restart of the server helps;
* /ping answers 200 whatever has died or hangs, so when nobody had a picture for a while the front asks for one;
* 404 means that the server was restarted behind our back: load again, once. Nothing else is sent twice.

Whoever was deleted or trained anew at the source is unloaded within seconds, whether anybody asks for them or not: a
model is a person's weights, in a folder, in a process and in the engine.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...artifacts.triton.export import write_model
from ...errors import EngineBusy, HostUnavailable, LikenessError, NotFound
from .hosted import HostedModel
from .protocol import DEAD, JSON, TARGET, canary_body, failure, load_body
from .server import Reply, TritonServer
from .sources import Source

if TYPE_CHECKING:
    from ...http.sagemaker import Reply as Answer

INVOKE_S = 60.0  # SageMaker's limits
LOAD_S = 360.0
UNLOAD_S = 30.0  # a drained model goes within 3 s; beyond this the server is restarted
log = logging.getLogger("likeness.triton")


class Front:
    """Any number of models behind one server.

    Args:
        server: not started yet.
        most_models: loaded at once.
        most_waiting: requests at once, for `submit`.
        invoke_s: for one request; the models' own deadline should be below it.
        check_s: seconds between two looks at the server's processes; 0 = never.
        canary_s: without a picture for anybody, until `check` asks for one.
        source_s: seconds between two questions of `check` to the source, about everything that is loaded.
    """

    def __init__(
        self, server: TritonServer, source: Source, *, most_models: int = 64, most_waiting: int = 256,
        invoke_s: float = INVOKE_S, check_s: float = 2.0, canary_s: float = 30.0, source_s: float = 20.0,
    ) -> None:  # fmt: skip
        self._server, self._source, self._most = server, source, most_models
        self._models: dict[str, HostedModel] = {}
        self._changed = threading.Condition()
        self._count, self._restarting = 0, False
        self._closed = threading.Event()
        self._check_s, self._invoke_s, self._canary_s, self._source_s = check_s, invoke_s, canary_s, source_s
        self._answered_s = self._compared_s = time.monotonic()
        self._threads = ThreadPoolExecutor(most_waiting, thread_name_prefix="triton-request")
        self._waiting = threading.BoundedSemaphore(most_waiting)
        self._checker = threading.Thread(target=self._check_again_and_again, name="triton-front", daemon=True)

    def __enter__(self) -> "Front":
        self._server.start()
        if self._check_s:
            self._checker.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._closed.set()
        if self._checker.is_alive():
            self._checker.join()
        self._server.stop()
        self._threads.shutdown(cancel_futures=True)
        shutil.rmtree(self._server.folder / "models", ignore_errors=True)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Target models that are ready, the one that was asked for last at the end."""
        with self._changed:
            ready = [model for model in self._models.values() if model.is_ready]
        return tuple(model.target for model in sorted(ready, key=lambda model: model.used))

    def invoke(self, target: str, body: bytes, *, content_type: str, accept: str = "") -> Reply:
        """One request to one model, which is loaded where it is not.

        Raises:
            NotFound, CorruptAdapter, ArchiveRefused: of the source.
            ModelFailed: the model refused the request, or Triton the model.
            HostUnavailable: no room for the model, or the server died; it is started again.
        """
        headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
        for is_last in (False, True):
            with self._leased(target) as model:
                reply = self._call("POST", model, "/invoke", body=body, headers=headers, timeout_s=self._invoke_s)
            if reply.status == 200:
                self._answered_s = time.monotonic()
                return reply
            if reply.status == 404:
                self._lost(model)
            elif DEAD in reply.text:
                self.restart(because="a model's process died and a request reached it")
            if is_last or (reply.status != 404 and DEAD not in reply.text):
                raise failure(reply)
        raise AssertionError("not reached")

    def submit(self, target: str, body: bytes, *, content_type: str, accept: str = "") -> "Future[Answer]":
        """`invoke` on a thread of the front's. Raises EngineBusy: too many wait."""
        if not self._waiting.acquire(blocking=False):
            raise EngineBusy("too many requests wait for the model server", retry_after_s=1.0)
        future: Future[Answer] = self._threads.submit(
            self.invoke, target, body, content_type=content_type, accept=accept
        )
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def load(self, target: str) -> None:
        """Load a model before anybody asks for it; nothing where it is loaded. Raises as `invoke`."""
        with self._leased(target):
            pass

    def unload(self, target: str) -> None:
        """Drain, unload and remove a model; nothing where it is not loaded."""
        with self._changed:
            model = self._models.get(target)
        if model is not None:
            self._unload(model)

    def restart(self, *, because: str) -> None:
        """Wait for the requests in flight, then start the server anew; models come back with their next request."""
        with self._changed:
            if self._restarting:
                self._changed.wait_for(lambda: not self._restarting, LOAD_S)
                return
            self._restarting = True
            self._changed.wait_for(lambda: not any(model.in_flight for model in self._models.values()), self._invoke_s)
        log.warning("tritonserver is started again: %s", because)
        try:
            self._server.stop()
            shutil.rmtree(self._server.folder / "models", ignore_errors=True)
            self._server.start()
        finally:
            with self._changed:
                self._models.clear()
                self._restarting = False
                self._changed.notify_all()

    def check(self) -> None:
        """Look after the server: is it there, does it answer, has each model its process, is a picture made?

        And after the models: are they still what the source has?
        """
        try:
            is_well = self._server.is_alive and self._server.call("GET", "/ping", timeout_s=10.0).status == 200
        except HostUnavailable:
            is_well = False
        if not is_well:
            self.restart(because="it does not answer")
            return
        with self._changed:
            ready = [model for model in self._models.values() if model.is_ready]
        lines = list(self._server.stubs().values())
        for model in ready:
            if not any(str(model.folder) in line for line in lines):
                log.warning("a model's process died; the model is unloaded")
                self._unload(model)
        if time.monotonic() - self._compared_s >= self._source_s:
            self._compared_s = time.monotonic()
            self._compare(ready)
        if time.monotonic() - self._answered_s >= self._canary_s and not self._canary():
            self.restart(because="a model that nobody else asked made no picture")

    def _compare(self, ready: list[HostedModel]) -> None:
        """Unload what the source no longer has, or has anew."""
        for model in ready:
            try:
                is_same = self._source.version(model.target) == model.version
            except NotFound:
                is_same = False
            except LikenessError as error:  # it is away, which says nothing about anybody
                log.warning("whether the models are still there could not be asked: %s", error)
                return
            if not is_same:
                self._unload(model)

    def _canary(self) -> bool:
        """Ask the model that was asked last for the smallest picture. Whether the server is to be trusted.

        Its adapter is the likeliest to lie in a slot still. Models that are being asked prove themselves. The limit is
        that of a load: a request that finds the engine dead starts another, and nothing is won by cutting that short.
        """
        with self._changed:
            model = max(self._idle(), key=lambda one: one.used, default=None)
            if model is None or self._restarting:
                return True
            model.in_flight += 1
        try:
            reply = self._call("POST", model, "/invoke", body=canary_body(), headers=JSON, timeout_s=LOAD_S)
        except HostUnavailable:
            return False
        finally:
            self._done(model)
        if reply.status == 200:
            self._answered_s = time.monotonic()
        elif reply.status == 404:
            self._lost(model)
        else:
            log.warning("a picture that nobody needs was not made: %s", failure(reply))
        return DEAD not in reply.text

    # one model's life

    @contextmanager
    def _leased(self, target: str) -> Iterator[HostedModel]:
        model = self._ready(target)
        try:
            yield model
        finally:
            self._done(model)

    def _done(self, model: HostedModel) -> None:
        with self._changed:
            model.in_flight -= 1
            self._changed.notify_all()

    def _ready(self, target: str) -> HostedModel:
        """The loaded model, counted as in flight."""
        version = self._version(target)
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._restarting, LOAD_S):
                    raise HostUnavailable("tritonserver is being started again", hint="try again later")
                found = self._models.get(target)
                if found is None:
                    new = self._models[target] = HostedModel(target, version)
                elif found.version == version:
                    if self._waited(found):
                        return self._counted(found)
                    continue
            if found is None:
                return self._loaded(new)
            self._unload(found)  # it has other weights by now

    def _waited(self, model: HostedModel) -> bool:
        """Wait until a model is ready (true) or gone; the lock is held. Raises LikenessError: as its load did."""
        if not self._changed.wait_for(lambda: model.is_ready or self._is_gone(model), LOAD_S):
            raise HostUnavailable("the model was not loaded in time", hint="try again later")
        if model.failure is not None:
            raise model.failure  # whoever waited for the same load gets the same answer
        return not self._is_gone(model)

    def _version(self, target: str) -> str:
        try:
            return self._source.version(target)
        except NotFound:
            self.unload(target)  # what was deleted there is deleted here
            raise

    def _counted(self, model: HostedModel) -> HostedModel:
        self._count += 1
        model.in_flight += 1
        model.used = self._count
        return model

    def _loaded(self, model: HostedModel) -> HostedModel:
        try:
            self._load(model)
        except BaseException as error:
            with self._changed:
                model.failure = error if isinstance(error, LikenessError) else HostUnavailable("the load failed")
                self._drop(model)
            model.remove()
            raise
        with self._changed:
            if self._is_gone(model):  # the server was restarted meanwhile
                raise HostUnavailable("tritonserver was started again meanwhile", hint="try again")
            model.is_ready = True
            self._changed.notify_all()
            return self._counted(model)

    def _load(self, model: HostedModel) -> None:
        if not self._make_room(lambda: len(self._models) > self._most):
            raise HostUnavailable("all models that there is room for are in use", hint="try again later")
        adapter = self._source.read(model.target)
        model.folder = self._server.folder / "models" / model.id / "model"
        model.remove()
        write_model(adapter, model.folder / adapter.card.name)
        body = load_body(model.id, model.folder)
        while True:
            reply = self._server.call("POST", "/models", body=body, headers={TARGET: model.target}, timeout_s=LOAD_S)
            if reply.status in (200, 409):  # loaded, or loaded already
                return
            if reply.status != 507:
                raise failure(reply)
            if not self._unload_idle():
                raise HostUnavailable("there is no room for another model", hint="try again later")

    def _make_room(self, is_full: Callable[[], bool]) -> bool:
        """Unload until it is not full; waits for a model to be idle. Whether it is."""
        end_s = time.monotonic() + self._invoke_s
        while True:
            with self._changed:
                is_possible = self._changed.wait_for(lambda: not is_full() or self._idle(), end_s - time.monotonic())
                if not is_full() or not is_possible:
                    return not is_full()
            self._unload_idle()

    def _unload_idle(self) -> bool:
        """Unload the model that nobody has asked for longest. Whether there was one."""
        with self._changed:
            idle = self._idle()
            if not idle:
                return False
            victim = min(idle, key=lambda one: one.used)
            victim.is_ready = False
        self._retire(victim)
        return True

    def _idle(self) -> list[HostedModel]:
        return [one for one in self._models.values() if one.is_ready and not one.in_flight]

    def _unload(self, model: HostedModel) -> None:
        with self._changed:
            self._changed.wait_for(lambda: model.is_ready or self._is_gone(model), LOAD_S)
            if not model.is_ready or self._is_gone(model):
                return
            model.is_ready = False  # nobody may begin
        self._retire(model)

    def _retire(self, model: HostedModel) -> None:
        """Drain, DELETE, remove. The model is not ready any more, so nobody begins."""
        with self._changed:
            is_drained = self._changed.wait_for(lambda: model.in_flight == 0, self._invoke_s + 5)
        try:
            reply = self._call("DELETE", model, timeout_s=UNLOAD_S) if is_drained else None
            is_well = reply is not None and reply.status in (200, 404)
        except HostUnavailable:
            is_well = False
        with self._changed:
            self._drop(model)
        model.remove()
        if not is_well:
            self.restart(because="a model could not be unloaded")

    def _lost(self, model: HostedModel) -> None:
        with self._changed:
            self._drop(model)

    def _drop(self, model: HostedModel) -> None:
        if self._models.get(model.target) is model:
            del self._models[model.target]
        model.is_ready = False
        self._changed.notify_all()

    def _is_gone(self, model: HostedModel) -> bool:
        return self._models.get(model.target) is not model

    def _call(
        self, method: str, model: HostedModel, path: str = "", *,
        body: bytes = b"", headers: dict[str, str] | None = None, timeout_s: float,
    ) -> Reply:  # fmt: skip
        every = {TARGET: model.target} | (headers or {})
        return self._server.call(method, f"/models/{model.id}{path}", body=body, headers=every, timeout_s=timeout_s)

    def _check_again_and_again(self) -> None:
        while not self._closed.wait(self._check_s):
            try:
                self.check()
            except LikenessError as error:
                log.error("tritonserver could not be started again: %s", error)
            except Exception:  # whatever a source can think of; the next look shall come
                log.exception("tritonserver could not be looked after")
