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
from ...errors import AdapterNotFound, CorruptAdapter, LikenessError, UsageError
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

    def load(self, name: str, url: str) -> None:
        """Raises UsageError, CorruptAdapter, WrongBase."""
        folder = Path(url)
        if not _NAME.fullmatch(name) or ".." in folder.parts or not folder.is_relative_to(self.models):
            raise UsageError(f"expected a model's name and its folder below {self.models.name}")
        self.loaded[name] = (url, self.key_in(folder))

    def unload(self, name: str) -> None:
        """Raises AdapterNotFound."""
        _, key = self.find(name)
        del self.loaded[name]
        self.files.release(key)

    def find(self, name: str) -> tuple[str, str]:
        """URL and key. Raises AdapterNotFound."""
        if name not in self.loaded:
            raise AdapterNotFound("this model is not loaded")
        return self.loaded[name]

    def key_in(self, folder: Path) -> str:
        """The engine's key of the one model in a folder, whose file is checked. Raises CorruptAdapter, WrongBase."""
        models = [path.parent for path in folder.glob(f"*/{CONFIG_NAME}")]
        if len(models) != 1:
            raise CorruptAdapter("expected one model", hint="`likeness export --format triton` makes the archive")
        key = f"{read_model(models[0]).card.content_sha256}{models[0].absolute() / VERSION / WEIGHTS_NAME}"
        self.files.admit(key)
        return key

    async def answer(self, request: Request, key: str | None) -> Response:
        """The portraits that a request asks for. Raises LikenessError."""
        inference = kserve.read(await _body(request), request.headers.get("content-type", ""))
        asked = requests_of(inference)
        tickets = []
        try:
            for image_request, _ in asked:
                tickets.append(await asyncio.to_thread(self.files.submit, image_request, key, DEADLINE_S))
            images = [await asyncio.to_thread(ticket.result) for ticket in tickets]
        finally:
            for ticket in tickets:
                ticket.cancel()
        files = [
            await asyncio.to_thread(self.files.encode, image, media_type)
            for image, (_, media_type) in zip(images, asked, strict=True)
        ]
        body, content_type = response("likeness", files, binary=inference.binary_output)
        return Response(body, headers={"Content-Type": content_type})


@contextmanager
def sagemaker_container(settings: Settings) -> Iterator[Starlette]:
    """The application for port 8080 of a container, over an engine of its own. Raises as `file_engine`."""
    with file_engine(settings) as files:
        yield container_app(Container(files))


def container_app(container: Container) -> Starlette:
    """The contract's routes over a container."""

    async def ping(request: Request) -> Response:
        return Response()

    async def list_models(request: Request) -> Response:
        listed = [{"modelName": name, "modelUrl": url} for name, (url, _) in sorted(container.loaded.items())]
        return JSONResponse({"models": listed})

    async def load(request: Request) -> Response:
        try:
            document = json.loads(await _body(request))
            name, url = str(document["model_name"]), str(document["url"])
        except (ValueError, TypeError, KeyError):
            raise UsageError("expected model_name and url") from None
        if name in container.loaded:
            return JSONResponse({"error": "loaded already"}, 409)
        await asyncio.to_thread(container.load, name, url)
        return Response()

    async def show(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse({"modelName": name, "modelUrl": container.find(name)[0]})

    async def unload(request: Request) -> Response:
        container.unload(request.path_params["name"])
        return Response()

    async def invoke(request: Request) -> Response:
        return await container.answer(request, container.find(request.path_params["name"])[1])

    async def invocations(request: Request) -> Response:
        has_model = container.single.is_dir() and any(container.single.iterdir())
        key = await asyncio.to_thread(container.key_in, container.single) if has_model else None
        return await container.answer(request, key)

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, LikenessError)
        # not 409 for another base: here it means 'loaded already'
        status = error.http_status if error.http_status in (404, 408, 413) or error.http_status >= 500 else 400
        return JSONResponse({"error": f"{error.code}: {error}"}, status)

    routes = [
        Route("/ping", ping),
        Route("/invocations", invocations, methods=["POST"]),
        Route("/models", list_models),
        Route("/models", load, methods=["POST"]),
        Route("/models/{name}", show),
        Route("/models/{name}", unload, methods=["DELETE"]),
        Route("/models/{name}/invoke", invoke, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={LikenessError: refuse})


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise UsageError(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    return bytes(content)
