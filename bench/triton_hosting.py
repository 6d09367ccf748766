"""Set-up of bench.triton: a real tritonserver with exported adapters and other models, and its memory."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil
import torch

from fixtures.hosting import LIMIT_S, Endpoint
from fixtures.triton_server import Reply, TritonServer
from likeness.artifacts.triton_model import CONFIG_NAME, VERSION
from likeness.deploy.triton.engine_client import EngineAddress, EngineClient
from likeness.deploy.triton.export import archive
from likeness.diffusion.base import load_base, locate
from likeness.storage.objects import FileObjects
from likeness.training.recipe import recipe_named
from recipes.measurement import Row

from .adapters import AdapterFiles, write_adapters
from .random_base import RANDOM, build_random_base


@dataclass(frozen=True)
class Hosted:
    """One tritonserver in SageMaker's mode, and the engine that its models start."""

    server: TritonServer
    endpoint: Endpoint
    engine: EngineClient

    def facts(self) -> Mapping[str, int]:
        """The engine's status. Raises EngineFailed: no response."""
        facts, _ = self.engine.ask({"verb": "ping"}, 5.0)
        return {name: int(facts[name]) for name in ("pid", "waiting", "running", "slots_held")}

    def load(self, name: str) -> None:
        well(name, self.endpoint.load(name))

    def unload(self, name: str) -> None:
        well(name, self.endpoint.unload(name))


@dataclass(frozen=True)
class Stage:
    """A base, archives of adapters, and a folder for servers."""

    folder: Path
    base: str  # as in LIKENESS_BASE
    base_sha256: str
    files: AdapterFiles
    archives: FileObjects
    threads: int

    @property
    def base_folder(self) -> Path:
        return locate(self.base)

    def address(self, name: str) -> EngineAddress:
        return EngineAddress(self.folder / f"{name}-engines", self.base_sha256)

    @contextmanager
    def hosted(self, name: str, *, slots: int) -> Iterator[Hosted]:
        """A server of its own, whose engine ends with it."""
        address = self.address(name)
        settings = {
            "ENGINE_FOLDER": str(address.folder), "ENGINE_PYTHON": sys.executable,
            "LIKENESS_HOME": str(self.folder / "home"), "LIKENESS_BASE": self.base, "LIKENESS_SLOTS": str(slots),
            "LIKENESS_RANK": str(recipe_named("standard").rank), "PEER_BASE": str(self.base_folder),
            "OMP_NUM_THREADS": str(self.threads), "ENGINE_DEADLINE_S": str(LIMIT_S - 10),
        }  # fmt: skip
        server = TritonServer(self.folder / name, environment=settings)
        server.start()
        try:
            yield Hosted(server, Endpoint(server, self.archives), EngineClient(address, ["false"], {}, start_s=5.0))
        finally:
            server.stop()


@contextmanager
def stage_of(base: str, *, people: int, threads: int) -> Iterator[Stage]:
    """`people` random adapters of the standard recipe's size: a0, a1, ..."""
    with tempfile.TemporaryDirectory(
        prefix="lk-", ignore_cleanup_errors=True
    ) as name:  # a short path, because it contains sockets
        folder = Path(name)
        if base == RANDOM:
            base = str(build_random_base(folder / "base"))
        loaded = load_base(base, device=torch.device("cpu"), dtype=torch.float32)
        files = write_adapters(loaded, folder / "adapters", people, rank=recipe_named("standard").rank)
        archives = FileObjects(folder / "archives")
        for key in files.keys:
            adapter = files.load(key)
            archives.put(f"{adapter.card.name}.tar.gz", archive(adapter))
        yield Stage(folder, base, loaded.sha256, files, archives, threads)


class OtherModel:
    """Another model, in addition to or instead of our models.

    Args:
        code: the file of this folder that becomes `model.py`.
        files: further files of the model.
    """

    def __init__(self, hosted: Hosted, name: str, code: str, *, files: Mapping[str, bytes]) -> None:
        self._endpoint, self._name = hosted.endpoint, name
        self._url = hosted.server.folder / "others" / name / "model"
        version = self._url / name / VERSION
        version.mkdir(parents=True)
        config = resources.files("likeness.deploy.triton") / CONFIG_NAME
        (self._url / name / CONFIG_NAME).write_text(config.read_text())
        shutil.copy(Path(__file__).with_name(code), version / "model.py")
        for file, content in files.items():
            (version / file).write_bytes(content)

    def load(self) -> None:
        body = json.dumps({"model_name": self._name, "url": str(self._url)}).encode()
        well(self._name, self._endpoint.call("POST", self._name, "", body))

    def ask(self, body: bytes) -> Reply:
        return well(self._name, self._endpoint.invoke(self._name, body))

    def unload(self) -> None:
        well(self._name, self._endpoint.call("DELETE", self._name, f"/{self._name}"))


def well(name: str, reply: Reply) -> Reply:
    """The reply, if it is a success; else the bench ends."""
    if reply.status != 200:
        sys.exit(f"expected 200 of {name}, got {reply.status}: {reply.text[:500]}")
    return reply


def memory_mb(server: TritonServer, engine_pid: int | None = None) -> Row:
    """Memory of all processes of the server: private memory of each, and shared file pages once.

    PSS is in the table too, but is not the result: it shrinks when another process of the machine maps the same
    libraries, as this process does. Source: proc(5), smaps.
    """
    time.sleep(1.0)  # what was freed just now is given back
    kinds = {one.pid: "tritonserver" for one in psutil.Process(server.pid).children(recursive=True)}
    kinds |= dict.fromkeys(server.stubs(), "stubs")
    if engine_pid is not None:
        kinds[engine_pid] = "engine"  # a child of the stub that started it, or an orphan
    alone, files, pss = dict.fromkeys(("tritonserver", "stubs", "engine"), 0), dict[str, int](), 0
    for pid, kind in kinds.items():
        for place, sizes in _areas(pid):
            alone[kind] += sizes["Anonymous"]
            files[place] = max(files.get(place, 0), sizes["Rss"] - sizes["Anonymous"])
            pss += sizes["Pss"]
    parts = {**alone, "files": sum(files.values())}
    mb = {f"MB {what}": size / 1e6 for what, size in parts.items()}
    return {"MB": sum(mb.values()), **mb, "MB PSS": pss / 1e6}


def _areas(pid: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Mappings of a process: file and offset, and bytes by kind."""
    place, sizes = "", dict[str, int]()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # ADDRESSES PERMISSIONS OFFSET DEVICE INODE [PATH]
            place, sizes = " ".join(words[1:]), {}
        elif words[0] in ("Rss:", "Pss:", "Anonymous:"):
            sizes[words[0][:-1]] = int(words[1]) << 10
        elif words[0] == "VmFlags:":  # the last line of each
            yield place, sizes
