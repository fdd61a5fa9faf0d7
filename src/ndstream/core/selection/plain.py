"""Selections as plain values, for messages of any format.

A selection is a map. ``axes`` has one entry per axis of the array: ``[start, count, step]`` for a span, and the int64
little-endian bytes of its indices, or of its ranges, as ``{"indices": …}`` or ``{"starts": …, "counts": …}`` (lists of
integers do as well). What else there is has the names of the attributes of `Selection`, and is left out when it says
nothing. Text as in `ndstream.core.selection.text` is a selection too.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np

from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.core.selection.axes import Axis, Indices, Picks, Span, Spans
from ndstream.core.selection.normalise import everything, select
from ndstream.core.selection.ranges import check_ranges
from ndstream.core.selection.selection import Selection
from ndstream.core.selection.text import parse_items, parse_selection
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge

_NAMES = frozenset({"axes", "dropped", "joint", "joint_shape", "joint_at"})
_DEPTH = 32
_LONG = 1 << 14  # characters of a text, numbers in a list


def to_plain(selection: Selection, *, explicit: bool = False) -> dict[str, Any] | None:
    """Make a plain value of a selection; None when it is everything.

    The shape that it selects from is not in it: who reads it knows the shape, and checks. With `explicit`, everything
    is spelled out as well, for when the array may have grown meanwhile and no more than this is meant.
    """
    if selection.is_everything and not explicit:
        return None
    plain: dict[str, Any] = {"axes": [_axis_to_plain(axis) for axis in selection.axes]}
    if selection.dropped:
        plain["dropped"] = sorted(selection.dropped)
    if selection.joint:
        plain["joint"] = list(selection.joint)
        plain["joint_shape"] = list(selection.joint_shape)
        plain["joint_at"] = selection.joint_at
    return plain


def takes_long(plain: Any) -> bool:
    """Whether a plain value is so long that `prepared` should be called in a thread."""
    if isinstance(plain, str):
        return len(plain) > _LONG
    axes = plain.get("axes") if isinstance(plain, dict) else None
    entries = [entry for entry in axes if isinstance(entry, dict)] if isinstance(axes, list) else []
    return any(isinstance(numbers, list) and len(numbers) > _LONG for entry in entries for numbers in entry.values())


def prepared(plain: Any, *, most: int = DEFAULT_LIMITS.selections) -> Any:
    """Do what takes long about a plain value and needs no shape; the result is one for `from_plain`.

    Raises
    ------
    InvalidSelection, TooLarge
        As `from_plain`.
    """
    if isinstance(plain, str):
        return parse_items(plain)
    if not isinstance(plain, dict) or not isinstance(plain.get("axes"), list):
        return plain
    return plain | {"axes": [_packed(entry, most) for entry in plain["axes"]]}


def _packed(entry: Any, most: int) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {
        key: _numbers(value, most).astype("<i8").tobytes() if isinstance(value, list) else value
        for key, value in entry.items()
    }


def from_plain(plain: Any, shape: tuple[int, ...], *, most: int = DEFAULT_LIMITS.selections) -> Selection:
    """Read a selection.

    Parameters
    ----------
    plain
        What `to_plain` made, on whatever way it came; text; what `prepared` made of these; or None for everything.
    shape
        Of the array that it selects from.
    most
        Limit of the index points, or ranges, of one axis.

    Raises
    ------
    InvalidSelection
        It is no selection, or none for an array of this rank.
    OutOfBounds
        It leaves the array.
    TooLarge
        It has more than `most` points or ranges.
    """
    if plain is None:
        return everything(shape)
    if isinstance(plain, str):
        return parse_selection(plain, shape, most=most)
    if isinstance(plain, tuple):
        return select(plain, shape, most=most)
    if not isinstance(plain, dict) or not plain.keys() <= _NAMES or not isinstance(plain.get("axes"), list | tuple):
        raise InvalidSelection("a selection is a map with its axes, a text, or nothing")
    entries = plain["axes"]
    if len(entries) != len(shape):
        raise InvalidSelection(f"a selection of {len(entries)} axes for an array of {len(shape)}")
    axes = tuple(
        [_axis(entry, side, axis, most) for axis, (entry, side) in enumerate(zip(entries, shape, strict=True))]
    )
    dropped = frozenset(_integers(plain.get("dropped", ()), "dropped"))
    if not dropped <= set(range(len(axes))) or any(axes[number].count != 1 for number in dropped):
        raise InvalidSelection("only axes of which one index is selected can be dropped")
    joint = tuple(_integers(plain.get("joint", ()), "joint"))
    if not joint:
        return Selection(source=shape, axes=axes, dropped=dropped)
    joint_shape = tuple(_integers(plain.get("joint_shape", ()), "joint_shape"))
    (joint_at,) = _integers([plain.get("joint_at", 0)], "joint_at")
    _check_joint(axes, dropped, joint, joint_shape, joint_at)
    return Selection(source=shape, axes=axes, dropped=dropped, joint=joint, joint_shape=joint_shape, joint_at=joint_at)


def _axis_to_plain(axis: Axis) -> Any:
    if isinstance(axis, Span):
        return [axis.start, axis.count, axis.step]
    if isinstance(axis, Picks):
        return {"indices": axis.indices.astype("<i8").tobytes()}
    return {"starts": axis.starts.astype("<i8").tobytes(), "counts": axis.counts.astype("<i8").tobytes()}


def _axis(entry: Any, side: int, axis: int, most: int) -> Axis:
    if isinstance(entry, list | tuple):
        return _span(entry, side, axis)
    if isinstance(entry, dict) and entry.keys() == {"indices"}:
        indices = _numbers(entry["indices"], most)
        if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= side):
            raise OutOfBounds(f"an index leaves axis {axis} of size {side}")
        return Picks(indices)
    if isinstance(entry, dict) and entry.keys() == {"starts", "counts"}:
        starts, counts = _numbers(entry["starts"], most), _numbers(entry["counts"], most)
        if starts.size != counts.size:
            raise InvalidSelection(f"{starts.size} starts do not go with {counts.size} counts")
        check_ranges(starts, counts, side, axis)
        return Spans(starts, counts)
    raise InvalidSelection(f"axis {axis} of a selection is no span, no indices and no ranges")


def _span(entry: list[Any] | tuple[Any, ...], side: int, axis: int) -> Span:
    numbers = _integers(entry, f"axis {axis}")
    if len(numbers) not in (2, 3):
        raise InvalidSelection(f"a span is start, count and step, not {len(numbers)} numbers")
    start, count, step = (*numbers, 1)[:3]
    if count < 0 or step == 0:
        raise InvalidSelection(f"a span of {count} indices in steps of {step}")
    last = start + (count - 1) * step
    if count and not (0 <= start < side and 0 <= last < side):
        raise OutOfBounds(f"a span from {start} to {last} leaves axis {axis} of size {side}")
    return Span(start, count, step) if count else Span(0, 0)


def _numbers(value: Any, most: int) -> Indices:
    """Read int64 numbers from bytes or from a list."""
    if isinstance(value, bytes | bytearray | memoryview):
        if memoryview(value).nbytes % 8:
            raise InvalidSelection("indices are whole numbers of 8 bytes")
        if memoryview(value).nbytes // 8 > most:
            raise TooLarge(f"a selection of more than {most} points or ranges (selections)")
        return np.frombuffer(value, "<i8").astype(np.int64, copy=False)
    return np.array(_integers(value, "indices", most), np.int64)


def _integers(value: Any, name: str, most: int = _DEPTH) -> list[int]:
    if not isinstance(value, list | tuple):
        raise InvalidSelection(f"{name} of a selection: a list of integers is missing")
    if len(value) > most:
        raise TooLarge(f"{name} of a selection: more than {most} numbers")
    if not all(_is_integer(item) for item in value):
        raise InvalidSelection(f"{name} of a selection: not integers")
    return list(value)


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _check_joint(
    axes: tuple[Axis, ...], dropped: frozenset[int], joint: tuple[int, ...], shape: tuple[int, ...], at: int
) -> None:
    if sorted(set(joint)) != list(joint) or not set(joint) <= set(range(len(axes))) or dropped & set(joint):
        raise InvalidSelection("joint axes are named once, in order, and are not dropped")
    if any(not isinstance(axes[number], Picks) for number in joint):
        raise InvalidSelection("joint axes are selected by indices")
    points = math.prod(shape)
    if any(side < 0 for side in shape) or any(axes[number].count != points for number in joint):
        raise InvalidSelection(f"the points of joint axes do not have the shape {shape}")
    if not 0 <= at <= len(axes) - len(dropped) - len(joint):
        raise InvalidSelection(f"the points of joint axes cannot stand at dimension {at}")
