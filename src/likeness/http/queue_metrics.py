"""The training queue on /metrics, under the names that CloudWatch has for SageMaker's asynchronous endpoints.

So an autoscaler's policy that was written for the reference solution can be kept: the names, what they count and the
label EndpointName are those of the SageMaker Developer Guide, 'Monitor an asynchronous endpoint'.
"""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..errors import StorageError
from ..jobs.queue import Backlog
from ..service.training import Training


class QueueCollector(Collector):
    """Reads the queue's metrics on request; none if the queue does not respond."""

    def __init__(self, training: Training) -> None:
        self._training = training

    def collect(self) -> Iterable[Metric]:
        try:
            backlog = self._training.queue.backlog()
        except StorageError:
            return
        for name, (what, value) in figures(backlog).items():
            family = GaugeMetricFamily(name, what, labels=("EndpointName",))
            family.add_metric((self._training.settings.training_endpoint,), value)
            yield family

    def describe(self) -> Iterable[Metric]:
        return ()  # registration does not query the database


def figures(backlog: Backlog) -> dict[str, tuple[str, float]]:
    """SageMaker's name -> description and current value."""
    counts = backlog.counts
    open_jobs = backlog.open_jobs
    return {
        "ApproximateBacklogSize": ("Queued and running jobs", open_jobs),
        "ApproximateBacklogSizePerInstance": (
            "Queued and running jobs per worker",
            open_jobs / max(backlog.workers, 1),
        ),
        "ApproximateAgeOfOldestRequest": ("Age of the oldest queued job in seconds", backlog.oldest_s),
        "HasBacklogWithoutCapacity": (
            "Whether there are jobs but no workers",
            float(open_jobs > 0 and not backlog.workers),
        ),
        "ExpiredRequests": ("Expired jobs", counts.get("expired", 0)),
        "InvocationFailures": ("Failed jobs", counts.get("failed", 0)),
        "InvocationsProcesssed": ("Succeeded jobs", counts.get("succeeded", 0)),  # spelled as CloudWatch does
        "likeness_workers": ("Live workers", backlog.workers),
    }
