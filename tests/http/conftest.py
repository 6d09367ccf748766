"""One installation with some people, its application, and the same behind a real port of this machine."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from fixtures.published import publish_person
from fixtures.waiting import until
from likeness.config import Settings
from likeness.deploy.extension import protocols
from likeness.http.app import create_app
from likeness.http.server import Bind, server_of
from likeness.service import Likeness, build


@pytest.fixture(scope="module")
def likeness(contrasted_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Likeness]:
    """anna and bert, a stranger of another base, and one whose file is cut off; another tenant has an anna too."""
    installation = build(
        Settings(
            home=tmp_path_factory.mktemp("home"),
            base=str(contrasted_base_folder),
            slots=4,
            max_batch=4,
            upload_mb=4,
            deadline_s=86_400,  # or a busy machine refuses long requests
        )
    )
    for seed, name in enumerate(("anna", "bert", "broken"), 1):
        publish_person(installation, name, seed)
    publish_person(installation, "stranger", 4, foreign=True)
    publish_person(installation, "anna", 5, tenant="other")
    broken = installation.catalog.find_adapter("local", "broken")
    installation.library.objects.put(broken.key, installation.library.objects.get(broken.key)[:-100])
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def app(likeness: Likeness) -> FastAPI:
    return create_app(likeness, protocols=protocols())


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The application on a port of this machine; gives its address."""
    server: uvicorn.Server = server_of(app, Bind(port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with running(app) as found:
        yield found


@pytest.fixture
def fresh(likeness: Likeness) -> Iterator[Likeness]:
    """The same installation with an engine of its own settings to come: a queue of two, one picture at a time."""
    likeness.close()
    small = Likeness(
        replace(likeness.settings, queue_limit=2, max_batch=1), likeness.home, likeness.library, likeness.subjects,
        likeness.sign,
    )  # fmt: skip
    small.__dict__["base"] = likeness.base
    yield small
    small.close()


def pixels(content: bytes) -> np.ndarray:
    """An image file's pixels (H, W, 3), 0..255."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
