"""Which ranges of a file are not to be read from it, and where their bytes are instead.

>>> overlay = Overlay()
>>> overlay.put(100, 200, 5000)
>>> overlay.put(150, 160, 9000)
>>> list(overlay.pieces(90, 170))
[Piece(start=100, stop=150, position=5000), Piece(start=150, stop=160, position=9000), Piece(start=160, stop=170, position=5060)]
"""  # noqa: E501 (what Python prints)

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

#: Position of bytes that are nowhere, because all of them are zero.
ZEROS = -1

_SHIFT = 20  # entries are kept by the MiB that they are in, and cut where one ends
_CROWD = 128  # entries in one MiB beyond which `crowds` tells of it


class Piece(NamedTuple):
    """The range [start, stop) of the file, whose bytes begin at `position`; `ZEROS` when there are none."""

    start: int
    stop: int
    position: int


class Overlay:
    """Ranges laid over a file, the last one on top; whoever reads merges them with the file.

    Takes 24 bytes for an entry, and at most 3 KiB for each MiB of the file as long as its owner puts one range in
    place of the many where `crowds` says so. Not for several threads at once.
    """

    __slots__ = ("_cells", "end")

    def __init__(self) -> None:
        self._cells: dict[int, _Cell] = {}
        self.end = 0  #: where the last range ends; 0 when there is none

    def __bool__(self) -> bool:
        return bool(self._cells)

    def clear(self) -> None:
        """Forget all."""
        self._cells.clear()
        self.end = 0

    def put(self, start: int, stop: int, position: int) -> None:
        """Lay [start, stop) over what is there; its bytes begin at `position`, or are `ZEROS`."""
        self.end = max(self.end, stop)
        while start < stop:
            key = start >> _SHIFT
            here = min(stop, (key + 1) << _SHIFT)
            cell = self._cells.get(key)
            if cell is None:
                cell = self._cells[key] = _Cell()
            cell.put(start, here, position)
            if position != ZEROS:
                position += here - start
            start = here

    def touches(self, start: int, stop: int) -> bool:
        """Whether any byte of [start, stop) is covered."""
        return start < self.end and next(self.pieces(start, stop), None) is not None

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what covers [start, stop), in the order of the file, cut to it."""
        if start >= stop:
            return
        cells = self._cells
        first, last = start >> _SHIFT, (min(stop, self.end) - 1) >> _SHIFT
        keys = range(first, last + 1)
        # A few cells in a long range are found by their keys, many in a short one by the range.
        for key in keys if len(keys) <= len(cells) else sorted(key for key in cells if first <= key <= last):
            if key in cells:
                yield from cells[key].pieces(start, stop)

    def crowds(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield hulls of the entries where, within [start, stop), there are so many that one would be better."""
        for key in range(start >> _SHIFT, ((stop - 1) >> _SHIFT) + 1):
            cell = self._cells.get(key)
            if cell is not None and len(cell.starts) > _CROWD:
                yield cell.starts[0], cell.stops[-1]


class _Cell:
    """The entries in one MiB: sorted, none overlaps another."""

    __slots__ = ("positions", "starts", "stops")

    def __init__(self) -> None:
        self.starts = array("q")
        self.stops = array("q")
        self.positions = array("q")

    def put(self, start: int, stop: int, position: int) -> None:
        low = bisect_right(self.stops, start)  # the first that ends behind our start …
        high = bisect_left(self.starts, stop, low)  # … to the last that begins before our end
        fresh = [(start, stop, position)]
        if low < high:
            first, last = self._entry(low), self._entry(high - 1)
            if first[0] < start:
                fresh.insert(0, (first[0], start, first[2]))
            if last[1] > stop:
                fresh.append((stop, last[1], _advance(last[2], stop - last[0])))
        if len(fresh) == 1 and low and self._leads_to(low - 1, start, position):
            low -= 1
            fresh = [(self.starts[low], stop, self.positions[low])]
        self.starts[low:high] = array("q", [entry[0] for entry in fresh])
        self.stops[low:high] = array("q", [entry[1] for entry in fresh])
        self.positions[low:high] = array("q", [entry[2] for entry in fresh])

    def _entry(self, index: int) -> tuple[int, int, int]:
        return self.starts[index], self.stops[index], self.positions[index]

    def _leads_to(self, index: int, start: int, position: int) -> bool:
        before, end, place = self._entry(index)
        return end == start and _advance(place, end - before) == position

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        for index in range(bisect_right(self.stops, start), bisect_left(self.starts, stop)):
            first, last, position = self._entry(index)
            low, high = max(first, start), min(last, stop)
            yield Piece(low, high, _advance(position, low - first))


def _advance(position: int, distance: int) -> int:
    return position if position == ZEROS else position + distance
