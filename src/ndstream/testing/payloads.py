"""Operations out of arrays, and somebody who may carry them out."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from ndstream.core.dtypes import from_numpy, is_fixed
from ndstream.core.elements import flatten
from ndstream.core.operations import CreateDataset, Payload
from ndstream.core.ports import Access

WRITER = Access(user="writer", writable=frozenset({""}))
"""May write everywhere."""


def payload(values: Any, dtype: Any = None) -> Payload:
    """Make a payload of an array; text becomes UTF-8 of variable length."""
    array = np.asarray(values, dtype)
    if array.dtype.kind == "U":
        made = np.empty(array.shape, h5py.string_dtype())
        made[...] = np.char.encode(array, "utf-8").astype(object)
        array = made
    described = from_numpy(array.dtype)
    data = array.tobytes() if is_fixed(described) else flatten(array, described)
    return Payload(dtype=described, shape=array.shape, data=data)


def dataset(name: str, values: Any, dtype: Any = None, **options: Any) -> CreateDataset:
    """Make the operation that creates a dataset from values."""
    data = payload(values, dtype)
    return CreateDataset(name=name, dtype=data.dtype, shape=data.shape, data=data, **options)


def table(name: str, dtype: Any = "<i4", row: tuple[int, ...] = (), **options: Any) -> CreateDataset:
    """Make the operation that creates an empty dataset that may grow along its first axis."""
    described = from_numpy(np.dtype(dtype))
    return CreateDataset(name=name, dtype=described, shape=(0, *row), maxshape=(None, *row), **options)
