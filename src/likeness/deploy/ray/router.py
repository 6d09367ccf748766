"""Ray Serve's request router with the decisions of `deploy.affinity`.

The router is in the process that has the handle, here the ingress, and counts the requests that this process sends.
An image is one request, so the load of a replica is its number of unfinished requests. Source: Ray 2.60, 'Use custom
algorithm for request routing' (alpha).
"""

import asyncio
from collections import Counter
from typing import Any

from ray.serve.config import AutoscalingContext
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ..affinity import Ring, choose, place, ring_of, wanted_replicas
from .messages import QUEUE_S


class AffinityRouter(RequestRouter):
    """Sends a request to the replica that `affinity.choose` names for its first argument, the routing key."""

    def initialize_state(self, **kwargs: Any) -> None:
        self._ring = ring_of(())
        self._loads: Counter[ReplicaID] = Counter()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The chosen replica, then the others clockwise, for the case that it does not answer."""
        await asyncio.sleep(0)  # requests that were placed just before are sent, and so counted, first
        replicas = {one.replica_id.unique_id: one for one in candidate_replicas}
        if self._ring.names != tuple(sorted(replicas)):
            self._ring = ring_of(replicas, before=self._ring)
        loads = {name: self._loads[one.replica_id] for name, one in replicas.items()}
        return [[replicas[name]] for name in preferred(self._ring, _key_of(pending_request), loads)]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._loads[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        self._loads[replica_id] -= 1
        if self._loads[replica_id] <= 0:
            del self._loads[replica_id]


def preferred(ring: Ring, key: str, loads: dict[str, int]) -> list[str]:
    """All replicas, the one that should answer first. An empty key is the bare base."""
    first = choose(ring, place(key) if key else None, loads, sum(loads.values()))
    others = [name for name in ring.clockwise(place(key)) if name != first]
    return others if first is None else [first, *others]


def follow_load(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Serve's autoscaling policy: `affinity.wanted_replicas` for the images that wait or are in the making.

    The waiting time is ignored while replicas are starting, because they will take a part of the images.
    """
    config = context.config
    assert config is not None and config.target_ongoing_requests is not None
    waits = (context.aggregated_metrics or {}).get(QUEUE_S, {}).values()
    is_complete = context.current_num_replicas >= context.target_num_replicas
    wanted = wanted_replicas(
        context.total_num_requests, context.target_num_replicas, target=config.target_ongoing_requests,
        least=context.capacity_adjusted_min_replicas, most=context.capacity_adjusted_max_replicas,
        queue_s=sum(waits) / len(waits) if waits and is_complete else 0.0,
    )  # fmt: skip
    return wanted, {}


def _key_of(pending: PendingRequest | None) -> str:
    return str(pending.args[0]) if pending is not None and pending.args else ""
