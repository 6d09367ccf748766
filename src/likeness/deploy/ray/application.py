"""The Serve application: `likeness.deploy.ray.application:application`, for `serve.run` and for a Serve config file.

One ingress process has the HTTP application, and with it the rate and concurrency limits of all keys, and the router
with its loads. It has the base without its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from ...config import Settings
from ...errors import SettingsError
from ...service import build
from .options import DRAIN_S, LOGS, options_of
from .remote_engine import RemoteEngine
from .replica import EngineReplica, settings_at, stay_on_loopback

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ...diffusion.base import BaseModel

NAME = "likeness"
ROUTER = "likeness.deploy.ray.router:AffinityRouter"


@dataclass(frozen=True)
class ClusterOptions:
    """`args` of the application in a Serve config file.

    Args:
        home: of the installation on every node; LIKENESS_HOME by default.
        replicas: with an engine each; the least number when `most_replicas` is above it.
        most_replicas: up to which the number follows the load.
        devices: of the node that a replica occupies, GPUs; 0: the CPU.
        threads: of a replica on the CPU.
        needs_keys: whether requests without an API key are refused.
    """

    home: str | None = None
    replicas: int = 1
    most_replicas: int | None = None
    devices: float = 0
    threads: int = 1
    needs_keys: bool = True


def application(args: Mapping[str, object]) -> Application:
    """The application with `ClusterOptions`. Raises UsageError: an unknown option; SettingsError."""
    options = options_of(ClusterOptions, args)
    return Ingress.bind(  # type: ignore[attr-defined]
        replicas(options), options.home, options.needs_keys
    )


def replicas(options: ClusterOptions, *, router: str = ROUTER) -> Application:
    """The deployment of the engines alone.

    Args:
        router: path of a request router's class.
    """
    settings = settings_at(options.home)
    the_router: Any = router  # wrongly annotated in Ray 2.60
    if options.replicas < 1 or (options.most_replicas or options.replicas) < options.replicas:
        raise SettingsError(
            f"expected replicas of at least 1 and most_replicas of at least replicas, got {options.replicas} and "
            f"{options.most_replicas}"
        )
    follows = options.most_replicas is not None and options.most_replicas > options.replicas
    scaling = AutoscalingConfig(
        min_replicas=options.replicas, max_replicas=options.most_replicas or options.replicas,
        target_ongoing_requests=settings.max_batch,
        policy=AutoscalingPolicy(policy_function="likeness.deploy.ray.router:follow_load"),
    )  # fmt: skip
    return EngineReplica.options(  # type: ignore[attr-defined]
        num_replicas=None if follows else options.replicas,
        autoscaling_config=scaling if follows else None,
        ray_actor_options={"num_cpus": options.threads, "num_gpus": options.devices},
        max_ongoing_requests=2 * (settings.queue_limit + settings.max_batch),  # so that the engine is what refuses
        request_router_config=RequestRouterConfig(request_router_class=the_router),
        graceful_shutdown_wait_loop_s=0.5, graceful_shutdown_timeout_s=DRAIN_S,
        health_check_period_s=1.0, health_check_timeout_s=30.0,
        logging_config=LOGS,
    ).bind(options.home)  # fmt: skip


@serve.deployment(
    max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.5}, graceful_shutdown_timeout_s=DRAIN_S,
    logging_config=LOGS,
)  # fmt: skip
@serve.ingress()
class Ingress:
    """The process with the HTTP application. None of its arguments changes with the replicas: that would restart it."""

    def __init__(self, engines: DeploymentHandle, home: str | None, needs_keys: bool) -> None:
        stay_on_loopback()
        self._engines, self._home, self._needs_keys = engines, home, needs_keys

    def __serve_build_asgi_app__(self) -> "Starlette":
        """Called by Serve after the constructor."""
        from ...http.app import create_app
        from ...http.logs import log_to_stderr
        from ..extension import EXTENSION

        settings = settings_at(self._home)
        engine = RemoteEngine(base_without_weights(settings), self._engines, deadline_s=settings.deadline_s)
        likeness = build(settings, EXTENSION.formats, engine=engine)
        _ = likeness.training.queue  # opened for the chores of the server: there may be no worker that does them
        log_to_stderr()
        return create_app(likeness, needs_keys=self._needs_keys, protocols=EXTENSION.protocols())


def base_without_weights(settings: Settings) -> "BaseModel":
    """The base with its tokenizer and hash, and fake tensors. Raises NotFound, CorruptBase."""
    import torch

    from ...diffusion.base import fake_base, outline_of, silence_libraries

    silence_libraries()
    fake = fake_base(settings.base, settings.revision, device=torch.device("cpu"), dtype=torch.float32)
    return replace(fake, sha256=outline_of(settings.base, settings.revision).sha256)
