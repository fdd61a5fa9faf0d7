"""Selections as requests spell them (SPEC.md, C4), as those of `ndstream.core.selection`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.selection import Picks, Selection, Span, Spans, select
from ndstream.core.selection.axes import Axis
from ndstream.errors import InvalidSelection, OutOfBounds, ShapeMismatch, TooLarge

MOST = 1_000_000
"""Selections in one request."""


def read_selection(spelling: Sequence[Any], shape: tuple[int, ...], most: int) -> Selection:
    """Read one selection: an entry per axis, lists and masks combined as an outer product.

    Parameters
    ----------
    spelling : list
        Of entries as the specification has them; axes that are missing at the end are selected whole.
    shape : tuple of int
        Of the dataset.
    most : int
        Indices that one list may have.

    Raises
    ------
    InvalidSelection, OutOfBounds, TooLarge
    """
    entries = _complete(spelling, len(shape))
    axes: list[Axis] = []
    dropped = []
    for number, (entry, side) in enumerate(zip(entries, shape, strict=True)):
        axis, drops = _axis(entry, side, number, most)
        axes.append(axis)
        if drops:
            dropped.append(number)
    return Selection(source=shape, axes=tuple(axes), dropped=frozenset(dropped))


def _complete(spelling: Sequence[Any], rank: int) -> list[Any]:
    """One entry per axis: what ``"..."`` and the missing end stand for is spelled out."""
    if not isinstance(spelling, list | tuple):
        raise InvalidSelection("a selection is a list with an entry for each axis")
    places = [place for place, entry in enumerate(spelling) if isinstance(entry, str)]
    if any(spelling[place] != "..." for place in places) or len(places) > 1:
        raise InvalidSelection('of text, a selection has "..." at most once')
    named = len(spelling) - len(places)
    if named > rank:
        raise InvalidSelection(f"a selection of {named} axes for an array of {rank}")
    at = places[0] if places else len(spelling)
    return [*spelling[:at], *([None] * (rank - named)), *spelling[at + 1 :]]


def _axis(entry: Any, side: int, number: int, most: int) -> tuple[Axis, bool]:
    match entry:
        case None:
            return Span(0, side), False
        case bool():
            pass
        case int():
            if not -side <= entry < side:
                raise OutOfBounds(f"index {entry} leaves axis {number} of size {side}")
            return Span(entry % side, 1), True
        case [first, last]:
            return _span(first, last, 1, side, number), False
        case [first, last, step]:
            return _span(first, last, step, side, number), False
        case {"i": indices, **rest} if not rest:
            return _picks(indices, side, number, most), False
        case {"m": mask, **rest} if not rest:
            return Picks(np.flatnonzero(_flags(mask, side, number)).astype(np.int64)), False
    raise InvalidSelection(f"axis {number}: no index, no slice, no list of indices and no mask")


def _span(first: Any, last: Any, step: Any, side: int, number: int) -> Span:
    if not all(value is None or type(value) is int for value in (first, last, step)):
        raise InvalidSelection(f"axis {number}: a slice is made of integers")
    if step is not None and step < 1:
        raise InvalidSelection(f"axis {number}: a step of {step}, steps are 1 or more")
    start, stop, width = slice(first, last, step).indices(side)
    count = max(0, -(-(stop - start) // width))
    return Span(start, count, width) if count else Span(0, 0)


def _picks(indices: Any, side: int, number: int, most: int) -> Picks:
    array = _flat(indices, int, np.integer)
    if array is None or array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidSelection(f"axis {number}: no list of indices")
    if array.size > most:
        raise TooLarge(f"axis {number}: {array.size} indices, {most} are accepted (limit: selections)")
    if array.size and (int(array.min()) < -side or int(array.max()) >= side):
        raise OutOfBounds(f"axis {number}: an index leaves the size {side}")
    found = array.astype(np.int64)
    return Picks(np.where(found < 0, found + side, found))


def _flat(items: Any, *kinds: type) -> NDArray[Any] | None:
    """Array of the items of a list, which are all of these kinds; None when there is anything else in it."""
    if isinstance(items, np.ndarray):
        return items
    # By type: there are few of them.
    if not isinstance(items, list) or not all(issubclass(one, kinds) for one in set(map(type, items))):
        return None
    return np.array(items)


def _flags(mask: Any, side: int, number: int) -> NDArray[np.bool_]:
    array = _flat(mask, bool, np.bool_)
    if array is None or array.shape != (side,) or (array.size and array.dtype.kind != "b"):
        raise InvalidSelection(f"axis {number}: a mask of {side} flags is needed")
    return array.astype(np.bool_)


def read_selections(spellings: Sequence[Any], shape: tuple[int, ...], most: int) -> list[Selection]:
    """Read many selections, whose results follow one another along axis 0.

    An integer for axis 0 counts as a range of one. Ranges of axis 0 that agree in the other axes become one selection.

    Returns
    -------
    list of Selection
        As few as it can be, in order.

    Raises
    ------
    ShapeMismatch
        The results do not have the same shape behind axis 0.
    InvalidSelection, OutOfBounds, TooLarge
    """
    if len(spellings) > MOST:
        raise TooLarge(f"{len(spellings)} selections, {MOST} are accepted")
    if not shape:
        raise InvalidSelection("a single element has no axis along which results could follow one another")
    if not spellings:
        return [select(slice(0, 0), shape)]
    ranges = _ranges(spellings, shape)
    if ranges is not None:
        return [ranges]
    found = [_kept(read_selection(spelling, shape, most)) for spelling in spellings]
    trailing = found[0].shape[1:]
    for one in found:
        if one.shape[1:] != trailing:
            raise ShapeMismatch(f"selections of the shapes {trailing} and {one.shape[1:]} behind axis 0")
    return found


def _ranges(spellings: Sequence[Any], shape: tuple[int, ...]) -> Selection | None:
    """One selection for plain ranges of axis 0 with nothing said of other axes; None when they are not all so."""
    pairs = [spelling[0] for spelling in spellings if isinstance(spelling, list) and len(spelling) == 1]
    if len(pairs) != len(spellings) or not all(map(_is_pair, pairs)):
        return None
    bounds = np.array(pairs)
    if bounds.dtype.kind != "i":
        return None
    side = shape[0]
    ends = np.clip(np.where(bounds < 0, bounds + side, bounds), 0, side).astype(np.int64)
    starts, counts = ends[:, 0].copy(), np.maximum(ends[:, 1] - ends[:, 0], 0)
    held = counts > 0
    first = Spans(starts[held], counts[held]).simplest()
    return Selection(source=shape, axes=(first, *[Span(0, length) for length in shape[1:]]))


def _is_pair(entry: Any) -> bool:
    return type(entry) is list and len(entry) == 2 and type(entry[0]) is int and type(entry[1]) is int


def _kept(selection: Selection) -> Selection:
    """Same selection with axis 0 in its result."""
    return Selection(source=selection.source, axes=selection.axes, dropped=selection.dropped - {0})


def spell(key: Any) -> list[Any]:
    """Spell what stands between the brackets of an array as a request does.

    Parameters
    ----------
    key : int, slice, Ellipsis, None, list or array of int or bool, or a tuple of these; or a list
        An entry for each axis; None is all of an axis. A list of integers, or of booleans, is one of axis 0, as in
        numpy; any other list is a selection that is spelled already.

    Raises
    ------
    InvalidSelection
        An entry is none of these.
    """
    if isinstance(key, list) and not all(isinstance(item, int | np.integer | np.bool_) for item in key):
        return key
    return [_entry(entry) for entry in (key if isinstance(key, tuple) else (key,))]


def _entry(entry: Any) -> Any:
    match entry:
        case None:
            return None
        case bool() | np.bool_():
            pass
        case int() | np.integer():
            return int(entry)
        case slice(start=None, stop=None, step=None):
            return None
        case slice(start=start, stop=stop, step=None):
            return [_bound(start), _bound(stop)]
        case slice(start=start, stop=stop, step=step):
            return [_bound(start), _bound(stop), _bound(step)]
        case _ if entry is Ellipsis:
            return "..."
        case list() | np.ndarray():
            array = np.asarray(entry)
            if array.ndim == 1 and array.dtype.kind == "b":
                return {"m": array.tolist()}
            if array.ndim == 1 and (array.dtype.kind in "iu" or not array.size):
                return {"i": array.tolist()}
    raise InvalidSelection(f"no index, no slice, no list of indices and no mask: {str(entry)[:40]}")


def _bound(value: Any) -> int | None:
    return None if value is None else int(value)
