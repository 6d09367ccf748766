"""Messages between the ingress and a replica, pickled by Ray; images lie in Ray's shared memory.

The ingress sends one `Call` per image. The replica answers with ACCEPTED or an error; then with STARTED, a `StepEvent`
for each step if the call asks for them, and the image or an error.
"""

from dataclasses import dataclass
from enum import Enum

from ...engine.facts import EngineFacts
from ...engine.ticket import StepEvent
from ...types import Blend, GeneratedImage, ImageRequest

QUEUE_S = "queue_s"  # what a replica reports for autoscaling: seconds that images waited before they joined a batch


class Stage(Enum):
    """What happened to a call that is not finished."""

    ACCEPTED = "accepted"  # it is in the engine's queue
    STARTED = "started"  # the device is about to work on it


@dataclass(frozen=True)
class Call:
    """The arguments of `Engine.submit`."""

    request: ImageRequest
    adapters: Blend
    tenant: str
    deadline_s: float | None  # from now, on the reader's clock
    with_steps: bool
    preview_every: int
    request_id: str | None

    @property
    def routing_key(self) -> str:
        """The key of the first adapter, by which the router chooses; empty: the bare base."""
        return self.adapters[0].name if self.adapters else ""


News = Stage | StepEvent | GeneratedImage | Exception


# A result of over 100 kB goes through Ray's object store. In Ray 2.60 a process that asks for such results can end with
# 'Check failed: ObjectUnknownOwner' (docs/log.md), so a replica sends its keys in parts.
KEYS_OF_A_STATE = 300


@dataclass(frozen=True)
class ReplicaState:
    """One replica, now."""

    process_id: int
    held: tuple[str, ...]  # the requested keys of adapters in memory, sorted, at most `KEYS_OF_A_STATE`
    facts: EngineFacts
