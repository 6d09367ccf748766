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

from likeness.artifacts.triton.engine_client import EngineClient, EnginePlace
from likeness.artifacts.triton.export import CONFIG_NAME, VERSION, artifact
from likeness.deploy.triton.front import Front
from likeness.deploy.triton.protocol import TARGET
from likeness.deploy.triton.server import Reply, TritonServer
from likeness.deploy.triton.sources import ArchiveSource
from likeness.diffusion.base import load_base, locate
from likeness.storage.objects import FileObjects
from likeness.training.recipe import recipe_named

from .adapters import AdapterFiles, write_adapters
from .random_base import RANDOM, build_random_base
from .report import Row

JSON = "application/json"
LIMIT_S = 360.0  # per request; long, so that a busy machine still gives a result


@dataclass(frozen=True)
class Hosted:
    """One tritonserver behind a front, and the engine that its models start."""

    server: TritonServer
    front: Front
    engine: EngineClient

    def facts(self) -> Mapping[str, int]:
        """The engine's status. Raises EngineFailed: no response."""
        facts, _ = self.engine.ask({"verb": "ping"}, 5.0)
        return {name: int(facts[name]) for name in ("pid", "waiting", "running", "slots_held")}

    def load(self, name: str) -> None:
        self.front.load(f"{name}.tar.gz")

    def unload(self, name: str) -> None:
        self.front.unload(f"{name}.tar.gz")

    def ask(self, name: str, body: bytes) -> Reply:
        return self.front.invoke(f"{name}.tar.gz", body, content_type=JSON)


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

    def place(self, name: str) -> EnginePlace:
        return EnginePlace(self.folder / f"{name}-engines", self.base_sha256)

    @contextmanager
    def hosted(self, name: str, *, slots: int) -> Iterator[Hosted]:
        """A new server, whose engine ends with it."""
        place = self.place(name)
        settings = {
            "ENGINE_FOLDER": str(place.folder), "ENGINE_PYTHON": sys.executable,
            "LIKENESS_HOME": str(self.folder / "home"), "LIKENESS_BASE": self.base, "LIKENESS_SLOTS": str(slots),
            "LIKENESS_RANK": str(recipe_named("standard").rank), "PEER_BASE": str(self.base_folder),
            "OMP_NUM_THREADS": str(self.threads), "ENGINE_DEADLINE_S": str(LIMIT_S - 10),
        }  # fmt: skip
        server = TritonServer(self.folder / name, environment=settings)
        with Front(server, ArchiveSource(self.archives), invoke_s=LIMIT_S, check_s=0) as front:
            yield Hosted(server, front, EngineClient(place, ["false"], {}, start_s=5.0))


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
            archives.put(f"{adapter.card.name}.tar.gz", artifact(adapter))
        yield Stage(folder, base, loaded.sha256, files, archives, threads)


class OtherModel:
    """Another model, in addition to or instead of our models.

    Args:
        code: the file of this folder that becomes `model.py`.
        files: further files of the model.
    """

    def __init__(self, server: TritonServer, name: str, code: str, *, files: Mapping[str, bytes]) -> None:
        self._server, self._name = server, name
        self._url = server.folder / "others" / name / "model"
        version = self._url / name / VERSION
        version.mkdir(parents=True)
        config = resources.files("likeness.artifacts.triton") / CONFIG_NAME
        (self._url / name / CONFIG_NAME).write_text(config.read_text())
        shutil.copy(Path(__file__).with_name(code), version / "model.py")
        for file, content in files.items():
            (version / file).write_bytes(content)

    def load(self) -> None:
        body = json.dumps({"model_name": self._name, "url": str(self._url)}).encode()
        self._call("POST", "/models", body)

    def ask(self, body: bytes) -> Reply:
        return self._call("POST", f"/models/{self._name}/invoke", body)

    def unload(self) -> None:
        self._call("DELETE", f"/models/{self._name}")

    def _call(self, method: str, path: str, body: bytes = b"") -> Reply:
        headers = {"Content-Type": JSON, TARGET: self._name}
        reply = self._server.call(method, path, body=body, headers=headers, timeout_s=LIMIT_S)
        if reply.status != 200:
            sys.exit(f"expected 200 of {self._name}, got {reply.status}: {reply.text[:500]}")
        return reply


def memory_mb(server: TritonServer, engine_pid: int | None = None) -> Row:
    """Memory of all processes of the server: private memory of each, and shared file pages once.

    PSS is in the table too, but is not the result: it shrinks when another process of the machine maps the same
    libraries, as this process does. Source: proc(5), smaps.
    """
    time.sleep(1.0)  # time to return freed memory
    kinds = {one.pid: "tritonserver" for one in psutil.Process(server.guard_pid).children(recursive=True)}
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
