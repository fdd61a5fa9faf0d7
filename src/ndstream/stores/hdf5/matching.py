"""Finding rows of a dataset of records by a key, of which only that column is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from h5py import h5s, h5t
from numpy.typing import NDArray

from ndstream.core.dtypes import Compound, DType, memory_size, to_numpy
from ndstream.core.keys import keys_of
from ndstream.core.limits import MiB
from ndstream.core.selection.axes import Indices
from ndstream.stores.hdf5.dtypes import type_id
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.storing import Place

_BLOCK = 4 * MiB


def match(place: Place, rows: NDArray[Any], key: str, count: int) -> tuple[Indices, Indices, Indices]:
    """Tell which rows are there already, by their keys (`ndstream.core.keys`).

    Parameters
    ----------
    place : Place
        A dataset of records of fixed size, with one axis.
    rows : ndarray, shape (n,), n > 0, as the dataset has them
    key : str
        Name of a field.
    count : int
        Rows of the dataset.

    Returns
    -------
    there, kept, fresh : ndarray of int64
        Numbers of the rows of the dataset that are to be replaced, each with the number in `rows` of what replaces it,
        and the numbers in `rows` of those that are new, in order. Of equal keys in `rows` the last one counts.
    """
    assert isinstance(place.dtype, Compound)
    field = next(field for field in place.dtype.fields if field.name == key)
    size = memory_size(field.dtype)
    column = rows.view(np.uint8).reshape(len(rows), -1)[:, field.offset : field.offset + size]
    last = {item: number for number, item in enumerate(keys_of(_spelled(column, field.dtype)))}
    memory = h5t.create(h5t.COMPOUND, size)
    memory.insert(key.encode(), 0, type_id(field.dtype))
    found = set()
    there, kept = [], []
    step = max(1, _BLOCK // size)
    for start in range(0, count, step):
        some = np.empty(min(step, count - start), element_type(size))
        space = place.id.get_space()
        space.select_hyperslab((start,), some.shape)
        place.id.read(h5s.create_simple(some.shape), space, some, memory)
        for number, item in enumerate(keys_of(_spelled(some, field.dtype))):
            mine = last.get(item)
            if mine is not None:
                there.append(start + number)
                kept.append(mine)
                found.add(mine)
    fresh = sorted(set(last.values()) - found)
    return np.array(there, np.int64), np.array(kept, np.int64), np.array(fresh, np.int64)


def _spelled(column: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Bytes of elements, one behind the other, as elements."""
    spelled = to_numpy(dtype)
    return np.ascontiguousarray(column).reshape(-1).view(np.uint8).view(spelled.base).reshape(-1, *spelled.shape)
