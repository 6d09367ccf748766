"""A container of our own for one GPU: SageMaker's contract, single and multi-model, right over the engine.

    GET /ping                                      200 when the engine is up
    POST /invocations                              the model in /opt/ml/model, or the bare base where there is none
    POST /models {"model_name", "url"}             200, 409 loaded already, 400 no model of ours
    GET /models, GET and DELETE /models/{name}     404 not loaded
    POST /models/{name}/invoke                     as /invocations

No Triton, no second process; what is loaded is a file's name until somebody asks for it. Requests and answers are those
of `http.kserve`. Source: SageMaker Developer Guide, 'Custom containers contract for multi-model endpoints'.
"""

import asyncio
import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...artifacts.adapter import check_base
from ...artifacts.triton.export import CONFIG_NAME, VERSION, WEIGHTS_NAME, read_model
from ...engine.cards import Cards
from ...engine.gen_args import request_of
from ...engine.prompts import unread_of, worded
from ...errors import CorruptAdapter, LikenessError, NotFound, UsageError
from ...http import kserve
from ..archive_engine import Encode

if TYPE_CHECKING:
    from ...engine.engine import Engine

DEADLINE_S = 55.0  # SageMaker gives up after 60
MOST_BYTES = 6 << 20  # of a request, SageMaker's own limit
MODELS, SINGLE = Path("/opt/ml/models"), Path("/opt/ml/model")
_NAME = re.compile(r"[0-9A-Za-z._-]{1,128}")


@dataclass
class Container:
    """One engine and the models that SageMaker has loaded: name -> (url, the engine's key)."""

    engine: "Engine"
    encode: Encode
    models: Path = MODELS
    single: Path = SINGLE
    loaded: dict[str, tuple[str, str]] = field(default_factory=dict)
    cards: Cards = field(default_factory=Cards)

    def load(self, name: str, url: str) -> None:
        """Raises UsageError, NotFound, CorruptAdapter, WrongBase."""
        folder = Path(url)
        if not _NAME.fullmatch(name) or ".." in folder.parts or not folder.is_relative_to(self.models):
            raise UsageError(f"expected a model's name and its folder below {self.models.name}")
        self.loaded[name] = (url, self.key_in(folder))

    def unload(self, name: str) -> None:
        """Raises NotFound."""
        _, key = self.found(name)
        del self.loaded[name]
        self.cards.release(key)
        self.engine.forget(key)

    def found(self, name: str) -> tuple[str, str]:
        """Raises NotFound."""
        if name not in self.loaded:
            raise NotFound("this model is not loaded", code="AdapterNotFound")
        return self.loaded[name]

    def key_in(self, folder: Path) -> str:
        """The engine's key of the one model in a folder, all of it checked. Raises CorruptAdapter, WrongBase."""
        homes = [path.parent for path in folder.glob(f"*/{CONFIG_NAME}")]
        if len(homes) != 1:
            raise CorruptAdapter("expected one model", hint="`likeness export --format triton` makes the archive")
        card = read_model(homes[0]).card
        check_base(card, self.engine.base.sha256)
        return f"{card.content_sha256}{homes[0].absolute() / VERSION / WEIGHTS_NAME}"

    async def portraits(self, key: str | None, body: bytes, content_type: str) -> tuple[bytes, str]:
        """Body and content type of the answer. Raises LikenessError."""
        inference = kserve.read(body, content_type)
        if not {"prompt"} <= inference.inputs.keys() <= {"prompt", "negative_prompt", "gen_args"}:
            raise UsageError("expected the inputs prompt and, if need be, negative_prompt and gen_args")
        card = None if key is None else await asyncio.to_thread(self.cards.of, key)
        asked = []
        for row in range(inference.rows):
            said = {name: texts[row] for name, texts in inference.inputs.items()}
            request, media_type = request_of(said["prompt"], said.get("negative_prompt", ""), said.get("gen_args", ""))
            asked.append((worded(self.engine.base, request, card), media_type))
        tickets = []
        try:
            for request, _ in asked:
                tickets.append(self.engine.submit(request, key=key, tenant=key or "", deadline_s=DEADLINE_S))
            images = [await asyncio.to_thread(ticket.result) for ticket in tickets]
        finally:
            for ticket in tickets:
                ticket.cancel()
        files = [
            await asyncio.to_thread(self.encode, image, media_type)
            for image, (_, media_type) in zip(images, asked, strict=True)
        ]
        columns = {
            "generated_image": [base64.b64encode(file).decode() for file in files],
            "warnings": ["; ".join(unread_of(self.engine.base, request).remarks) for request, _ in asked],
        }
        return kserve.write("likeness", columns, binary=inference.binary_output)


def container_app(container: Container) -> Starlette:
    """The application that SageMaker's platform calls on port 8080."""

    async def ping(request: Request) -> Response:
        return Response()

    async def models(request: Request) -> Response:
        if request.method == "GET":
            listed = [{"modelName": name, "modelUrl": url} for name, (url, _) in sorted(container.loaded.items())]
            return JSONResponse({"models": listed})
        try:
            said = json.loads(await _body(request))
            name, url = str(said["model_name"]), str(said["url"])
        except (ValueError, TypeError, KeyError):
            raise UsageError("expected model_name and url") from None
        if name in container.loaded:
            return JSONResponse({"error": "loaded already"}, 409)
        await asyncio.to_thread(container.load, name, url)
        return Response()

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "DELETE":
            container.unload(name)
            return Response()
        return JSONResponse({"modelName": name, "modelUrl": container.found(name)[0]})

    async def invoke(request: Request) -> Response:
        _, key = container.found(request.path_params["name"])
        return await answered(request, key)

    async def invocations(request: Request) -> Response:
        is_there = container.single.is_dir() and any(container.single.iterdir())
        key = await asyncio.to_thread(container.key_in, container.single) if is_there else None
        return await answered(request, key)

    async def answered(request: Request, key: str | None) -> Response:
        body, content_type = await container.portraits(
            key, await _body(request), request.headers.get("content-type", "")
        )
        return Response(body, headers={"Content-Type": content_type})

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, LikenessError)
        # not 409 for another base: here it means 'loaded already'
        status = error.http_status if error.http_status in (404, 408, 413) or error.http_status >= 500 else 400
        return JSONResponse({"error": f"{error.code}: {error}"}, status)

    routes = [
        Route("/ping", ping),
        Route("/invocations", invocations, methods=["POST"]),
        Route("/models", models, methods=["GET", "POST"]),
        Route("/models/{name}", model, methods=["GET", "DELETE"]),
        Route("/models/{name}/invoke", invoke, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={LikenessError: refused})


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise UsageError(f"expected a body of at most {MOST_BYTES} bytes")
    return bytes(content)
