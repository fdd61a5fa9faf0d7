"""``/metrics``: what the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ndstream.core.counters import Counters
from ndstream.server.meter import BOUNDS, Meter

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exposition(Collector):
    """Text of ``/metrics``, put together of what is counted now.

    Parameters
    ----------
    meters : iterable of Meter
        One for each protocol.
    counters : Counters
        Those of the store and the protocols; each becomes ``ndstream_<name>_total``.
    waiting : int
        Number of requests that wait for their turn.
    """

    def __init__(self, meters: Iterable[Meter], counters: Counters, waiting: int) -> None:
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
        waiting.add_metric([], self._waiting)
        yield from (requests, sent, active, seconds, waiting)
