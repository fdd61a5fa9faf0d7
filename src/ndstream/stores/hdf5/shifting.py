"""Making room inside a dataset: what is behind moves on, in bounded memory."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from h5py import h5s
from numpy.typing import NDArray

from ndstream.core.limits import MiB
from ndstream.stores.hdf5.dtypes import kind_of
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.storing import Place

_BLOCK = 16 * MiB
_OBJECTS = 1 << 14


def shift(place: Place, shape: tuple[int, ...], axis: int, index: int, count: int) -> None:
    """Move what begins at `index` by `count` along `axis`, within a dataset that has its new shape already.

    What was in the gap stays there until somebody writes over it.
    """
    stop = shape[axis] - count
    row = prod(side for number, side in enumerate(shape) if number != axis)
    if not row:
        return
    most = max(1, (_OBJECTS if place.itemsize is None else _BLOCK // place.itemsize) // row)
    # From the end, so that nothing is overwritten before it was read.
    while stop > index:
        start = max(index, stop - most)
        _move(place, shape, axis, start, stop, count)
        stop = start


def _move(place: Place, shape: tuple[int, ...], axis: int, start: int, stop: int, by: int) -> None:
    counts = (*shape[:axis], stop - start, *shape[axis + 1 :])
    kind = kind_of(place.id.get_type())
    # Elements of variable length pass as the library gives them.
    memory, dtype = (
        (kind.memory, kind.spelled) if place.itemsize is None else (place.memory, element_type(place.itemsize))
    )
    box: NDArray[Any] = np.empty(counts, dtype)
    inside = h5s.create_simple(counts)
    place.id.read(inside, _at(place, axis, start, counts), box, memory)
    place.id.write(inside, _at(place, axis, start + by, counts), box, memory)


def _at(place: Place, axis: int, start: int, counts: tuple[int, ...]) -> h5s.SpaceID:
    space = place.id.get_space()
    space.select_hyperslab(tuple(start if number == axis else 0 for number in range(len(counts))), counts)
    return space
