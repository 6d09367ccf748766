"""A real tritonserver on this machine, by default in SageMaker's multi-model mode, in a network namespace of its own.

The binary is that of the wheel nvidia-pytriton. Arguments follow the `serve` of SageMaker's Triton image, except for
shared memory of 1 MiB a model (the default of 16 fills a container's 64 MB with the fifth model) and no metrics. All
files of a run are in one folder.
"""

import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from likeness.errors import MissingPart
from tests.services import isolated_network

PORT = 8080  # in its own network namespace
START_S = 60.0
SHARED_MEMORY = Path("/dev/shm")
_HINT = "pip install nvidia-pytriton; Linux with network namespaces (util-linux' unshare) is needed"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class TritonServer:
    """Runs from `start` to `stop`, and ends with this process in any case.

    Args:
        folder: for sockets, logs and copies; its path must be short, see `engine_client.MAX_SOCKET_PATH_BYTES`.
        environment: in addition to this process's own, for the server and its child processes.
        arguments: instead of those of SageMaker's mode.
        ports: reached from outside through `socket_of`.
    """

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str], arguments: Sequence[str] = (), ports: Sequence[int] = ()
    ) -> None:
        self.folder = folder
        self._environment = dict(environment)
        self._arguments, self._ports = list(arguments), tuple(ports) or (PORT,)
        self._process: subprocess.Popen[bytes] | None = None
        self._prefix = f"likeness-{os.getpid()}-{id(self):x}-"

    def start(self, *, ready: str = "/ping") -> None:
        """Start and wait until `ready` answers 200.

        Raises:
            MissingPart: no tritonserver, or no network namespaces.
            ConnectionError: it ended, or was not ready in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "empty").mkdir(exist_ok=True)
        relays = [word for port in self._ports for word in ("--relay", f"{port}={self.socket_of(port)}")]
        command = [*namespace(), sys.executable, isolated_network.__file__, *relays, "--", *self._command()]
        with (self.folder / "triton.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._whole_environment()
            )
        end_s = time.monotonic() + START_S
        while True:
            try:
                if self.call("GET", ready, timeout_s=1.0).status == 200:
                    return
            except ConnectionError:
                pass
            if not self.is_alive:
                raise ConnectionError(f"tritonserver ended at its start: see triton.log in {self.folder.name}")
            if time.monotonic() > end_s:
                self.stop()
                raise ConnectionError(f"tritonserver was not ready within {START_S:.0f} s")
            time.sleep(0.05)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process in whose network namespace the server runs. Raises ConnectionError."""
        if self._process is None:
            raise ConnectionError("tritonserver was not started")
        return self._process.pid

    def socket_of(self, port: int) -> Path:
        """The Unix socket that a port of the server is relayed to."""
        return self.folder / f"{port}.sock"

    def call(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None,
        timeout_s: float, port: int | None = None,
    ) -> Reply:  # fmt: skip
        """One HTTP request. Raises ConnectionError: no answer."""
        connection = _UnixConnection(self.socket_of(port or self._ports[0]), timeout_s)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheader("Content-Type", ""), answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"expected an answer of tritonserver, got {type(error).__name__}") from error
        finally:
            connection.close()

    def stubs(self) -> dict[int, str]:
        """The server's Python processes: pid -> command line, which has the model's path."""
        found: dict[int, str] = {}
        for pid in _descendants(self._process.pid) if self._process is not None else ():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if "triton_python_backend_stub" in line and state != "Z":
                found[pid] = line
        return found

    def stop(self) -> None:
        """End the server and remove what it leaves in shared memory."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()  # ends it
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()  # the server dies with it
                self._process.wait()
            self._process = None
        for region in SHARED_MEMORY.glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        package = _package()
        backends = self.folder / "backends"
        shutil.rmtree(backends, ignore_errors=True)
        (backends / "python").mkdir(parents=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = package / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
        for file in (*(package / "tritonserver" / "backends" / "python").glob("*.*"), stub):
            (backends / "python" / file.name).symlink_to(file)
        sagemaker = [
            "--allow-sagemaker=true", f"--sagemaker-port={PORT}", "--allow-grpc=false", "--allow-http=false",
            "--allow-metrics=false", "--model-control-mode=explicit", "--model-namespacing=true",
            f"--model-repository={self.folder / 'empty'}",
        ]  # fmt: skip
        return [
            str(package / "tritonserver" / "bin" / "tritonserver"), *(self._arguments or sagemaker),
            f"--backend-directory={backends}", "--exit-timeout-secs=3",
            "--disable-auto-complete-config",  # our config is complete; else each load starts Python twice
            "--backend-config=python,shm-default-byte-size=1048576",
            "--backend-config=python,shm-growth-byte-size=1048576",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
        ]  # fmt: skip

    def _whole_environment(self) -> dict[str, str]:
        libraries = [str(_package().parent / "nvidia_pytriton.libs"), str(Path(sys.base_prefix) / "lib")]
        own = {
            "LD_LIBRARY_PATH": ":".join(libraries),  # the stub embeds this interpreter
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}",  # and finds its packages by `python3`
            "SAGEMAKER_MULTI_MODEL": "true",
            "SAGEMAKER_TRITON_PING_MODE": "live",
        }
        return {**os.environ, **own, **self._environment}


def namespace() -> list[str]:
    """The start of a command that runs the rest in a new network namespace. Raises MissingPart."""
    unshare = shutil.which("unshare")
    ways = [["--net"], ["--map-root-user", "--net"]]
    for way in ways if unshare else ():
        if subprocess.run([str(unshare), *way, "true"], capture_output=True).returncode == 0:
            return [str(unshare), *way]
    raise MissingPart("a network namespace cannot be made here, and tritonserver binds every interface", hint=_HINT)


def is_installed() -> bool:
    """Whether there is a tritonserver for this interpreter."""
    try:
        _package()
    except MissingPart:
        return False
    return True


def _package() -> Path:
    found = importlib.util.find_spec("pytriton")  # found, not imported: only its files are wanted
    if found is None or not found.submodule_search_locations:
        raise MissingPart("tritonserver is not installed", hint=_HINT)
    return Path(found.submodule_search_locations[0])


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(one for child in children for one in _descendants(child))]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
