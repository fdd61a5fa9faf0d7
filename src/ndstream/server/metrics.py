"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ndstream.core.counters import Counters

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper ends, in seconds, of the latency histogram."""

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """Requests of one protocol; plain numbers, so that counting costs next to nothing.

    Attributes
    ----------
    requests : dict of int to int
        HTTP status to number of answers; 499 for a client that went away, 0 when nothing was answered.
    active : int
        Requests that are being answered or wait.
    sent : int
        Bytes of bodies handed to the connections.
    """

    __slots__ = ("active", "buckets", "name", "requests", "seconds", "sent")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: dict[int, int] = {}
        self.active = 0
        self.sent = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def done(self, status: int, seconds: float) -> None:
        """Count a finished request."""
        self.requests[status] = self.requests.get(status, 0) + 1
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1


class Exposition(Collector):
    """Text of ``/metrics``, put together when it is asked for.

    Parameters
    ----------
    meters : iterable of Meter
        One for each protocol.
    counters : Counters
        Those of the store and the protocols; each becomes ``ndstream_<name>_total``.
    waiting : callable
        Number of requests that wait for their turn.
    """

    def __init__(self, meters: Iterable[Meter], counters: Counters, waiting: Callable[[], int]) -> None:
        self._meters = tuple(meters)
        self._counters = counters
        self._waiting = waiting
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Everything as Prometheus text."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing to say beforehand: which counters there are shows with time."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of now."""
        yield from self._http()
        families: dict[str, CounterMetricFamily] = {}
        for name, label, total in self._counters:
            family = families.get(name)
            if family is None:
                family = families[name] = CounterMetricFamily(f"ndstream_{name}", name.replace("_", " "), labels=["of"])
            family.add_metric([label], total)
        yield from families.values()

    def _http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("ndstream_http_requests", "Answered requests", labels=["protocol", "status"])
        sent = CounterMetricFamily("ndstream_http_sent_bytes", "Bytes of answers", labels=["protocol"])
        active = GaugeMetricFamily("ndstream_http_active_requests", "Requests under way", labels=["protocol"])
        seconds = HistogramMetricFamily("ndstream_http_request_seconds", "Time to answer", labels=["protocol"])
        for meter in self._meters:
            for status, number in meter.requests.items():
                requests.add_metric([meter.name, str(status)], number)
            sent.add_metric([meter.name], meter.sent)
            active.add_metric([meter.name], meter.active)
            edges = [*map(str, BOUNDS), "+Inf"]
            seconds.add_metric(
                [meter.name], list(zip(edges, accumulate(meter.buckets), strict=True)), sum_value=meter.seconds
            )
        waiting = GaugeMetricFamily("ndstream_http_waiting_requests", "Requests that wait for their turn")
        waiting.add_metric([], self._waiting())
        yield from (requests, sent, active, seconds, waiting)
