"""Hypothesis strategies for shapes, index expressions, selections and chunk grids, and what they must select."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.selection import Selection, ranges, select


def shapes(*, min_rank: int = 0, max_rank: int = 4, max_side: int = 7) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw shapes of small arrays; axes of length zero are among them."""
    side = st.integers(0, max_side) | st.integers(1, max_side)
    return st.lists(side, min_size=min_rank, max_size=max_rank).map(tuple)


def numbered(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Make an array of `shape` whose elements are all different: their positions in C order."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def grids(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw chunk shapes for an array of `shape`; chunks may be larger than the array."""
    return st.tuples(*[st.integers(1, side + 2) for side in shape])


def slices(side: int) -> st.SearchStrategy[slice]:
    """Draw slices of an axis, with ends beyond it, and steps of both signs."""
    end = st.none() | st.integers(-side - 2, side + 2)
    step = st.none() | st.integers(1, 4) | st.integers(-4, -1)
    return st.builds(slice, end, end, step)


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...], *, max_lists: int = 3) -> Any:
    """Draw an index expression that numpy takes for an array of `shape`, without new axes.

    Ints, slices, an ellipsis or none, fewer items than axes, lists and arrays of any integer type and order with up
    to two dimensions, and masks of one axis or more.
    """
    joint = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2).map(tuple))
    ends = draw(st.integers(0, len(shape)))
    items = _items(draw, shape[:ends], joint, max_lists)
    if draw(st.booleans()):
        lists = max_lists - sum(isinstance(item, list | np.ndarray) for item in items)
        begins = draw(st.integers(ends, len(shape)))
        items = [*items, ..., *_items(draw, shape[begins:], joint, lists)]
    if len(items) == 1 and draw(st.booleans()):
        return items[0]
    return tuple(items)


def _items(draw: st.DrawFn, sides: tuple[int, ...], joint: tuple[int, ...], lists: int) -> list[Any]:
    """Draw items for all of these axes, at most `lists` lists; those can be broadcast to `joint`."""
    items: list[Any] = []
    axis = 0
    while axis < len(sides):
        side = sides[axis]
        if lists and (side or joint[-1] < 2) and draw(st.booleans()):
            lists -= 1
            rank = draw(st.integers(0, len(sides) - axis))
            mask = _mask(draw, sides[axis : axis + rank], joint[-1]) if rank else None
            items.append(_indices(draw, side, joint) if mask is None else mask)
            axis += 1 if mask is None else rank
        else:
            items.append(draw(st.integers(-side, side - 1) | slices(side) if side else slices(side)))
            axis += 1
    return items


def _indices(draw: st.DrawFn, side: int, joint: tuple[int, ...]) -> Any:
    """Draw a list or an array of indices that can be broadcast to `joint`."""
    shape = joint[draw(st.integers(0, len(joint) - 1)) :]
    shape = tuple([draw(st.sampled_from((1, length))) for length in shape])
    if side == 0:
        shape = (*shape[:-1], 0)
    size = math.prod(shape)
    values = draw(st.lists(st.integers(-side, max(side - 1, 0)), min_size=size, max_size=size))
    narrow = np.int8 if side < 128 else np.int16
    array = np.array(values, draw(st.sampled_from((np.int64, np.int32, narrow)))).reshape(shape)
    if draw(st.booleans()) and array.shape == np.shape(array.tolist()):
        return array.tolist()
    return array % side if side and draw(st.booleans()) else array


def _mask(draw: st.DrawFn, sides: tuple[int, ...], points: int) -> NDArray[np.bool_] | None:
    """Draw a mask with `points` or one point in it; None when there is no room for them."""
    points = draw(st.sampled_from((1, points)))
    size = math.prod(sides)
    if size < points:
        return None
    mask = np.zeros(size, bool)
    mask[draw(st.permutations(range(size)))[:points]] = True
    return mask.reshape(sides)


@st.composite
def h5py_keys(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Draw an index expression that h5py takes for a dataset of `shape`: one list, ascending; steps upwards."""
    items: list[Any] = []
    listed = draw(st.integers(0, max(len(shape) - 1, 0)))
    for axis, side in enumerate(shape):
        end = st.none() | st.integers(0, side + 2)
        chosen: st.SearchStrategy[Any] = st.builds(slice, end, end, st.none() | st.integers(1, 4))
        if side:
            chosen |= st.integers(-side, side - 1)
        if side and axis == listed:
            mask = st.lists(st.booleans(), min_size=side, max_size=side).map(np.array)
            chosen |= mask | mask.map(np.flatnonzero) | mask.map(_ascending)
        items.append(draw(chosen))
    masked = any(isinstance(item, np.ndarray) for item in items)
    if items and not masked and draw(st.booleans()):
        items = [*items[: draw(st.integers(0, len(items)))], ...]
    return tuple(items)


def _ascending(mask: NDArray[np.bool_]) -> list[int]:
    return [place for place, chosen in enumerate(mask) if chosen]


def expected(array: NDArray[Any], key: Any) -> NDArray[Any]:
    """Index an array by the rule of `ndstream.core.selection.select`, with nothing but numpy.

    That is numpy's own, except that one flat list stands where it stands and ints only drop their axis.
    """
    items = key if isinstance(key, tuple) else (key,)
    lists = [item for item in items if isinstance(item, list | np.ndarray)]
    if len(lists) != 1 or np.ndim(lists[0]) != 1:
        return np.asarray(array[key])
    if not any(item is ... for item in items):
        items = (*items, ...)
    at = next(k for k, item in enumerate(items) if item is ...)
    whole = (slice(None),) * (array.ndim - len(items) + 1)
    items = (*items[:at], *whole, *items[at + 1 :])
    array = array[tuple([slice(item, item + 1 or None) if isinstance(item, int) else item for item in items])]
    return array[tuple([0 if isinstance(item, int) else slice(None) for item in items])]


@st.composite
def multi_slices(draw: st.DrawFn, shape: tuple[int, ...]) -> Selection:
    """Draw many ranges of the first axis of an array of rank 1 or more, and one of each later axis."""
    pairs = draw(st.lists(_range(shape[0]), max_size=6))
    rest = [draw(_range(side)) for side in shape[1:]]
    starts, counts = np.array(pairs, np.int64).reshape(-1, 2).T
    return ranges(shape, starts, counts, rest)


def _range(side: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, side), st.integers(0, side)).map(lambda ends: (min(ends), abs(ends[1] - ends[0])))


@st.composite
def selections(draw: st.DrawFn, shape: tuple[int, ...], *, depth: int = 1) -> Selection:
    """Draw any selection from an array of `shape`: of an index expression, of ranges, or composed of two of these."""
    ranged = bool(shape) and draw(st.booleans())
    selection = draw(multi_slices(shape)) if ranged else select(draw(keys(shape)), shape)
    if depth and draw(st.booleans()):
        return selection.compose(draw(selections(selection.shape, depth=depth - 1)))
    return selection
