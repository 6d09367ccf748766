"""What this package adds to the command line and the HTTP server: see `commands.group.Extension`."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..artifacts.exporting import FORMATS
from ..commands.group import Extension
from ..config import Settings
from .triton.export import TRITON

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from ..http.wire_protocol import WireProtocol


def protocols() -> "tuple[WireProtocol, ...]":
    """SageMaker's runtime protocol, with KServe's as its payload."""
    from ..http.wire_protocol import WireProtocol
    from .sagemaker import runtime, runtime_async
    from .sagemaker.protocol import MAX_BODY_BYTES, PREFIX, failure

    return (WireProtocol(PREFIX, (runtime.router, runtime_async.router), failure, MAX_BODY_BYTES),)


def container(settings: Settings) -> "AbstractContextManager[Starlette]":
    """The application of a SageMaker container."""
    from .sagemaker.container import sagemaker_container

    return sagemaker_container(settings)


EXTENSION = Extension({**FORMATS, "triton": TRITON}, protocols, container)
