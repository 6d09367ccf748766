"""The front over one installation's own library, for `likeness deploy triton`: nothing is exported by hand."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...artifacts.triton.export import write_model
from ...config import PREFIX
from ...service import Likeness
from ...storage.catalog import LOCAL
from .front import Front
from .server import TritonServer
from .sources import LibrarySource


@contextmanager
def local_front(likeness: Likeness, *, most_models: int) -> Iterator[Front]:
    """A tritonserver with the installation's adapters; it and its engine end with the block, and with this process.

    Raises:
        MissingPart: no tritonserver, or no network namespaces.
        HostUnavailable: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="likeness-", ignore_cleanup_errors=True) as name:  # short: sockets
        folder = Path(name)
        server = TritonServer(folder / "t", environment=_environment(likeness, folder / "engines"))
        with Front(server, LibrarySource(likeness.library), most_models=most_models) as front:
            yield front


def write_repository(likeness: Likeness, folder: Path) -> list[Path]:
    """Every adapter as a model in a folder that any Triton takes as its repository. Raises AlreadyExists."""
    records = likeness.catalog.list_adapters(LOCAL)
    return [write_model(likeness.library.at(record), folder / record.name) for record in records]


def _environment(likeness: Likeness, engines: Path) -> dict[str, str]:
    """Of Triton, and so of the thin models and the engine; what this process was told reaches it."""
    settings = likeness.settings
    told = {"HOME": str(settings.home.expanduser().absolute()), "BASE": settings.base, "RANK": str(settings.rank)}
    told |= {"REVISION": settings.revision} if settings.revision else {}
    return {f"{PREFIX}{name}": value for name, value in told.items()} | {
        "ENGINE_FOLDER": str(engines),
        "ENGINE_PYTHON": sys.executable,
        "ENGINE_WATCH_PID": str(os.getpid()),  # a restart of Triton does not cost the engine
    }
