"""GET /metrics: the engine's facts and the HTTP traffic in Prometheus' text format.

Names follow Prometheus' 'Metric and label naming': base units, `_total` on counters. No label is a user's text.
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
    "waiting": "Pictures that wait for the batch",
    "running": "Pictures in the batch",
    "rows": "Rows in the batch; a guided picture is two",
    "row_limit": "Rows that fit into one forward",
    "slots": "Adapters that device memory has room for",
    "slots_held": "Adapters in device memory",
    "slots_pinned": "Adapters in device memory that a picture in the making needs",
    "host_adapters": "Adapters in host memory",
    "host_bytes": "Bytes of adapters in host memory",
}
_COUNTERS = {
    "slot_hits": "Pictures whose adapter was in device memory",
    "slot_misses": "Pictures whose adapter was not in device memory",
    "slot_evictions": "Adapters that left device memory for others",
    "host_hits": "Pictures whose adapter was in memory",
    "host_misses": "Pictures whose adapter was fetched from the store",
    "host_evictions": "Adapters that left host memory for others",
    "images": "Pictures that were finished",
    "refused": "Pictures that were refused at the door",
    "cancelled": "Pictures that were taken back",
}
_HISTOGRAMS = {
    "load_s": ("load_seconds", "From the store to host memory, one adapter"),
    "rows_per_step": ("rows_per_step", "Rows in one denoising step"),
    "queue_s": ("queue_seconds", "From submission to joining the batch"),
    "first_step_s": ("first_step_seconds", "From submission to the end of the first denoising step"),
    "total_s": ("picture_seconds", "From submission to the finished picture"),
}


class Traffic:
    """HTTP requests, counted."""

    def __init__(self, engine_facts: Facts) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("likeness_http_requests", "Requests", labels, registry=self.registry)
        self._seconds = Histogram(
            "likeness_http_request_seconds", "Seconds of a request", ("route",), registry=self.registry
        )
        self._in_flight = Gauge("likeness_http_requests_in_flight", "Requests under way", registry=self.registry)
        self._chores = Counter(
            "likeness_background_errors", "Unexpected errors of background tasks", ("task",), registry=self.registry
        )
        self.registry.register(_EngineCollector(engine_facts))

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        with self._in_flight.track_inprogress():
            yield

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request is done. `route` is the template, not the path."""
        known = method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def chore_failed(self, name: str) -> None:
        """One run of a background task ended in an unexpected error."""
        self._chores.labels(name).inc()

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engine's facts when it is asked; an engine that has not started says nothing."""

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
        failures = CounterMetricFamily("likeness_engine_failures", "Pictures that failed", labels=("code",))
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
