"""An engine that draws nothing: the product's own socket server and protocol, around a picture that is there already.

python -m bench.instant_engine SOCKET BASE_SHA256 PICTURE

What is left of a request is its way there and back. For bench.triton.
"""

import asyncio
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from likeness.deploy.adapter_files import FileEngine
from likeness.deploy.triton.engine_process import EngineServer
from likeness.engine.facts import ROWS, Buckets
from likeness.engine.ticket import Ticket
from likeness.service.image_files import encode
from likeness.types import JPEG, PNG, GeneratedImage, ImageRequest

SIDE_PX = 512


class InstantEngine:
    """As much of an engine as an EngineServer uses."""

    def __init__(self, base_sha256: str, picture: Path) -> None:
        self.base = SimpleNamespace(
            sha256=base_sha256, unread=lambda prompt: "", says=lambda text, words: words in text
        )
        pixels = np.asarray(Image.open(picture).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))
        self._image = GeneratedImage(ImageRequest("a portrait"), pixels, base_sha256, None, 0.0)
        self.files = {media_type: encode(self._image, media_type) for media_type in (JPEG, PNG)}

    def submit(self, request: ImageRequest, *, key: str | None, tenant: str, deadline_s: float | None) -> Ticket:
        ticket = Ticket("instant", lambda: None)
        ticket.start()
        ticket.resolve(self._image)
        return ticket

    def forget(self, key: str) -> None:
        pass

    def facts(self) -> SimpleNamespace:
        return SimpleNamespace(waiting=0, running=0, slots_held=0, rows_per_step=Buckets(ROWS).snapshot())


async def serve(engine: InstantEngine, socket: Path) -> None:
    until = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, until.set)
    files = FileEngine(engine, lambda image, media_type: engine.files[media_type])  # type: ignore[arg-type]
    await EngineServer(files).serve(socket, until)


if __name__ == "__main__":
    path, sha256, picture = sys.argv[1:]
    asyncio.run(serve(InstantEngine(sha256, Path(picture)), Path(path)))
