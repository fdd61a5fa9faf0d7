"""Slices in their two spellings, text and nested arrays, and what they select.

Source: SPEC.md, "Slices". A malformed slice is `InvalidRequest`, one of another rank than the dataset
`InvalidSelection`; one that leaves the dataset, goes backwards or overlaps the one before is `OutOfBounds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import Limits
from ndstream.core.selection import Selection, Span, ranges
from ndstream.errors import InvalidRequest, InvalidSelection, OutOfBounds, ProtocolError, TooLarge
from ndstream.protocols.hdfstream.messages import INT64_MAX, MOST_AXES, Extent, Slices
from ndstream.wire.integers import read_integers

_SMALL = 1 << 12  # bytes of an array spelling that are decoded into Python numbers

T = TypeVar("T")
_Array: TypeAlias = NDArray[np.int64]
_Numbers: TypeAlias = int | list[int] | _Array
_decode_text = msgspec.msgpack.Decoder(str).decode
_decode_pairs = msgspec.msgpack.Decoder(list[tuple[int | list[int], int | list[int]]]).decode
_EXTENT = re.compile(r"[ \t]*([0-9]{1,19})[ \t]*(?::[ \t]*([0-9]{1,19})[ \t]*)?")


# -- text --


def parse_text(text: str, limits: Limits) -> Slices:
    """Parse ``0:10,3;20:30,3``: slices separated by semicolons, a ``start:stop`` or a number for each axis.

    Raises
    ------
    InvalidRequest
        Malformed; ``stop`` before ``start``; slices of different ranks, or different in a later axis.
    TooLarge
        The text, or the number of slices, is beyond its limit.
    """
    if len(text) > limits.selection_text:
        raise TooLarge(f"a slice text may have {limits.selection_text} characters, this one has {len(text)}")
    if not text.strip():
        return Slices()
    rows = text.split(";")
    if len(rows) > limits.selections:
        raise TooLarge(f"{limits.selections} slices may be asked for at once, here are {len(rows)}")
    first, *rest = _parse_row(rows[0])
    if len(rows) == 1:
        return Slices((first, *rest))
    pairs = np.empty((len(rows), 2), np.int64)
    for number, row in enumerate(rows):
        pairs[number], *others = _parse_row(row)
        if others != rest:
            raise InvalidRequest(f"slices may differ in the first axis only: {row.strip()!r} is not like the first")
    return _ascending(pairs[:, 0].copy(), pairs[:, 1].copy(), tuple(rest))


def _parse_row(row: str) -> list[Extent]:
    return [_parse_extent(part) for part in row.split(",")]


def _parse_extent(part: str) -> Extent:
    match = _EXTENT.fullmatch(part)
    if match is None:
        raise InvalidRequest(f"not a slice: {part[:40]!r}; each axis is 'start:stop' or a number")
    start = int(match[1])
    stop = start + 1 if match[2] is None else int(match[2])
    if stop < start:
        raise InvalidRequest(f"a slice stops before it starts: {part.strip()!r}")
    if stop > INT64_MAX:
        raise InvalidRequest(f"a slice is beyond 64 bits: {part.strip()!r}")
    return start, stop - start


# -- nested arrays --


def parse_arrays(encoded: memoryview, limits: Limits) -> Slices:
    """Decode ``[[start, count], ...]``, one pair per axis, or a text; the numbers of the first axis may be arrays.

    Arrays of any length are decoded without a Python object for each number.

    Raises
    ------
    InvalidRequest
        Malformed; lists of unequal or zero length, or longer than one in a later axis.
    TooLarge
        There are more slices than the limit.
    """
    tag = encoded[0]
    if 0xA0 <= tag < 0xC0 or 0xD9 <= tag <= 0xDB:
        return parse_text(_decoded(encoded, _decode_text), limits)
    pairs = _decoded(encoded, _decode_pairs) if len(encoded) <= _SMALL else _walk(encoded)
    if not pairs:
        return Slices()
    if len(pairs) > MOST_AXES:
        raise InvalidRequest(f"a slice has at most {MOST_AXES} axes, this one has {len(pairs)}")
    (starts, counts), *others = pairs
    rest = tuple([_extent(start, count) for start, count in others])
    if isinstance(starts, int) or len(starts) == 1:
        return Slices((_extent(starts, counts), *rest))
    if len(starts) > limits.selections:
        raise TooLarge(f"{limits.selections} slices may be asked for at once, here are {len(starts)}")
    return _ascending(*_many(starts, counts), rest)


def _decoded(encoded: memoryview, decode: Callable[[memoryview], T]) -> T:
    try:
        return decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"malformed slice: {error}") from error


def _walk(encoded: memoryview) -> list[tuple[_Numbers, _Numbers]]:
    """Decode long arrays without a Python object for each number."""
    at = 0

    def count() -> int | None:
        nonlocal at
        tag = encoded[at]
        size = {0xDC: 2, 0xDD: 4}.get(tag, 0)
        if not size and tag & 0xF0 != 0x90:
            return None
        begin, at = at + 1, at + 1 + size
        return int.from_bytes(encoded[begin:at], "big") if size else tag & 0x0F

    def numbers() -> _Numbers:
        nonlocal at
        length = count()
        values, at = read_integers(encoded, at, 1 if length is None else length)
        return int(values[0]) if length is None else values

    def pair() -> tuple[_Numbers, _Numbers]:
        if count() != 2:
            raise ProtocolError("each axis is a pair of start and count")
        return numbers(), numbers()

    try:
        return [pair() for _ in range(count() or 0)]
    except (ProtocolError, IndexError) as error:
        raise InvalidRequest(f"malformed slice: {error}") from error


def _extent(start: _Numbers, count: _Numbers) -> Extent:
    """One range, whose numbers may each stand in a list of its own."""
    if not isinstance(start, int) or not isinstance(count, int):
        start, count = (each if isinstance(each, int) else _only(each) for each in (start, count))
    if start < 0 or count < 0:
        raise InvalidRequest("a slice has no negative starts or counts")
    return start, count


def _only(numbers: list[int] | _Array) -> int:
    if len(numbers) != 1:
        raise InvalidRequest("only the first axis of a slice has several starts or counts, and never none")
    return int(numbers[0])


def _many(starts: list[int] | _Array, counts: _Numbers) -> tuple[_Array, _Array]:
    """Ranges of the first axis; one count stands for all."""
    if not isinstance(counts, int) and len(counts) == 1:
        counts = _only(counts)
    if not len(starts) or (not isinstance(counts, int) and len(counts) != len(starts)):
        raise InvalidRequest("a slice needs as many counts as starts, and at least one")
    try:
        begins = np.asarray(starts, np.int64)
        lengths = np.broadcast_to(np.asarray(counts, np.int64), begins.shape)
    except OverflowError as error:
        raise InvalidRequest("a slice is beyond 64 bits") from error
    if begins.min() < 0 or lengths.min() < 0:
        raise InvalidRequest("a slice has no negative starts or counts")
    return begins, lengths


# -- meaning --


def _ascending(starts: _Array, counts: _Array, rest: tuple[Extent, ...]) -> Slices:
    """Refuse ranges of the first axis that go backwards or overlap."""
    ends = starts + counts
    # A sum beyond 64 bits is negative, and so before its start.
    if (ends < starts).any() or (starts[1:] < ends[:-1]).any():
        raise OutOfBounds("slices must ascend along the first axis and not overlap")
    return Slices(rest, (starts, counts))


def select(slices: Slices, shape: tuple[int, ...]) -> Selection:
    """Turn slices into a selection from an array of this shape, all axes kept.

    Raises
    ------
    InvalidSelection
        The ranks differ.
    OutOfBounds
        A slice ends behind the end of an axis.
    """
    if slices.rank != len(shape):
        raise InvalidSelection(f"a slice of {slices.rank} axes was asked for, the dataset has {len(shape)}")
    begin = len(shape) - len(slices.extents)
    for axis, (start, count) in enumerate(slices.extents, begin):
        if start + count > shape[axis]:
            raise OutOfBounds(f"slice {start}:{start + count} leaves axis {axis}, which has {shape[axis]} elements")
    if slices.many is not None:
        return ranges(shape, *slices.many, slices.extents)
    return Selection(source=shape, axes=tuple([Span(start, count) for start, count in slices.extents]))


def split(slices: Slices, rank: int) -> tuple[Slices, Slices]:
    """Divide slices into those of the first `rank` axes and those of the axes that follow."""
    if rank == 0:
        return Slices(), slices
    kept = rank - (slices.many is not None)
    return Slices(slices.extents[:kept], slices.many), Slices(slices.extents[kept:])
