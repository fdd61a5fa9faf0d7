"""Losses in numbered messages: what is missing, what came twice, what came late.

A receiver shows each `ndstream.core.packets.Position` to `Gaps.see` and learns at once whether something is wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ndstream.core.packets import Position

Kind: TypeAlias = Literal["gap", "repeat", "reversal"]

_SERIES = 64  # series, and
_HOLES = 1024  # gaps in each, that are known in detail
_FAR = 1000  # steps back after which a sender is taken to have begun again
_SHUFFLED = 16  # steps that the very first messages may be out of order


@dataclass(frozen=True, slots=True, kw_only=True)
class Irregularity:
    """What is wrong with the number of a message.

    Attributes
    ----------
    kind : str
        ``"gap"``: numbers before it did not come; ``"repeat"``: it came already; ``"reversal"``: it is lower than one
        that came, either late, which fills a gap, or because the sender began again.
    counter : str
        What is counted: ``frame``, ``pulse_id``, ``image_id``.
    series : object
        What it is counted in.
    number : int
        That of the message.
    missing : int
        How many messages are lacking before it; 0 unless it is a gap.
    """

    kind: Kind
    counter: str
    series: Hashable
    number: int
    missing: int = 0


class Series:
    """What came of one series, and what did not.

    Attributes
    ----------
    counter : str
    name : object
        None for messages that tell none.
    expected : int or None
        How many there should be, when the start of the series said so.
    received : int
        Messages that came, each number once.
    repeats, reversals, gaps : int
        How often; a gap can be more than one message.
    started, ended : bool
        Whether its start and its end were seen. The end may overtake the last messages.
    """

    def __init__(self, counter: str, name: Hashable, step: int) -> None:
        self.counter = counter
        self.name = name
        self.expected: int | None = None
        self.received = self.repeats = self.reversals = self.gaps = 0
        self.started = self.ended = False
        self._step = step
        self._first: int | None = None  # lowest number, and
        self._next = 0  # one step above the highest one, since the sender began
        self._holes: list[tuple[int, int]] = []  # first number and end of what did not come, in order
        self._lost = 0  # messages in holes that are not known any more

    @property
    def missing(self) -> int:
        """Messages that did not come: those of all gaps, and after the end of the series those that were to follow."""
        tail = 0
        if self.ended and self.expected is not None:
            tail = max(self.expected - self._next // self._step, 0)
        return self._lost + self._in_holes() + tail

    @property
    def complete(self) -> bool:
        """Whether as many came as are expected; False when nothing is."""
        return self.expected is not None and self.received >= self.expected

    @property
    def holes(self) -> tuple[range, ...]:
        """Numbers that did not come yet; of very many gaps only the last."""
        return tuple(range(first, end, self._step) for first, end in self._holes)

    def begin(self, expected: int | None) -> None:
        """Note the start: what came of it so far, if anything, is counted from 0."""
        self.started = True
        self.expected = expected
        if self._first is None:
            self._first = 0
        elif self._first > 0:
            self._holes.insert(0, (0, self._first))
            self._first = 0

    def count(self, number: int) -> tuple[Kind, int] | None:
        """Note a message; returns what is wrong with it, and how many are lacking before it."""
        if self._first is None:
            self._first = self._next = number
        if number >= self._next:
            lacking = (number - self._next) // self._step
            if lacking:
                self.gaps += 1
                self._lack(self._next, number)
            self._next = number + self._step
            self.received += 1
            return ("gap", lacking) if lacking else None
        if self._is_anew(number):
            self._lost += self._in_holes()
            self._holes.clear()
            self._first, self._next = number, number + self._step
        elif number < self._first:
            self._lack(number + self._step, self._first, at=0)
            self._first = number
        elif not self._fill(number):
            self.repeats += 1
            return "repeat", 0
        self.received += 1
        self.reversals += 1
        return "reversal", 0

    def _is_anew(self, number: int) -> bool:
        """Whether a lower number means that the sender began again; in a series with a name it never does."""
        if self.name is not None or self._first is None:
            return False
        back = (self._next - number) // self._step
        return back > _FAR or (number == self._first == 0) or self._first - number > _SHUFFLED * self._step

    def _lack(self, first: int, end: int, at: int | None = None) -> None:
        if end > first:
            self._holes.insert(len(self._holes) if at is None else at, (first, end))
        if len(self._holes) > _HOLES:
            first, end = self._holes.pop(0)
            self._lost += (end - first) // self._step

    def _fill(self, number: int) -> bool:
        """Take a number out of the hole that it is in; False if it is in none."""
        index = bisect_right(self._holes, number, key=lambda hole: hole[0]) - 1
        if index < 0 or number >= self._holes[index][1]:
            return False
        first, end = self._holes[index]
        rest = [(first, number), (number + self._step, end)]
        self._holes[index : index + 1] = [(first, end) for first, end in rest if end > first]
        return True

    def _in_holes(self) -> int:
        return sum((end - first) // self._step for first, end in self._holes)


class Gaps:
    """Keeps account of the numbers of one stream.

    Parameters
    ----------
    step : int
        By how much numbers grow from message to message, where it is not 1: pulses of a source that sends every tenth.

    Attributes
    ----------
    gaps, repeats, reversals : int
        How often, in all series.

    Notes
    -----
    Memory is bounded: the last 64 series, and in each the last 1024 gaps, are known in detail; totals stay right.
    A series whose start was not seen is counted from the first number that came. Where messages tell no series, a
    sender that begins again, at 0 or more than 1000 steps back, is a reversal, and counting goes on from there. For
    one thread at a time.
    """

    def __init__(self, step: int = 1) -> None:
        if step < 1:
            raise ValueError(f"numbers cannot grow by {step}")
        self.gaps = self.repeats = self.reversals = 0
        self._step = step
        self._series: dict[tuple[str, Hashable], Series] = {}
        self._gone = 0  # messages missing in series that are not known any more

    def __iter__(self) -> Iterator[Series]:
        """Series that are known, in the order in which they began."""
        return iter(list(self._series.values()))

    @property
    def missing(self) -> int:
        """Messages missing in all series; one that comes late is missing no more."""
        return self._gone + sum(series.missing for series in self._series.values())

    def see(self, position: Position | None) -> Irregularity | None:
        """Note one message.

        Parameters
        ----------
        position : Position or None
            None, for a message that tells none, is not noted.

        Returns
        -------
        Irregularity or None
            None when it is what was to come next.
        """
        if position is None:
            return None
        series = self._of(position)
        if position.event == "start":
            series.begin(position.expected)
        elif position.event == "end":
            series.ended = True
        elif position.number is not None and (found := series.count(position.number)) is not None:
            kind, lacking = found
            self.gaps += kind == "gap"
            self.repeats += kind == "repeat"
            self.reversals += kind == "reversal"
            return Irregularity(
                kind=kind, counter=series.counter, series=series.name, number=position.number, missing=lacking
            )
        return None

    def follow(self, counter: str, number: int) -> Irregularity | None:
        """Note a message that tells no series; what `see` does, faster when it is the one that was to come."""
        series = self._series.get((counter, None))
        # Here and not in the series, since this is asked of every message.
        if series is not None and number == series._next and series._first is not None:
            series._next = number + self._step
            series.received += 1
            return None
        return self.see(Position(counter=counter, number=number))

    def _of(self, position: Position) -> Series:
        key = (position.counter, position.series)
        series = self._series.get(key)
        if series is None or (position.event == "start" and series.ended):
            if series is not None:  # the name is used again
                self._drop(key)
            series = self._series[key] = Series(*key, self._step)
            if len(self._series) > _SERIES:
                self._drop(next(iter(self._series)))
        return series

    def _drop(self, key: tuple[str, Hashable]) -> None:
        self._gone += self._series.pop(key).missing
