"""Datasets and attributes that are made: from what an operation says to properties of the HDF5 library."""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5p, h5s, h5t
from numpy.typing import NDArray

from ndstream.core.casting import array_of, check_payload
from ndstream.core.chunking import chunk_shape
from ndstream.core.dtypes import Array, DType, String, is_fixed, item_size, memory_size, to_numpy
from ndstream.core.limits import LARGEST_DATASET, LARGEST_ELEMENT
from ndstream.core.operations import CreateDataset, Payload
from ndstream.errors import InvalidRequest, TooLarge, UnsupportedDType
from ndstream.stores.hdf5.destination import utf8_names
from ndstream.stores.hdf5.dtypes import type_id
from ndstream.stores.hdf5.filters import add_filter

Shape: TypeAlias = tuple[int, ...]

_RANK = 32
_MOST = 1 << 63
_REFERENCES = (h5py.Reference, h5py.RegionReference)


def check_shape(shape: Shape, itemsize: int = 1) -> None:
    """Refuse what is no shape of HDF5, or has more elements than it can open again, or `itemsize` bytes of them."""
    if len(shape) > _RANK or any(not 0 <= side < _MOST for side in shape):
        raise InvalidRequest(f"{shape} is not the shape of a dataset")
    if prod(shape) * itemsize > LARGEST_DATASET:
        raise TooLarge(f"no file has room for the elements of a dataset of shape {shape}")


class Recipe:
    """How a dataset is made: checked, nothing done yet.

    Parameters
    ----------
    operation : CreateDataset
    largest_chunk : int, bytes

    Raises
    ------
    InvalidRequest, UnsupportedDType, UnsupportedFilter, TooLarge
    """

    def __init__(self, operation: CreateDataset, largest_chunk: int) -> None:
        itemsize = memory_size(operation.dtype)
        if itemsize > LARGEST_ELEMENT:
            raise TooLarge(f"elements of {itemsize} bytes, {LARGEST_ELEMENT} are accepted")
        self.type = type_id(operation.dtype)
        self.shape = operation.shape
        if operation.shape is None:
            if operation.data is not None and operation.data.shape is not None:
                raise InvalidRequest("a null dataspace has no elements")
            self.space, self.properties = h5s.create(h5s.NULL), h5p.create(h5p.DATASET_CREATE)
            return
        check_shape(operation.shape)
        self.space = _space(operation.shape, operation.maxshape)
        self.properties = h5p.create(h5p.DATASET_CREATE)
        chunks = _chunks(operation, operation.shape)
        if chunks is None:
            check_shape(operation.shape, itemsize)
        else:
            nbytes = int(np.prod(chunks, dtype=object)) * itemsize
            if nbytes > largest_chunk:
                raise TooLarge(f"a chunk of {nbytes} bytes is more than the limit 'chunk' ({largest_chunk})")
            self.properties.set_chunk(chunks)
        for stage in operation.filters:
            add_filter(self.properties, stage, fixed=is_fixed(operation.dtype))
        if operation.fill is not None:
            _set_fill(self.properties, operation.dtype, operation.fill)


def create(group: h5g.GroupID, link: bytes, recipe: Recipe) -> h5d.DatasetID:
    """Make the dataset; its name must be free.

    Raises
    ------
    InvalidRequest
        One of its filters says that it is not for such a type or shape.
    """
    try:
        return h5d.create(group, link, recipe.type, recipe.space, recipe.properties, utf8_names())
    except (ValueError, RuntimeError) as error:
        if "filter" not in str(error):
            raise
        raise InvalidRequest(f"the filters do not go with such a dataset: {error}") from None


def _space(shape: Shape, maxshape: tuple[int | None, ...] | None) -> h5s.SpaceID:
    if not shape:
        if maxshape:
            raise InvalidRequest("a single element cannot grow")
        return h5s.create(h5s.SCALAR)
    if maxshape is None:
        return h5s.create_simple(shape)
    if len(maxshape) != len(shape) or any(
        most is not None and not side <= most < _MOST for side, most in zip(shape, maxshape, strict=False)
    ):
        raise InvalidRequest(f"a dataset of shape {shape} cannot have the largest shape {maxshape}")
    return h5s.create_simple(shape, tuple(h5s.UNLIMITED if most is None else most for most in maxshape))


def _chunks(operation: CreateDataset, shape: Shape) -> Shape | None:
    chunks, maxshape = operation.chunks, operation.maxshape
    needed = bool(operation.filters) or (maxshape is not None and tuple(maxshape) != tuple(shape))
    if not shape:
        if operation.filters or chunks:
            raise InvalidRequest("a single element has no chunks and no filters")
        return None
    if chunks is False and needed:
        raise InvalidRequest("a dataset that may grow, or has filters, is stored in chunks")
    if chunks is True or (not chunks and needed):
        return chunk_shape(shape, maxshape, memory_size(operation.dtype))
    if not chunks:
        return None
    assert not isinstance(chunks, bool)
    largest = maxshape or shape
    if len(chunks) != len(shape) or any(length < 1 for length in chunks):
        raise InvalidRequest(f"chunks of shape {chunks} for a dataset of shape {shape}")
    if any(most is not None and length > max(most, 1) for length, most in zip(chunks, largest, strict=True)):
        raise InvalidRequest(f"chunks of shape {chunks} are larger than the dataset of shape {shape} may become")
    return tuple(chunks)


def _set_fill(properties: h5p.PropDCID, dtype: DType, fill: bytes) -> None:
    size = item_size(dtype)
    if size is None or isinstance(dtype, Array):
        raise UnsupportedDType("elements of this type have no fill value")
    if len(fill) != size:
        raise InvalidRequest(f"a fill value of {len(fill)} bytes for elements of {size}")
    if isinstance(dtype, String):
        # h5py takes the memory of a fixed string for a pointer; of a variable one it makes a fixed one itself.
        properties.set_fill_value(np.array(fill.rstrip(b"\0"), dtype=h5py.string_dtype(dtype.charset)))
    else:
        properties.set_fill_value(np.frombuffer(fill, to_numpy(dtype)).reshape(()))


class AttributeValue:
    """An attribute that is going to be set: checked, nothing done yet.

    Raises
    ------
    InvalidRequest, UnsupportedDType
    """

    def __init__(self, payload: Payload) -> None:
        check_payload(payload)
        self.type = type_id(payload.dtype)
        self.array: NDArray[Any] | None = None
        if payload.shape is None:
            self.space = h5s.create(h5s.NULL)
            return
        check_shape(payload.shape, memory_size(payload.dtype))
        self.space = h5s.create_simple(payload.shape) if payload.shape else h5s.create(h5s.SCALAR)
        self.array = np.ascontiguousarray(array_of(payload))
        fixed = is_fixed(payload.dtype)
        self.memory = self.type if fixed else h5t.py_create(to_numpy(payload.dtype, references=_REFERENCES))

    def put(self, target: Any, name: bytes) -> None:
        """Set it, in place of one of that name.

        Raises
        ------
        InvalidRequest
            It is too large for an attribute.
        """
        if h5a.exists(target, name):
            h5a.delete(target, name)
        try:
            made = h5a.create(target, name, self.type, self.space)
        except (ValueError, RuntimeError, OSError) as error:
            if "too large" not in str(error):
                raise
            raise InvalidRequest("an attribute has less than 64 KiB, with its name and type") from None
        if self.array is not None and self.array.size:
            made.write(self.array, mtype=self.memory)
