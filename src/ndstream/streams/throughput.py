"""How fast messages come: rates of the last moments and of the whole."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, TextIO

MB = 1e6


class Counted(Protocol):
    """What is looked at: `Statistics` of a message, or the `Totals` of a stream."""

    @property
    def messages_received(self) -> int:
        """Messages until now."""
        ...

    @property
    def total_bytes_received(self) -> int:
        """Their bytes."""
        ...


class ThroughputStatistics:
    """Computes rates from the statistics of a stream. Its clock starts with the first message, and never goes back.

    Parameters
    ----------
    buffer : deque, optional
        Where samples are kept, as dicts; by default the last 100.
    namespace : object, optional
        Object that holds the totals as attributes, such as the namespace of a `multiprocessing` manager, for others
        to read.
    sampling_interval : float, seconds
        Time between samples; 0 takes one of each message.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        buffer: deque[dict[str, float]] | None = None,
        namespace: Any = None,
        sampling_interval: float = 0.2,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._samples = deque(maxlen=100) if buffer is None else buffer
        self._totals = SimpleNamespace() if namespace is None else namespace
        self._interval = sampling_interval
        self._clock = clock
        self._before = (0.0, 0, 0)
        self._first: float | None = None
        self.flush()

    def flush(self) -> None:
        """Begin anew: forget everything."""
        self._samples.clear()
        self._first = None
        self._before = (0.0, 0, 0)
        self._totals.messages_received = self._totals.total_bytes_received = 0
        self._totals.total_elapsed_time = 0.0

    def save_statistics(self, statistics: Counted) -> bool:
        """Take notice of a message; whether there is a new sample.

        Parameters
        ----------
        statistics : Statistics or Totals
            With totals that have grown since the last call.
        """
        now = self._clock()
        messages, nbytes = statistics.messages_received, statistics.total_bytes_received
        if self._first is None:
            self._first = now
            self._before = (now, 0, 0)
        self._totals.messages_received, self._totals.total_bytes_received = messages, nbytes
        self._totals.total_elapsed_time = now - self._first
        since, messages_then, bytes_then = self._before
        elapsed = now - since
        if elapsed <= 0 or elapsed < self._interval:
            return False
        self._samples.append(
            {
                "message_rate": (messages - messages_then) / elapsed,
                "data_rate": (nbytes - bytes_then) / MB / elapsed,
            }
        )
        self._before = (now, messages, nbytes)
        return True

    def get_last_sampled_statistics(self) -> dict[str, float] | None:
        """Rates between the last two samples: ``message_rate`` (1/s), ``data_rate`` (MB/s); None without a sample."""
        return dict(self._samples[-1]) if self._samples else None

    def get_statistics(self) -> dict[str, float]:
        """Totals and averages since the first message, sorted by name; empty when there was none.

        ``average_data_rate`` is in MB/s, ``average_message_rate`` in 1/s, ``average_message_size`` in MB,
        ``total_elapsed_time`` in seconds; a MB is 1,000,000 bytes. Rates are 0 as long as no time has passed.
        """
        messages, nbytes = self._totals.messages_received, self._totals.total_bytes_received
        elapsed = self._totals.total_elapsed_time
        if not messages:
            return {}
        return {
            "average_data_rate": nbytes / MB / elapsed if elapsed else 0.0,
            "average_message_rate": messages / elapsed if elapsed else 0.0,
            "average_message_size": nbytes / MB / messages,
            "messages_received": messages,
            "total_bytes_received": nbytes,
            "total_elapsed_time": elapsed,
        }

    def get_statistics_raw(self) -> dict[str, float]:
        """Totals: ``messages_received``, ``total_bytes_received``, ``total_elapsed_time``."""
        return {
            name: getattr(self._totals, name)
            for name in ("messages_received", "total_bytes_received", "total_elapsed_time")
        }


class ThroughputStatisticsPrinter(ThroughputStatistics):
    """The same, and writes it in lines.

    Parameters
    ----------
    file : text file, optional
        Where to; standard output by default.
    **options
        Those of `ThroughputStatistics`.
    """

    def __init__(self, *args: Any, file: TextIO | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file = file

    def save_statistics(self, statistics: Counted) -> bool:
        """Take notice of a message, and write a line for each sample."""
        sampled = super().save_statistics(statistics)
        if sampled:
            self.print_statistics()
        return sampled

    def print_statistics(self) -> None:
        """Write the rates of the last sample; nothing without one."""
        sample = self.get_last_sampled_statistics()
        if sample is not None:
            self._line(
                f"Data rate: {sample['data_rate']:>10.3f} MB/s    Message rate: {sample['message_rate']:>10.3f} Hz"
            )

    def print_summary(self) -> None:
        """Write totals and averages."""
        found = self.get_statistics()
        if not found:
            self._line("No message was received.")
            return
        self._line("")
        self._line(f"Messages received:    {found['messages_received']:.0f}")
        self._line(f"Total bytes received: {found['total_bytes_received'] / MB:.3f} MB")
        self._line(f"Elapsed time:         {found['total_elapsed_time']:.3f} s")
        self._line(f"Average data rate:    {found['average_data_rate']:.3f} MB/s")
        self._line(f"Average message rate: {found['average_message_rate']:.3f} Hz")
        self._line(f"Average message size: {found['average_message_size']:.6f} MB")

    def close(self, print_summary: bool = True) -> None:
        """End, with the summary if wanted."""
        if print_summary:
            self.print_summary()

    def _line(self, text: str) -> None:
        file = sys.stdout if self._file is None else self._file
        file.write(f"{text}\n")
        file.flush()
