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
    """Asks the queue when it is asked; a queue that does not answer says nothing."""

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
        return ()  # registering asks nobody


def figures(backlog: Backlog) -> dict[str, tuple[str, float]]:
    """SageMaker's name -> what it is, and its value now."""
    counts = backlog.counts
    open_jobs = counts.get("queued", 0) + counts.get("running", 0)
    return {
        "ApproximateBacklogSize": ("Jobs that wait or run", open_jobs),
        "ApproximateBacklogSizePerInstance": ("The same for each worker", open_jobs / max(backlog.workers, 1)),
        "ApproximateAgeOfOldestRequest": ("Seconds that the oldest waiting job has waited", backlog.oldest_s),
        "HasBacklogWithoutCapacity": ("Jobs are there and no worker is", float(open_jobs > 0 and not backlog.workers)),
        "ExpiredRequests": ("Jobs that waited too long", counts.get("expired", 0)),
        "InvocationFailures": ("Jobs that failed", counts.get("failed", 0)),
        "InvocationsProcesssed": ("Jobs that succeeded", counts.get("succeeded", 0)),  # spelled as CloudWatch does
        "likeness_workers": ("Workers that are alive", backlog.workers),
    }
