"""What SageMaker does around the container of a multi-model endpoint, for a tritonserver on this machine.

    fetch -> write -> POST /models -> invoke, invoke, ... -> drain -> DELETE -> remove

A model is loaded by its first request, once, however many ask for it together. When there are too many, or Triton has
no room (507), the one that was not asked for longest goes, after its last request. A process of Triton's that died is
found by its absence: nothing in Triton tells of it or starts another. Written after measurements of tritonserver 2.51:

* DELETE during a request of the same model blocks for 350 s, so a model is drained first, always;
* a dead process that no request has reached yet can be unloaded; after that only a restart of the server helps;
* /ping answers 200 whatever has died or hangs, so when nobody had a picture for a while the front asks for one;
* 404 means that the server was restarted behind our back: load again, once. Nothing else is sent twice.
"""

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...artifacts.triton.export import write_model
from ...errors import EngineBusy, HostUnavailable, LikenessError, ModelFailed
from .server import Reply, TritonServer
from .sources import Source

if TYPE_CHECKING:
    from ...http.sagemaker import Reply as Answer

INVOKE_S = 60.0  # SageMaker's limits
LOAD_S = 360.0
UNLOAD_S = 30.0  # a drained model goes within 3 s; beyond this the server is restarted
DEAD = "is not healthy"  # Triton's words for a stub that has died
CANARY_STEPS = {"num_inference_steps": 1, "guidance_scale": 1.0}  # the least that a picture can take
TARGET = "X-Amzn-SageMaker-Target-Model"
_JSON = {"Content-Type": "application/json"}
log = logging.getLogger("likeness.triton")


@dataclass(eq=False)
class _Model:
    """One target model. All fields belong to the front's lock."""

    target: str
    version: str
    is_ready: bool = False  # may be invoked
    failure: LikenessError | None = None  # of its load
    in_flight: int = 0
    used: int = 0  # by the front's count of requests
    folder: Path = field(default=Path(), repr=False)

    @property
    def id(self) -> str:
        """SageMaker's own names are hashes too."""
        return hashlib.sha256(f"{self.target}\n{self.version}".encode()).hexdigest()[:32]


