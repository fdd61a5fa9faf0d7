"""Arrays as text, as numpy prints them; of large ones only the corners are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 1000
EDGE = 3
_WIDTH = 120


def preview(shape: tuple[int, ...], read: Callable[[tuple[slice, ...]], NDArray[Any]], *, whole: bool = False) -> str:
    """Text of an array of `shape`.

    Parameters
    ----------
    read : callable
        Gives a part of the array; called with one slice per axis. An array of more than `THRESHOLD` elements is asked
        for its corners only, unless `whole`.
    """
    if 0 in shape:
        return "[]"
    cut = tuple(not whole and int(np.prod(shape)) > THRESHOLD and length > 2 * EDGE for length in shape)
    sides: list[tuple[slice, ...]] = [
        (slice(0, EDGE), slice(length - EDGE, length)) if short else (slice(0, length),)
        for length, short in zip(shape, cut, strict=True)
    ]
    return _lines(_texts(_corners(sides, read)), cut, 1)


def _corners(
    sides: list[tuple[slice, ...]], read: Callable[[tuple[slice, ...]], NDArray[Any]], place: tuple[slice, ...] = ()
) -> NDArray[Any]:
    """Read one part for each choice of sides, and put them together."""
    axis = len(place)
    if axis == len(sides):
        return np.asarray(read(place))
    return np.concatenate([_corners(sides, read, (*place, side)) for side in sides[axis]], axis=axis)


def _texts(values: NDArray[Any]) -> NDArray[np.object_]:
    """Each element as text, numbers in one common format."""
    flat = values.reshape(-1)
    if flat.dtype.kind in "biufcmM":
        joined = np.array2string(flat, separator="\n", threshold=flat.size + 1, max_line_width=1 << 20)
        texts = joined[1:-1].split("\n")
    else:
        texts = [repr(item) for item in flat.tolist()]
    out = np.empty(values.shape, dtype=object)
    out.reshape(-1)[:] = texts[: flat.size]
    return out


def _lines(texts: NDArray[np.object_], cut: tuple[bool, ...], indent: int) -> str:
    """Nest brackets as numpy does, with an ellipsis where an axis was cut."""
    if texts.ndim == 0:
        return str(texts[()])
    items = list(texts) if texts.ndim == 1 else [_lines(part, cut[1:], indent + 1) for part in texts]
    if cut[0]:
        items.insert(EDGE, "...")
    if texts.ndim > 1:
        return "[" + ("\n" * (texts.ndim - 1) + " " * indent).join(items) + "]"
    lines, line = [], ""
    for item in items:
        if line and indent + len(line) + len(item) + 1 > _WIDTH:
            lines.append(line)
            line = ""
        line += f" {item}" if line else str(item)
    return "[" + ("\n" + " " * indent).join([*lines, line]) + "]"
