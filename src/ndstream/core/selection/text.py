"""Selections as text, the way numpy spells them between the brackets: ``1:5, ::2, -1, [0,3,5], ...``.

The grammar; blanks may stand between any two signs::

    selection = item, {",", item}
    item      = "..." | integer | slice | list
    slice     = [integer], ":", [integer], [":", [integer]]
    list      = "[", [entry, {",", entry}], "]"  |  "[", list, {",", list}, "]"
    entry     = integer | integer, ":", integer

A range in a list, which numpy does not have there, stands for its indices: ``[0:5,7:9]`` is numpy's
``r_[0:5,7:9]``. It is not clipped, and a list in a list has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.core.selection.axes import LARGEST, Axis, Indices, Span, Spans
from ndstream.core.selection.mesh import Entry, ordered
from ndstream.core.selection.normalise import select
from ndstream.core.selection.selection import Selection
from ndstream.errors import InvalidSelection

_INTEGER = re.compile(r"\s*(-?[0-9]{1,40})\s*")
_SLICE = re.compile(r"\s*(-?[0-9]{1,40})?\s*:\s*(-?[0-9]{1,40})?\s*(?::\s*(-?[0-9]{1,40})?\s*)?")
_ELLIPSIS = re.compile(r"\s*\.\.\.\s*")
_OPENING = re.compile(r"\s*\[\s*")
_CLOSING = re.compile(r"\s*\]\s*")
_CONTENT = re.compile(r"[-0-9:,\s]*")
_Index: TypeAlias = int | slice | Spans | Indices

_PIECE = 1 << 16  # characters of a list that are read in one go
_DEPTH = 32  # lists in lists that are read: HDF5 has no more axes


def parse_selection(text: str, shape: tuple[int, ...], *, most: int | None = DEFAULT_LIMITS.selections) -> Selection:
    """Read a selection from text.

    Parameters
    ----------
    text
        The selection. Its length is the caller's to limit: reading takes time and memory in proportion to it.
    shape
        Shape of the array that it applies to.
    most
        Limit of the points that several lists may make when they are broadcast together; None for no limit.

    Raises
    ------
    InvalidSelection
        For text that is no selection, with the position of the first character at fault, counted from one; and as
        `select`.
    OutOfBounds, TooLarge
        As `select`.

    Examples
    --------
    >>> parse_selection("1:5, ::2, -1", (10, 10, 10)).shape
    (4, 5)
    """
    return select(parse_items(text), shape, most=most)


def parse_items(text: str) -> tuple[object, ...]:
    """Read what `select` makes a selection of, once the shape is known.

    Raises
    ------
    InvalidSelection
        For text that is no selection.
    """
    items: list[object] = []
    at = 0
    while True:
        item, at = _item(text, at)
        items.append(item)
        if at == len(text):
            return tuple(items)
        if text[at] != ",":
            raise _fault(text, at, "',' or the end")
        at += 1


def _item(text: str, at: int) -> tuple[object, int]:
    """Read one item; returns it, and where the next sign is."""
    if match := _SLICE.match(text, at):
        return slice(*[None if part is None else int(part) for part in match.groups()]), match.end()
    if match := _INTEGER.match(text, at):
        return int(match[1]), match.end()
    if match := _ELLIPSIS.match(text, at):
        return ..., match.end()
    if _OPENING.match(text, at):
        return _list(text, at, 0)
    raise _fault(text, at, "an index, a slice, a list or '...'")


def _list(text: str, at: int, depth: int) -> tuple[NDArray[np.int64] | Spans, int]:
    """Read a list, whose bracket opens at `at`; returns it, and where the next sign is."""
    opening = _OPENING.match(text, at)
    if opening is None:
        raise _fault(text, at, "'['")
    if depth == _DEPTH:
        raise InvalidSelection(f"selection, character {at + 1}: more than {_DEPTH} lists in lists")
    begin = opening.end()
    if not text.startswith("[", begin):
        return _entries(text, begin)
    rows: list[Indices] = []
    end = begin - 1
    while not rows or text.startswith(",", end):
        begin = end + 1
        row, end = _list(text, begin, depth + 1)
        if isinstance(row, Spans) or (rows and row.shape != rows[0].shape):
            raise _fault(text, begin, "a list of integers as long as the one before it")
        rows.append(row)
    closing = _CLOSING.match(text, end)
    if closing is None:
        raise _fault(text, end, "',' or ']'")
    return np.array(rows), closing.end()


def _entries(text: str, begin: int) -> tuple[NDArray[np.int64] | Spans, int]:
    """Read what a list without lists in it holds, and the bracket behind it."""
    content = _CONTENT.match(text, begin)
    closing = _CLOSING.match(text, content.end()) if content else None
    if content is None or closing is None:
        raise _fault(text, content.end() if content else begin, "',' or ']'")
    ranged = ":" in content[0]
    tables = [np.zeros((0, 2) if ranged else 0, np.int64)]
    start = begin if content[0] else content.end() + 1
    while start <= content.end():
        # A piece at a time: the words and numbers of a long list would take far more memory than its text.
        stop = text.find(",", start + _PIECE, content.end())
        stop = content.end() if stop < 0 else stop
        tables.append(_table(text, start, stop, _range if ranged else _integer))
        start = stop + 1
    table = np.concatenate(tables)
    return Spans(table[:, 0], table[:, 1] - table[:, 0]) if ranged else table, closing.end()


def _table(text: str, start: int, stop: int, read: Callable[[str], Any]) -> Indices:
    """Read the entries of a list between two positions."""
    parts = text[start:stop].split(",")
    entries: list[Any] = []
    try:
        entries += map(read, parts)  # what was read before a fault stays
    except ValueError:
        at = start + sum(len(part) + 1 for part in parts[: len(entries)])
        raise _fault(text, at, "an integer of 64 bits, or a range of them,") from None
    return np.array(entries, np.int64)


def _integer(part: str) -> int:
    value = int(part)
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(part)
    return value


def _range(part: str) -> tuple[int, int]:
    """Read an entry of a list that has ranges."""
    start, colon, stop = part.partition(":")
    first = int(start)
    last = int(stop) if colon else first + 1
    if not 0 <= first <= last <= LARGEST:
        raise ValueError(part)
    return first, last


def _fault(text: str, at: int, expected: str) -> InvalidSelection:
    found = repr(text[at : at + 20]) if at < len(text) else "the end"
    return InvalidSelection(f"selection, character {at + 1}: {expected} expected, found {found}")


def format_selection(selection: Selection) -> str:
    """Write a selection as text that `parse_selection` reads as the same elements in the same shape.

    Raises
    ------
    InvalidSelection
        For a selection of nothing whose shape needs an empty list of lists, which has no spelling.
    """
    if selection.is_everything:
        return "..."
    lists = [axis for axis in selection.axes if not isinstance(axis, Span)]
    items: tuple[_Index, ...]
    if not lists or (len(lists) == 1 and not selection.joint):
        # A flat list stands where it stands.
        items = tuple([_item_of(axis, number in selection.dropped) for number, axis in enumerate(selection.axes)])
    else:
        items = _broadcast(selection)
    return ",".join([_written(item, side) for item, side in zip(items, selection.source, strict=True)])


def _item_of(axis: Axis, dropped: bool) -> _Index:
    if isinstance(axis, Span):
        return axis.start if dropped else axis.slice
    return axis if isinstance(axis, Spans) else axis.indices


def _broadcast(selection: Selection) -> tuple[_Index, ...]:
    """Express as one index of numpy, whose dimensions stay where they are."""
    dims = selection.dims
    entries: list[Entry | int] = []
    for number, axis in enumerate(selection.axes):
        if number in selection.dropped:
            entries.append(axis.bounds()[0])
            continue
        index = axis.slice if isinstance(axis, Span) else axis.expand()
        if number in selection.joint:
            index = axis.expand().reshape(selection.joint_shape)
        entries.append(Entry(index, dims[number].start, axis.count))
    return ordered(entries)


def _written(item: _Index, side: int) -> str:
    if isinstance(item, int):
        return str(item)
    if isinstance(item, slice):
        start, stop = item.start or "", "" if item.stop is None or item.stop >= side else item.stop
        return f"{start}:{stop}" if item.step == 1 else f"{start}:{stop}:{item.step}"
    if isinstance(item, Spans):
        pairs = zip(item.starts.tolist(), (item.starts + item.counts).tolist(), strict=True)
        return f"[{','.join([f'{start}:{stop}' for start, stop in pairs])}]"
    nested = item.tolist()
    if np.shape(nested) != item.shape:
        raise InvalidSelection(f"an empty list of shape {item.shape} cannot be written as text")
    return str(nested).replace(" ", "")