class Front:
    """Any number of models behind one server.

    Args:
        server: not started yet.
        most_models: loaded at once.
        most_waiting: requests at once, for `submit`.
        invoke_s: for one request; the models' own deadline should be below it.
        check_s: seconds between two looks at the server's processes; 0 = never.
        canary_s: without a picture for anybody, until `check` asks for one.
    """

    def __init__(
        self, server: TritonServer, source: Source, *, most_models: int = 64, most_waiting: int = 256,
        invoke_s: float = INVOKE_S, check_s: float = 2.0, canary_s: float = 30.0,
    ) -> None:  # fmt: skip
        self._server, self._source, self._most = server, source, most_models
        self._models: dict[str, _Model] = {}
        self._changed = threading.Condition()
        self._count, self._restarting = 0, False
        self._closed = threading.Event()
        self._check_s, self._invoke_s, self._canary_s = check_s, invoke_s, canary_s
        self._answered_s = time.monotonic()
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
            AdapterNotFound, CorruptAdapter, ArchiveRefused: of the source.
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
                raise _failure(reply)
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
            if model is None or not self._changed.wait_for(lambda: model.is_ready or self._is_gone(model), LOAD_S):
                return
            if self._is_gone(model):
                return
            model.is_ready = False  # nobody may begin
        self._retire(model)

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
        """Look after the server: is it there, does it answer, has each model its process, is a picture made?"""
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
                self.unload(model.target)
        if time.monotonic() - self._answered_s >= self._canary_s and not self._canary():
            self.restart(because="a model that nobody else asked made no picture")

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
            reply = self._call("POST", model, "/invoke", body=_canary_body(), headers=_JSON, timeout_s=LOAD_S)
        except HostUnavailable:
            return False
        finally:
            self._done(model)
        if reply.status == 200:
            self._answered_s = time.monotonic()
        elif reply.status == 404:
            self._lost(model)
        else:
            log.warning("a picture that nobody needs was not made: %s", _failure(reply))
        return DEAD not in reply.text

    # one model's life

    @contextmanager
    def _leased(self, target: str) -> Iterator[_Model]:
        model = self._ready(target)
        try:
            yield model
        finally:
            self._done(model)

    def _done(self, model: _Model) -> None:
        with self._changed:
            model.in_flight -= 1
            self._changed.notify_all()

    def _ready(self, target: str) -> _Model:
        """The loaded model, counted as in flight."""
        version = self._version(target)
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._restarting, LOAD_S):
                    raise HostUnavailable("tritonserver is being started again", hint="try again later")
                found = self._models.get(target)
                if found is None:
                    new = self._models[target] = _Model(target, version)
                elif found.version == version:
                    if self._waited(found):
                        return self._counted(found)
                    continue
            if found is None:
                return self._loaded(new)
            self.unload(target)  # it has other weights by now

    def _waited(self, model: _Model) -> bool:
        """Wait until a model is ready (true) or gone; the lock is held. Raises LikenessError: as its load did."""
        if not self._changed.wait_for(lambda: model.is_ready or self._is_gone(model), LOAD_S):
            raise HostUnavailable("the model was not loaded in time", hint="try again later")
        if model.failure is not None:
            raise model.failure  # whoever waited for the same load gets the same answer
        return not self._is_gone(model)

    def _version(self, target: str) -> str:
        try:
            return self._source.version(target)
        except LikenessError:
            self.unload(target)  # what was deleted there is deleted here
            raise

    def _counted(self, model: _Model) -> _Model:
        self._count += 1
        model.in_flight += 1
        model.used = self._count
        return model

    def _loaded(self, model: _Model) -> _Model:
        try:
            self._load(model)
        except BaseException as error:
            with self._changed:
                model.failure = error if isinstance(error, LikenessError) else HostUnavailable("the load failed")
                self._drop(model)
            self._remove(model)
            raise
        with self._changed:
            if self._is_gone(model):  # the server was restarted meanwhile
                raise HostUnavailable("tritonserver was started again meanwhile", hint="try again")
            model.is_ready = True
            self._changed.notify_all()
            return self._counted(model)

    def _load(self, model: _Model) -> None:
        if not self._make_room(lambda: len(self._models) > self._most):
            raise HostUnavailable("all models that there is room for are in use", hint="try again later")
        adapter = self._source.read(model.target)
        model.folder = self._server.folder / "models" / model.id / "model"
        self._remove(model)
        write_model(adapter, model.folder / adapter.card.name)
        body = json.dumps({"model_name": model.id, "url": str(model.folder)}).encode()
        while True:
            reply = self._server.call("POST", "/models", body=body, headers={TARGET: model.target}, timeout_s=LOAD_S)
            if reply.status in (200, 409):  # loaded, or loaded already
                return
            if reply.status != 507:
                raise _failure(reply)
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

    def _idle(self) -> list[_Model]:
        return [one for one in self._models.values() if one.is_ready and not one.in_flight]

    def _retire(self, model: _Model) -> None:
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
        self._remove(model)
        if not is_well:
            self.restart(because="a model could not be unloaded")

    def _lost(self, model: _Model) -> None:
        with self._changed:
            self._drop(model)

    def _drop(self, model: _Model) -> None:
        if self._models.get(model.target) is model:
            del self._models[model.target]
        model.is_ready = False
        self._changed.notify_all()

    def _is_gone(self, model: _Model) -> bool:
        return self._models.get(model.target) is not model

    def _remove(self, model: _Model) -> None:
        if model.folder != Path():
            shutil.rmtree(model.folder.parent, ignore_errors=True)

    def _call(
        self, method: str, model: _Model, path: str = "", *, body: bytes = b"", headers: dict[str, str] | None = None,
        timeout_s: float,
    ) -> Reply:  # fmt: skip
        every = {TARGET: model.target} | (headers or {})
        return self._server.call(method, f"/models/{model.id}{path}", body=body, headers=every, timeout_s=timeout_s)

    def _check_again_and_again(self) -> None:
        while not self._closed.wait(self._check_s):
            try:
                self.check()
            except LikenessError as error:
                log.error("tritonserver could not be started again: %s", error)


def _canary_body() -> bytes:
    columns = {"prompt": "", "negative_prompt": "", "gen_args": json.dumps(CANARY_STEPS)}
    inputs = [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]} for name, text in columns.items()]
    return json.dumps({"inputs": inputs}).encode()


def _failure(reply: Reply) -> ModelFailed:
    try:
        said = json.loads(reply.body).get("error", "")
    except (ValueError, AttributeError):
        said = ""
    return ModelFailed(str(said)[:1000] or "the model server gave no reason", status=reply.status)
