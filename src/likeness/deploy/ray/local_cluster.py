"""Ray on this machine alone: every port on loopback, no dashboard, no usage statistics, files below the home folder."""

import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...commands.group import Call
from ...commands.terminal import interruptible
from ...errors import EngineClosed, MissingPart, SettingsError
from ...http.server import Bind, listening, url_of
from ...storage.files import make_private
from ...storage.scratch import scratch

FOLDER = "ray"  # in the home folder
HOST = "127.0.0.1"
MOST_PATH = 42  # characters of the folder: Ray appends some 60 for its sockets, and 107 are allowed (unix(7), sun_path)
SHARED_MB = 256  # of images on their way; Ray's smallest is 75
LOOK_S = 0.5
# Ray reads them when it is imported; its processes inherit them.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # so that other users of this machine cannot call the cluster
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else the node has the machine's address on the network, on Linux
}


def serve_here(call: Call, *, replicas: int, most_replicas: int, port: int, needs_keys: bool, workers: int) -> None:
    """`likeness deploy ray`: run until SIGINT or SIGTERM, then finish running requests. Main thread only.

    Args:
        workers: the most training workers; 0: none.

    Raises:
        SettingsError, MissingPart: see `local_cluster`; fewer `most_replicas` than `replicas`.
        StorageError: the port is in use.
        NotFound, CorruptBase: the base cannot be found.
        EngineClosed: the replicas did not start.
    """
    if most_replicas < replicas:
        raise SettingsError("expected --most-replicas to be at least --replicas")
    with listening(Bind(HOST, port)) as sockets:  # closed again for Serve's proxy
        url = url_of(Bind(HOST, port), sockets)
    likeness = call.likeness()
    _ = likeness.outline
    root = likeness.home.root
    gpus = _gpus()
    threads = max(1, (os.cpu_count() or 1) // most_replicas)
    engine_share, worker_share = device_shares(gpus, most_replicas, workers)
    args = {
        "home": str(root), "replicas": replicas, "most_replicas": most_replicas, "threads": threads,
        "devices": engine_share, "needs_keys": needs_keys,
    }  # fmt: skip
    training_args = {"home": str(root), "workers": workers, "threads": threads, "devices": worker_share}
    with (
        scratch(root),
        local_cluster(root / FOLDER, cpus=threads * (most_replicas + workers) + 1, gpus=gpus, port=port),
        interruptible() as should_stop,  # Ray has handlers of its own before
    ):
        from ray import serve

        from .application import NAME, application
        from .training import TRAINING_NAME, training

        try:
            serve.run(application(args), name=NAME, route_prefix="/")
            if workers:
                serve.run(training(training_args), name=TRAINING_NAME, route_prefix=None)
        except RuntimeError as error:
            raise EngineClosed(
                "expected all replicas to start, got an error from one",
                hint=f"see the logs in {FOLDER}/session_latest/logs/serve of the home folder",
            ) from error
        call.terminal.serving(url)
        while not should_stop():
            time.sleep(LOOK_S)


def device_shares(gpus: int, replicas: int, workers: int) -> tuple[float, float]:
    """The shares of one GPU that a replica and a training worker occupy in Ray's accounting, so that all of them fit.

    Ray divides no memory and no time: see `LIKENESS_TRAINING_MEMORY` and `LIKENESS_TRAINING_WAIT_S`.
    """
    if not gpus:
        return 0.0, 0.0
    for_workers = 0.2 if workers else 0.0
    on_one, workers_on_one = (max(1, -(-count // gpus)) for count in (replicas, workers))
    return (1.0 - for_workers) * 1000 // on_one / 1000, for_workers * 1000 // workers_on_one / 1000


@contextmanager
def local_cluster(folder: Path, *, cpus: int, gpus: int, port: int) -> Iterator[None]:
    """Start Ray, and Serve with its proxy on `port`; stop both at the end, after running requests.

    Args:
        folder: for sockets and logs.
        cpus, gpus: that replicas can occupy; the number of CPUs is nominal.

    Raises:
        MissingPart: Ray is not installed.
        SettingsError: the folder's path is too long for sockets.
    """
    if len(str(folder)) > MOST_PATH:
        raise SettingsError(
            f"expected a folder for sockets of at most {MOST_PATH} characters, got {len(str(folder))}",
            hint="choose a home folder with a shorter path",
        )
    set_environment()
    try:
        import ray
        from ray import serve
    except ImportError:
        raise MissingPart("expected Ray, which is not installed", hint="pip install 'likeness[ray]'") from None
    from .options import LOGS

    make_private(folder)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, _node_ip_address=HOST,
        _temp_dir=str(folder), object_store_memory=SHARED_MB << 20, log_to_driver=False,
        logging_level=logging.WARNING,
    )  # fmt: skip
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": port}, logging_config=LOGS)
        yield
        serve.shutdown()  # after an error, the end of Ray ends Serve
    finally:
        ray.shutdown()


def set_environment() -> None:
    """Set Ray's variables for this process and its children; before Ray is imported, which reads them once."""
    if "RAY_AUTH_TOKEN" not in os.environ:
        assert "ray" not in sys.modules, "expected this call before Ray is imported"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ |= _ENVIRONMENT


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
