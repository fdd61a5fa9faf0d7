"""Index expressions: what stands between the brackets of ``array[...]``, as a selection."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.selection.axes import LARGEST, Axis, Indices, Picks, Span, Spans, pick, span
from ndstream.core.selection.ranges import check_ranges
from ndstream.core.selection.selection import Selection
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge


@lru_cache(maxsize=1024)
def everything(shape: tuple[int, ...]) -> Selection:
    """Select the whole of an array of `shape`."""
    return Selection(source=shape, axes=tuple([Span(0, side) for side in shape]))


def select(key: object, shape: tuple[int, ...], *, most: int | None = None) -> Selection:
    """Turn an index expression, as it stands between the brackets of ``array[...]``, into a selection.

    Ints, slices with any step, ``...``, ``()``, lists and arrays of ints in any order, and boolean masks of one axis
    or of several, down to the whole shape. One flat list or mask among ints and slices stands where it stands, and
    ints only drop their axis: h5py's rule. Everything else that has lists follows numpy: they are broadcast together,
    with the ints, and go point by point.

    Parameters
    ----------
    key
        The expression; a tuple has one item per axis. A `Spans` in it stands for the list of its indices.
    shape
        Shape of the array it applies to.
    most
        Limit of the points that several lists may make when they are broadcast; None for no limit.

    Raises
    ------
    OutOfBounds
        For an index that is not in the array; slices are clipped as numpy clips them.
    InvalidSelection
        For anything else that does not select: the message names it and says why.
    TooLarge
        For more than `most` points.

    Examples
    --------
    >>> select((slice(1, None, 2), -1), (5, 4)).shape
    (2,)
    """
    items = key if type(key) is tuple else (key,)
    plain = _plain(items, shape)
    if plain is not None:
        return plain
    terms = _place(tuple([_read(item) for item in items]), shape)
    lists = [array for term in terms if isinstance(term.entry, tuple) for array in term.entry]
    if not lists or (len(lists) == 1 and len(_shape(lists[0])) == 1):
        return _outer(terms, shape)
    return _joint(terms, shape, most)


def _plain(items: tuple[object, ...], shape: tuple[int, ...]) -> Selection | None:
    """Select by ints and slices only, quickly; None for what needs a closer look."""
    if len(items) > len(shape):
        return None
    axes: list[Axis] = []
    dropped = []
    for axis, item in enumerate(items):
        if type(item) is int:
            axes.append(Span(_index(item, shape[axis], axis), 1))
            dropped.append(axis)
        elif type(item) is slice:
            axes.append(_clip(item, shape[axis], axis))
        else:
            return None
    axes += [Span(0, side) for side in shape[len(items) :]]
    return Selection(source=shape, axes=tuple(axes), dropped=frozenset(dropped) if dropped else _NONE)


_NONE: frozenset[int] = frozenset()

_Item: TypeAlias = "int | slice | EllipsisType | Spans | NDArray[Any]"


@dataclass(frozen=True, slots=True)
class _Term:
    """An item with its place: an index, a span, or index arrays for as many axes from `axis` on.

    An ellipsis that stands for no axis has no arrays; it matters because numpy counts what it separates as apart.
    """

    axis: int
    entry: int | Span | tuple[Indices | Spans, ...]

    @property
    def advanced(self) -> bool:
        """Whether numpy takes it for an advanced index, once there is a list."""
        return isinstance(self.entry, int) or (isinstance(self.entry, tuple) and bool(self.entry))


def _read(item: object) -> _Item:
    """Tell what an item of an index expression is."""
    if isinstance(item, slice | EllipsisType | Spans):
        return item
    if item is None:
        raise InvalidSelection("None makes a new axis: reshape the result instead")
    if isinstance(item, str | bytes):
        raise InvalidSelection(f"{item!r} is the name of a field, not an index")
    if isinstance(item, bool | np.bool_):
        raise InvalidSelection(f"{item} is neither an index nor a mask")
    try:
        return operator.index(item)  # type: ignore[arg-type]  # raises the TypeError that is caught
    except TypeError:
        return _array(item)


def _array(item: object) -> NDArray[Any]:
    """Read an item as an array of integers or booleans, of rank 1 or more."""
    try:
        array = np.asarray(item)
    except ValueError as error:
        raise InvalidSelection(f"not a list of indices: {error}") from None
    if array.ndim == 0 and array.dtype.kind in "fc":
        raise InvalidSelection(f"{item!r} is not an integer")
    if array.ndim == 0:
        raise InvalidSelection(f"a {type(item).__name__} is neither an index nor a mask")
    if array.size == 0 and not isinstance(item, np.ndarray):
        return array.astype(np.int64)  # numpy takes an empty list for floats
    if array.dtype.kind not in "iub":
        raise InvalidSelection(f"a list of {array.dtype} selects nothing: integers or booleans do")
    return array


def _place(items: tuple[_Item, ...], shape: tuple[int, ...]) -> list[_Term]:
    """Give every item its axes, check it against them, and fill up with whole axes."""
    used = sum(_width(item) for item in items)
    if used > len(shape):
        raise InvalidSelection(f"{used} indices for an array of {len(shape)} axes")
    ellipses = sum(item is ... for item in items)
    if ellipses > 1:
        raise InvalidSelection("more than one '...'")
    terms = []
    axis = 0
    for item in items if ellipses else (*items, ...):
        if isinstance(item, EllipsisType):
            filled = range(axis, axis + len(shape) - used)
            terms += [_Term(k, Span(0, shape[k])) for k in filled] or [_Term(axis, ())]
            axis += len(filled)
            continue
        if isinstance(item, int):
            terms.append(_Term(axis, _index(item, shape[axis], axis)))
        elif isinstance(item, slice):
            terms.append(_Term(axis, _clip(item, shape[axis], axis)))
        else:
            terms.append(_Term(axis, _lists(item, shape, axis)))
        axis += _width(item)
    return terms


def _width(item: _Item) -> int:
    """Number of axes that an item takes."""
    if isinstance(item, np.ndarray) and item.dtype.kind == "b":
        return item.ndim
    return 0 if item is ... else 1


def _index(index: int, side: int, axis: int) -> int:
    if not -side <= index < side:
        raise OutOfBounds(f"index {index} leaves axis {axis} of size {side}")
    return index + side if index < 0 else index


def _clip(item: slice, side: int, axis: int) -> Span:
    try:
        start, stop, step = item.indices(side)
    except (TypeError, ValueError) as error:
        raise InvalidSelection(f"slice of axis {axis}: {error}") from None
    return span(start, len(range(start, stop, step)), step)


def _lists(item: Spans | NDArray[Any], shape: tuple[int, ...], axis: int) -> tuple[Indices | Spans, ...]:
    """Index arrays, not negative and in bounds, that an item stands for; new ones."""
    if isinstance(item, Spans):
        check_ranges(item.starts, item.counts, shape[axis], axis)
        return (item,)
    if item.dtype.kind == "b":
        covered = shape[axis : axis + item.ndim]
        if item.shape != covered:
            raise InvalidSelection(f"a mask of shape {item.shape} for axes of shape {covered}, from axis {axis} on")
        return item.nonzero()
    side = shape[axis]
    if item.size and not (-side <= int(item.min()) and int(item.max()) < side):
        wrong = item[(item < -side) | (item >= side)].flat[0]
        raise OutOfBounds(f"index {wrong} leaves axis {axis} of size {side}")
    indices = item.astype(np.int64, order="C")
    indices[indices < 0] += side
    return (indices,)


def _outer(terms: list[_Term], shape: tuple[int, ...]) -> Selection:
    """Combine as an outer product; at most one term is a list."""
    axes: list[Axis] = []
    for term in terms:
        if isinstance(term.entry, tuple):
            axes += [array.simplest() if isinstance(array, Spans) else pick(array) for array in term.entry]
        else:
            axes.append(Span(term.entry, 1) if isinstance(term.entry, int) else term.entry)
    return Selection(source=shape, axes=tuple(axes), dropped=_dropped(terms))


def _joint(terms: list[_Term], shape: tuple[int, ...], most: int | None) -> Selection:
    """Combine as numpy does: lists are broadcast and go point by point, ints go with them."""
    arrays = {term.axis + k: a for term in terms if isinstance(term.entry, tuple) for k, a in enumerate(term.entry)}
    try:
        joint_shape = np.broadcast_shapes(*[_shape(array) for array in arrays.values()])
    except ValueError:
        found = ", ".join(str(_shape(array)) for array in arrays.values())
        raise InvalidSelection(f"lists of shapes {found} cannot be broadcast together") from None
    points = math.prod(joint_shape)
    if points > (LARGEST if most is None else most):
        raise TooLarge(f"{points} points in a selection, {most} are allowed")

    axes: list[Axis] = []
    for term in terms:
        if isinstance(term.entry, tuple):
            axes += [_points(array, joint_shape) for array in term.entry]
        else:
            axes.append(Span(term.entry, 1) if isinstance(term.entry, int) else term.entry)
    advanced = [number for number, term in enumerate(terms) if term.advanced]
    together = advanced[-1] - advanced[0] == len(advanced) - 1
    return Selection(
        source=shape,
        axes=tuple(axes),
        dropped=_dropped(terms),
        joint=tuple(arrays),
        joint_shape=joint_shape,
        joint_at=terms[advanced[0]].axis if together else 0,
    )


def _shape(indices: Indices | Spans) -> tuple[int, ...]:
    return (indices.count,) if isinstance(indices, Spans) else indices.shape


def _points(indices: Indices | Spans, shape: tuple[int, ...]) -> Picks:
    array = indices.expand() if isinstance(indices, Spans) else indices
    return Picks(np.broadcast_to(array, shape).reshape(-1))


def _dropped(terms: list[_Term]) -> frozenset[int]:
    return frozenset([term.axis for term in terms if isinstance(term.entry, int)])
