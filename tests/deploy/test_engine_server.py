"""The engine's socket and its client, the one in every exported model; the engine returns a picture that it has."""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fixtures.instant_engine import InstantEngine
from fixtures.people import of_another_base, person
from fixtures.tiny import build_tiny_folder
from fixtures.waiting import HANG_S
from likeness.artifacts import bundle
from likeness.deploy.adapter_files import FileEngine
from likeness.deploy.triton.engine_client import EngineAddress, EngineClient, EngineFailed, Header
from likeness.deploy.triton.engine_process import EngineServer
from likeness.diffusion.base import BaseModel, load_base
from likeness.types import JPEG, PNG

PHOTO = Path(__file__).parents[2] / "src" / "likeness" / "assets" / "demo" / "photo_01.jpg"


@dataclass(frozen=True)
class Shelf:
    """Adapters as files, named as in requests."""

    folder: Path
    base: BaseModel

    def put(self, name: str, seed: int, *, is_foreign: bool = False) -> Header:
        adapter = person(self.base, name, seed)
        kept, content = bundle.encode(of_another_base(adapter) if is_foreign else adapter)
        path = self.folder / f"{name}.safetensors"
        path.write_bytes(content)
        return {"path": str(path), "sha256": kept.card.content_sha256}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    folder = tmp_path_factory.mktemp("shelf")
    base = load_base(str(build_tiny_folder(folder / "base")), device=torch.device("cpu"), dtype=torch.float32)
    return Shelf(folder, base)


@pytest.fixture(scope="module")
def engine(shelf: Shelf) -> InstantEngine:
    return InstantEngine(shelf.base.sha256, PHOTO)


@pytest.fixture
def client(shelf: Shelf, engine: InstantEngine) -> Iterator[EngineClient]:
    """A client of a server that listens on a thread of its own."""
    with tempfile.TemporaryDirectory(prefix="lk-") as folder:  # short: a socket lies there
        address = EngineAddress(Path(folder) / "engines", shelf.base.sha256)
        socket = address.file("sock")
        loop, until = asyncio.new_event_loop(), asyncio.Event()
        files = FileEngine(engine, lambda image, media_type: engine.files[media_type])  # type: ignore[arg-type]
        thread = threading.Thread(target=loop.run_until_complete, args=(EngineServer(files).serve(socket, until),))
        thread.start()
        try:
            client = EngineClient(address, ["false"], {})
            while not socket.exists():
                assert thread.is_alive()
            yield client
        finally:
            loop.call_soon_threadsafe(until.set)
            thread.join()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        assert not socket.exists()


def drawn(adapter: Header, gen_args: str = "{}") -> Header:
    return {
        "verb": "generate", "adapter": adapter, "prompt": "a knight", "negative_prompt": "", "gen_args": gen_args,
    }  # fmt: skip


def test_a_picture_comes_back_as_the_file_that_it_is(client: EngineClient, engine: InstantEngine, shelf: Shelf) -> None:
    anna = shelf.put("anna", 1)
    for gen_args, media_type in (("{}", JPEG), ('{"format": "png"}', PNG)):
        said, content = client.ask(drawn(anna, gen_args), HANG_S)
        assert (said["media_type"], content) == (media_type, engine.files[media_type])


def test_refusals_have_a_code_and_the_server_goes_on(client: EngineClient, shelf: Shelf) -> None:
    anna, foreign = shelf.put("anna", 1), shelf.put("foreign", 2, is_foreign=True)
    asked = {
        "UsageError": [
            drawn(anna, "[]"), {**drawn(anna), "prompt": 3}, {"verb": "dance"}, {"verb": "admit", "adapter": "anna"},
        ],
        "CorruptAdapter": [drawn({**anna, "sha256": "0" * 64}), drawn({**anna, "path": str(shelf.folder)})],
        "WrongBase": [{"verb": "admit", "adapter": foreign}],
    }  # fmt: skip
    for code, requests in asked.items():
        for request in requests:
            with pytest.raises(EngineFailed) as refused:
                client.ask(request, HANG_S)
            assert refused.value.code == code
    assert client.ask({"verb": "ping"}, HANG_S)[0]["status"] == "ok"


def test_a_subject_that_the_base_would_not_read_is_refused_and_other_words_are_told(
    client: EngineClient, engine: InstantEngine, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "base", shelf.base)
    anna = shelf.put("anna", 1)
    with pytest.raises(EngineFailed) as refused:
        client.ask({**drawn(anna), "prompt": "snow " * 60 + "{me}"}, HANG_S)
    assert refused.value.code == "PromptTooLong"
    assert client.ask(drawn(anna), HANG_S)[0]["warnings"] == []
    (said,) = client.ask({**drawn(anna), "prompt": "{me}" + " snow" * 60}, HANG_S)[0]["warnings"]
    assert "of the prompt" in said


def test_a_card_is_kept_until_its_model_is_released(client: EngineClient, shelf: Shelf) -> None:
    bert = shelf.put("bert", 3)
    client.ask({"verb": "admit", "adapter": bert}, HANG_S)
    Path(str(bert["path"])).write_bytes(b"damaged")
    assert client.ask(drawn(bert), 10)[1]  # the file is not read for each picture
    client.notify({"verb": "release", "adapter": bert})
    with pytest.raises(EngineFailed) as refused:
        client.ask({"verb": "admit", "adapter": bert}, HANG_S)
    assert refused.value.code == "CorruptAdapter"
