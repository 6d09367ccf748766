"""SageMaker's container contract, single-model and multi-model, served by the engine of this process.

    GET /ping                                      200 when the engine is up
    POST /invocations                              the model in /opt/ml/model, or the bare base if there is none
    POST /models {"model_name", "url"}             200, 409 loaded already, 400 not a model of ours
    GET /models, GET and DELETE /models/{name}     404 not loaded
    POST /models/{name}/invoke                     as /invocations

Loading a model checks its file; weights are read by the first request. Payload and response are those of
`deploy.payload`. Source: SageMaker Developer Guide, 'Custom containers contract for multi-model endpoints'.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...artifacts.triton_model import CONFIG_NAME, VERSION, WEIGHTS_NAME, read_model
from ...config import Settings
from ...errors import CorruptAdapter, LikenessError, NotFound, UsageError
from .. import kserve
from ..adapter_files import FileEngine, file_engine
from ..payload import requests_of, response
from .protocol import MAX_BODY_BYTES

DEADLINE_S = 55.0  # SageMaker's own is 60
MODELS, SINGLE = Path("/opt/ml/models"), Path("/opt/ml/model")
_NAME = re.compile(r"[0-9A-Za-z._-]{1,128}")


@dataclass
class Container:
    """One engine and the models that SageMaker has loaded: name -> (url, the engine's key)."""

    files: FileEngine
    models: Path = MODELS
    single: Path = SINGLE
    loaded: dict[str, tuple[str, str]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The contract's routes."""
        routes = [
            Route("/ping", self._ping),
            Route("/invocations", self._invoke_single, methods=["POST"]),
            Route("/models", self._list),
            Route("/models", self._load, methods=["POST"]),
            Route("/models/{name}", self._show),
            Route("/models/{name}", self._unload, methods=["DELETE"]),
            Route("/models/{name}/invoke", self._invoke, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={LikenessError: _refuse})

    async def _ping(self, request: Request) -> Response:
        return Response()

    async def _list(self, request: Request) -> Response:
        listed = [{"modelName": name, "modelUrl": url} for name, (url, _) in sorted(self.loaded.items())]
        return JSONResponse({"models": listed})

    async def _load(self, request: Request) -> Response:
        try:
            document = json.loads(await _body(request))
            name, url = str(document["model_name"]), str(document["url"])
        except (ValueError, TypeError, KeyError):
            raise UsageError("expected model_name and url") from None
        if name in self.loaded:
            return JSONResponse({"error": "a model of this name is loaded already"}, 409)
        if not _NAME.fullmatch(name) or ".." in Path(url).parts or not Path(url).is_relative_to(self.models):
            raise UsageError(f"expected a model's name and its folder below {self.models.name}")
        self.loaded[name] = (url, await asyncio.to_thread(self._key_in, Path(url)))
        return Response()

    async def _show(self, request: Request) -> Response:
        name, url, _ = self._found(request)
        return JSONResponse({"modelName": name, "modelUrl": url})

    async def _unload(self, request: Request) -> Response:
        name, _, key = self._found(request)
        del self.loaded[name]
        self.files.release(key)
        return Response()

    async def _invoke(self, request: Request) -> Response:
        return await self._answer(request, self._found(request)[2])

    async def _invoke_single(self, request: Request) -> Response:
        has_model = self.single.is_dir() and any(self.single.iterdir())
        return await self._answer(request, await asyncio.to_thread(self._key_in, self.single) if has_model else None)

    def _found(self, request: Request) -> tuple[str, str, str]:
        """Name, URL and key of the model of a path. Raises NotFound."""
        name = request.path_params["name"]
        if name not in self.loaded:
            raise NotFound("this model is not loaded", code="AdapterNotFound")
        return name, *self.loaded[name]

    def _key_in(self, folder: Path) -> str:
        """The engine's key of the one model in a folder, whose file is checked. Raises CorruptAdapter, Mismatch."""
        models = [path.parent for path in folder.glob(f"*/{CONFIG_NAME}")]
        if len(models) != 1:
            raise CorruptAdapter(
                f"expected one model in the archive, got {len(models)}",
                hint="`likeness export --format triton` makes the archive",
            )
        key = f"{read_model(models[0]).card.content_sha256}{models[0].absolute() / VERSION / WEIGHTS_NAME}"
        self.files.admit(key)
        return key

    async def _answer(self, request: Request, key: str | None) -> Response:
        """The portraits that a request asks for. Raises LikenessError."""
        inference = kserve.read(await _body(request), request.headers.get("content-type", ""))
        asked = requests_of(inference)
        submitted = []
        try:
            for image_request, _ in asked:
                submitted.append(await asyncio.to_thread(self.files.submit, image_request, key, DEADLINE_S))
            images = [await asyncio.to_thread(ticket.result) for ticket, _ in submitted]
        finally:
            for ticket, _ in submitted:
                ticket.cancel()
        files = [
            await asyncio.to_thread(self.files.encode, image, media_type)
            for image, (_, media_type) in zip(images, asked, strict=True)
        ]
        remarks = [row for _, row in submitted]
        body, content_type = response("likeness", files, remarks, binary=inference.binary_output)
        return Response(body, headers={"Content-Type": content_type})


@contextmanager
def sagemaker_container(settings: Settings) -> Iterator[Starlette]:
    """The application for port 8080 of a container, over an engine of its own. Raises as `file_engine`."""
    with file_engine(settings) as files:
        yield Container(files).app()


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, LikenessError)
    # not 409 for another base: here it means 'loaded already'
    status = error.http_status if error.http_status in (404, 408, 413) or error.http_status >= 500 else 400
    return JSONResponse({"error": f"{error.code}: {error}"}, status)


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise UsageError(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    return bytes(content)
