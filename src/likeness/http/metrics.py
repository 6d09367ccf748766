"""GET /metrics: metrics of the engine and of HTTP requests, in Prometheus' text format.

Names follow Prometheus' 'Metric and label naming': base units, `_total` for counters. Labels never contain user text.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..engine import facts

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Facts = Callable[[], facts.EngineFacts | None]

_GAUGES = {
    "waiting": "Images waiting for the batch",
    "running": "Images in the batch",
    "rows": "Rows in the batch, counted in those of the base's square; a guided square has two",
    "row_limit": "Largest number of rows in one step",
    "slots": "Slots for adapters in device memory",
    "slots_held": "Adapters in device memory",
    "slots_pinned": "Adapters in device memory used by running images",
    "host_adapters": "Adapters in the host cache",
    "host_bytes": "Bytes of adapters in the host cache",
}
_COUNTERS = {
    "slot_hits": "Images whose adapter was in device memory",
    "slot_misses": "Images whose adapter was not in device memory",
    "slot_evictions": "Adapters evicted from device memory",
    "host_hits": "Images whose adapter was in memory",
    "host_misses": "Images whose adapter was read from the object store",
    "host_evictions": "Adapters evicted from the host cache",
    "images": "Finished images",
    "refused": "Images refused on submission",
    "cancelled": "Cancelled images",
}
_HISTOGRAMS = {
    "load_s": ("load_seconds", "Loading one adapter from the object store to host memory"),
    "rows_per_step": ("rows_per_step", "Rows in one denoising step"),
    "queue_s": ("queue_seconds", "From submission to joining the batch"),
    "first_step_s": ("first_step_seconds", "From submission to the end of the first denoising step"),
    "total_s": ("picture_seconds", "From submission to the finished image"),
}


class Traffic:
    """Counters of HTTP requests."""

    def __init__(self, engine_facts: Facts) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("likeness_http_requests", "Requests", labels, registry=self.registry)
        self._seconds = Histogram(
            "likeness_http_request_seconds", "Duration of a request", ("route",), registry=self.registry
        )
        self._in_flight = Gauge("likeness_http_requests_in_flight", "Requests in progress", registry=self.registry)
        self._chores = Counter(
            "likeness_background_errors", "Unexpected errors of background tasks", ("task",), registry=self.registry
        )
        self.registry.register(_EngineCollector(engine_facts))

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        with self._in_flight.track_inprogress():
            yield

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a finished request. `route` is the route's template, not the path."""
        known = method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def chore_failed(self, name: str) -> None:
        """Count an unexpected error of a background task."""
        self._chores.labels(name).inc()

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engine's metrics on request; nothing before the engine has started."""

    def __init__(self, engine_facts: Facts) -> None:
        self._facts = engine_facts

    def collect(self) -> Iterable[Metric]:
        now = self._facts()
        if now is None:
            return
        for name, what in _GAUGES.items():
            yield GaugeMetricFamily(f"likeness_engine_{name}", what, getattr(now, name))
        if now.row_steps_per_s is not None:
            yield GaugeMetricFamily("likeness_engine_row_steps_per_second", "Throughput", now.row_steps_per_s)
        for name, what in _COUNTERS.items():
            yield CounterMetricFamily(f"likeness_engine_{name}", what, getattr(now, name))
        failures = CounterMetricFamily("likeness_engine_failures", "Failed images", labels=("code",))
        for code, count in now.failures.items():
            failures.add_metric((code,), count)
        yield failures
        for name, (said, what) in _HISTOGRAMS.items():
            yield _histogram(f"likeness_engine_{said}", what, getattr(now, name))


def _histogram(name: str, what: str, seen: facts.Histogram) -> Metric:
    total, buckets = 0, []
    for bound, count in zip((*map(str, seen.bounds), "+Inf"), seen.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(name, what, buckets=buckets, sum_value=seen.sum)
