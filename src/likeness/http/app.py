"""The application: routers of all protocols, one boundary around them, errors in each protocol's format.

/v1 and /openai/v1 are always served; further protocols come from the composition root (`cli`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..errors import LikenessError, UsageError
from ..service import Likeness
from ..storage.files import file_failed
from ..worker.chores import Chore
from . import backups, coaching, example, gallery, images, job_routes, metrics, openai, operator, rest, session, web
from .auth import Access, KeyLimits
from .boundary import BodyLimits, Boundary
from .failures import SHAPES, NoSuchRoute, failure
from .invalid import invalid
from .origins import Origins
from .queue_metrics import QueueCollector
from .wire_protocol import WireProtocol

TEND_EVERY_S = 2.0
DROP_STALE_EVERY_S = 20.0  # within this time, adapters deleted by other processes leave the memory
SWEEP_EVERY_S = 3600.0
THREADS = 32  # for blocking calls
ROUTERS = (
    web.router, session.router, rest.router, example.router, coaching.router, gallery.router, images.router,
    job_routes.router, backups.router, operator.router, openai.router,
)  # fmt: skip

Answer = Callable[[Request], Awaitable[Response]]


def create_app(likeness: Likeness, *, needs_keys: bool = False, protocols: Sequence[WireProtocol] = ()) -> FastAPI:
    """The application for one installation.

    Args:
        needs_keys: whether requests without an API key are refused. If not, requests to other host names and from pages
            of other sites are refused.
        protocols: served beside /v1 and /openai/v1.

    Raises:
        SettingsError: invalid host_names or cors_origins.
    """
    settings = likeness.settings
    origins = Origins.of(settings, needs_keys=needs_keys)
    traffic = metrics.Traffic(likeness.engine_facts)
    training = likeness.training
    traffic.registry.register(QueueCollector(training))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The event loop's default pool has few threads, and threads waiting for the catalog would fill it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="likeness-http"))
        await asyncio.to_thread(lambda: likeness.engine)  # so that the first request does not wait for the base
        works = {
            "expire jobs": (training.expire, TEND_EVERY_S), "deliver messages": (training.deliver, TEND_EVERY_S),
            "purge photographs": (training.purge, TEND_EVERY_S),
            "resume deletions": (likeness.forgetting.resume, TEND_EVERY_S),
            "drop stale adapters": (likeness.drop_stale_adapters, DROP_STALE_EVERY_S),
            "keep reserve": (likeness.reserve.keep, DROP_STALE_EVERY_S),
            "sweep": (likeness.forgetting.sweep, SWEEP_EVERY_S),
        }  # fmt: skip
        chores = {
            name: Chore(name, work, every_s=every_s, failed=traffic.chore_failed)
            for name, (work, every_s) in works.items()
        }
        await asyncio.to_thread(chores["sweep"].run)  # before the first request
        tending = [asyncio.create_task(_again_and_again(chore)) for chore in chores.values()]
        yield
        for task in tending:
            task.cancel()

    app = FastAPI(
        title="Likeness", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Portraits of you from any prompt, trained on about ten photographs.",
    )  # fmt: skip
    app.state.likeness, app.state.training = likeness, training
    app.state.shapes = shapes = SHAPES | {protocol.prefix: protocol.failure for protocol in protocols}
    # One upload at a time uses memory and a thread; others wait in temporary files without blocking other requests.
    app.state.uploads = asyncio.Semaphore(1)
    app.state.extractions = asyncio.Semaphore(1)  # minutes for a large base, in which other uploads do not wait
    app.state.comparisons = asyncio.Semaphore(1)  # of images with photographs
    app.state.coach, app.state.needs_keys = coaching.Coach(), needs_keys
    app.state.failed_requests = failed_requests = operator.FailedRequests()
    app.state.access = access = Access(
        likeness.catalog, needs_keys=needs_keys,
        limits=KeyLimits(settings.requests_per_minute, settings.concurrent_requests),
    )  # fmt: skip
    app.add_middleware(
        Boundary,
        access=access,
        traffic=traffic, failed_requests=failed_requests, shapes=shapes, origins=None if needs_keys else origins,
        limits=BodyLimits(
            upload_bytes=settings.upload_mb << 20,
            by_prefix={protocol.prefix: protocol.body_bytes for protocol in protocols},
        ),
    )  # fmt: skip
    if origins.pages:  # outermost, because preflights have no key and pages must be able to read error responses
        app.add_middleware(
            CORSMiddleware, allow_origins=origins.pages, allow_headers=["*"],
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            expose_headers=["X-Request-Id", "X-Image-Id", "Retry-After"],
        )  # fmt: skip
    app.add_exception_handler(LikenessError, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    for router in (*ROUTERS, *(router for protocol in protocols for router in protocol.routers)):
        app.include_router(router)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """Health check; answers when the base is loaded."""
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def read_metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(await asyncio.to_thread(traffic.text), media_type=metrics.MEDIA_TYPE)

    return app


async def _again_and_again(chore: Chore) -> None:
    while True:
        await asyncio.sleep(chore.wait_s)
        await asyncio.to_thread(chore.run)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, LikenessError)
    return failure(error, request.url.path, request.state.request_id, request.app.state.shapes).response()


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]  # without 'body', 'query', ...
    return await _refusal(request, invalid(errors, hint="/openapi.json describes the request"))


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 of the router; a body that cannot be parsed at all is a 400 of FastAPI's."""
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        return await _refusal(request, NoSuchRoute(error.status_code))
    if isinstance(error.__cause__, OSError):  # the disk is full
        return await _refusal(request, file_failed(error.__cause__))
    return await _refusal(request, UsageError("expected a readable body: JSON, or a multipart form"))
