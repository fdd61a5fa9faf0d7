"""What ``ndstream stats`` shows, in three forms."""

from __future__ import annotations

import json
import sys
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import typer

from ndstream.cli.summary import causes
from ndstream.streams.messages import Message, Totals
from ndstream.streams.throughput import ThroughputStatistics

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_COUNTS = ("gaps", "missing", "repeats", "reversals")


class Watching:
    """What was seen of a stream.

    Parameters
    ----------
    totals : Totals
        Those of the stream; they go on changing.
    interval : float, seconds
        Between samples.

    Attributes
    ----------
    htypes : Counter
        Messages by htype.
    throughput : ThroughputStatistics
    """

    def __init__(self, totals: Totals, interval: float) -> None:
        self.totals = totals
        self.htypes: Counter[str] = Counter()
        self.throughput = ThroughputStatistics(sampling_interval=interval)
        self._bad = 0

    def note(self, message: Message | None) -> bool:
        """Note a message, or that none came; whether there is something new to show."""
        if message is not None:
            self.htypes[message.htype] += 1
        if self.totals.messages_received:
            return self.throughput.save_statistics(self.totals)
        # As long as there is nothing else, what cannot be decoded is to be seen at once.
        before, self._bad = self._bad, sum(self.totals.messages_failed.values())
        return self._bad > 0 and before == 0

    def as_dict(self) -> dict[str, Any]:
        """All figures."""
        totals = self.totals
        return {
            "messages_received": totals.messages_received,
            "total_bytes_received": totals.total_bytes_received,
            "htypes": dict(self.htypes),
            **{name: getattr(totals, name) for name in _COUNTS},
            "messages_failed": dict(totals.messages_failed),
            "bytes_failed": dict(totals.bytes_failed),
        }


class Show(Protocol):
    """A form to show it in; a context manager."""

    def sample(self, watching: Watching) -> None:
        """Show how it goes."""
        ...

    def summary(self, watching: Watching) -> None:
        """Show how it went."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """A line for each sample."""

    def sample(self, watching: Watching) -> None:
        """Write a line."""
        rates = watching.throughput.get_last_sampled_statistics() or {"data_rate": 0.0, "message_rate": 0.0}
        totals = watching.totals
        typer.echo(
            f"Data rate: {rates['data_rate']:>10.3f} MB/s    Message rate: {rates['message_rate']:>10.3f} Hz    "
            f"Messages: {totals.messages_received}    Missing: {totals.missing}    "
            f"Failed: {sum(totals.messages_failed.values())}"
        )

    def summary(self, watching: Watching) -> None:
        """Write totals and averages."""
        for line in summary(watching):
            typer.echo(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Documents(Lines):
    """A JSON document in each line; the last one has the key ``summary``."""

    def sample(self, watching: Watching) -> None:
        """Write a document."""
        typer.echo(json.dumps({**(watching.throughput.get_last_sampled_statistics() or {}), **watching.as_dict()}))

    def summary(self, watching: Watching) -> None:
        """Write the last one."""
        typer.echo(json.dumps({"summary": {**watching.throughput.get_statistics(), **watching.as_dict()}}))


class Screen(Lines):
    """A table that is kept up to date in a terminal; the summary follows below."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live: Live = Live(auto_refresh=False, transient=True)

    def sample(self, watching: Watching) -> None:
        """Bring the table up to date."""
        self._live.update(table(watching), refresh=True)

    def summary(self, watching: Watching) -> None:
        """Write totals and averages in place of the table."""
        self._live.stop()
        super().summary(watching)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def choose(documents: bool) -> Show:
    """Form for whoever reads standard output."""
    if documents:
        return Documents()
    return Screen() if sys.stdout.isatty() else Lines()


def summary(watching: Watching) -> list[str]:
    """Totals and averages, line by line."""
    found, totals = watching.throughput.get_statistics(), watching.totals
    if not found:
        lines = ["No message was received."]
    else:
        lines = [
            "",
            f"Messages received:    {found['messages_received']:.0f}",
            f"Total bytes received: {found['total_bytes_received'] / 1e6:.3f} MB",
            f"Elapsed time:         {found['total_elapsed_time']:.3f} s",
            f"Average data rate:    {found['average_data_rate']:.3f} MB/s",
            f"Average message rate: {found['average_message_rate']:.3f} Hz",
            f"Average message size: {found['average_message_size']:.6f} MB",
            *(f"{f'{htype}:':<21} {count}" for htype, count in sorted(watching.htypes.items())),
            f"Gaps:                 {totals.gaps}, of {totals.missing} messages that are missing now",
            f"Repeats:              {totals.repeats}",
            f"Reversals:            {totals.reversals}",
        ]
    return [*lines, f"Not decoded:          {causes(totals.messages_failed)}"]


def table(watching: Watching) -> Table:
    """The same as a table, with the rates of the last moments."""
    from rich.markup import escape
    from rich.table import Table

    rates = watching.throughput.get_last_sampled_statistics() or {"data_rate": 0.0, "message_rate": 0.0}
    totals = watching.totals
    found = Table(show_header=False)
    rows = {
        "Message rate": f"{rates['message_rate']:.1f} Hz",
        "Data rate": f"{rates['data_rate']:.3f} MB/s",
        "Messages": f"{totals.messages_received}",
        "Data": f"{totals.total_bytes_received / 1e6:.3f} MB",
        **dict(sorted((htype, f"{count}") for htype, count in watching.htypes.items())),
        **{name.capitalize(): f"{getattr(totals, name)}" for name in _COUNTS},
        "Not decoded": causes(totals.messages_failed),
    }
    for name, value in rows.items():
        found.add_row(escape(name), escape(value))
    return found
