"""Common parts of the applications in a Serve config file: `args`, the drain time of a replica, logs."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ray.serve.schema import LoggingConfig

from ...errors import UsageError

DRAIN_S = 150.0  # longer than the deadline of an image and than a worker's checkpoints; then a replica is killed
LOGS = LoggingConfig(enable_access_log=False)  # its lines have paths; the boundary's have routes

T = TypeVar("T")


def options_of(kind: type[T], args: Mapping[str, Any]) -> T:
    """The options, a dataclass, with these values. Raises UsageError: an unknown option."""
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    unknown = sorted(set(args) - set(known))
    if unknown:
        raise UsageError(
            f"expected options of the application only, got {len(unknown)} others", hint=f"known: {', '.join(known)}"
        )
    return kind(**args)
