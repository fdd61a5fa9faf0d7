"""Rates of a stream, by a clock of the test's own."""

from __future__ import annotations

import io
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from ndstream.streams.messages import Statistics
from ndstream.streams.throughput import ThroughputStatistics, ThroughputStatisticsPrinter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def measured(kind: type[ThroughputStatistics] = ThroughputStatistics, **options: Any) -> ThroughputStatistics:
    clock = Clock()
    rates = kind(sampling_interval=0.5, clock=clock, **options)
    for number in range(1, 11):
        rates.save_statistics(Statistics(1_000_000, number * 1_000_000, number))
        clock.now += 0.25
    return rates


def test_without_a_message_there_is_nothing() -> None:
    rates = ThroughputStatistics()
    assert rates.get_statistics() == {}
    assert rates.get_last_sampled_statistics() is None
    assert rates.get_statistics_raw()["messages_received"] == 0


def test_the_clock_starts_with_the_first_message() -> None:
    rates = ThroughputStatistics(clock=Clock())
    assert rates.save_statistics(Statistics(10, 10, 1)) is False
    assert rates.get_statistics()["average_message_rate"] == 0.0


def test_rates_are_sampled_and_averaged() -> None:
    rates = measured()
    assert rates.get_last_sampled_statistics() == {"message_rate": 4.0, "data_rate": 4.0}
    found = rates.get_statistics()
    assert list(found) == sorted(found)
    assert found["total_elapsed_time"] == pytest.approx(2.25)
    assert found["average_message_rate"] == pytest.approx(10 / 2.25)
    assert found["average_data_rate"] == pytest.approx(10 / 2.25)
    assert found["average_message_size"] == pytest.approx(1.0)


def test_samples_and_totals_may_live_elsewhere() -> None:
    samples: deque[dict[str, float]] = deque(maxlen=2)
    shared = SimpleNamespace()
    rates = measured(buffer=samples, namespace=shared)
    assert len(samples) == 2
    assert (shared.messages_received, shared.total_bytes_received) == (10, 10_000_000)
    rates.flush()
    assert (len(samples), shared.messages_received, rates.get_statistics()) == (0, 0, {})


def test_lines_and_a_summary_are_written() -> None:
    file = io.StringIO()
    rates = measured(ThroughputStatisticsPrinter, file=file)
    assert file.getvalue().count("Message rate:") == 4
    assert isinstance(rates, ThroughputStatisticsPrinter)
    rates.close()
    assert "Messages received:    10" in file.getvalue()
    rates.close(print_summary=False)
    assert file.getvalue().count("Messages received:") == 1
