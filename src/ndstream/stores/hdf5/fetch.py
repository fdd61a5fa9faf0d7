"""Elements, read through the HDF5 library."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5s, h5t
from numpy.typing import NDArray

from ndstream.core.dtypes import Compound, DType, item_size, readable, to_numpy
from ndstream.core.elements import NameOf, flatten
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge, UnsupportedDType
from ndstream.stores.hdf5.dtypes import type_id, type_of

Box: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

_REFERENCES = (h5py.Reference, h5py.RegionReference)
#: Elements of variable length that are read in one go; how long they are is known only afterwards.
_AT_ONCE = 1024


def read_box(dataset: h5d.DatasetID, box: Box, *, most: int, name_of: NameOf) -> bytes | list[Any]:
    """Read the elements of a box of a dataset.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        With a shape, and its sources checked (`ndstream.stores.hdf5.resolve.Resolver.guard`).
    box : (start, count, step), one number per axis each
        Steps are 1 or more.
    most : int, bytes
        Largest answer; elements of variable length are counted as they come.
    name_of : callable
        Turns references into plain values.

    Returns
    -------
    bytes or list
        C order. Bytes for a fixed type, as `readable` describes them; else elements (`ndstream.core.elements`).

    Raises
    ------
    InvalidSelection, OutOfBounds
        The box does not fit the dataset.
    TooLarge
        The answer has more than `most` bytes.
    UnsupportedDType
        There is no way to read the type.
    """
    space = dataset.get_space()
    _check(space, box)
    kind = dataset.get_type()
    stored = type_of(kind)
    dtype = readable(stored)
    if dtype is None:
        raise UnsupportedDType("elements of this type cannot be read")
    total = prod(box[1])
    size = item_size(dtype)
    if total * (size or 1) > most:
        raise TooLarge(f"{total} elements are more than {most} bytes")
    if size is not None:
        data = np.empty(total * size, np.uint8)
        if total:
            dataset.read(_memory_space(box), _select(space, box), data, mtype=_memory(kind, stored, dtype)[0])
        return data.tobytes()
    memory, spelled = _memory(kind, stored, dtype)
    elements: list[Any] = []
    for part in _parts(box):
        array: NDArray[Any] = np.empty(prod(part[1]), spelled)
        dataset.read(_memory_space(part), _select(space, part), array, mtype=memory)
        found = flatten(array, dtype, name_of=name_of)
        most -= _weight(found)
        if most < 0:
            raise TooLarge("the elements that were asked for take more bytes than one answer may have")
        elements += found
    return elements


def read_attribute(attribute: h5a.AttrID, kind: h5t.TypeID, dtype: DType, count: int, name_of: NameOf) -> Any:
    """Read all `count` elements of an attribute whose type is `kind`, in the file described by `dtype`.

    Returns what `read_box` does. How much memory it takes is for the caller to check.
    """
    target = readable(dtype)
    if target is None:
        raise UnsupportedDType("values of this type cannot be read")
    size = item_size(target)
    if size is not None:
        data = np.empty(count * size, np.uint8)
        if count:
            attribute.read(data, mtype=_memory(kind, dtype, target)[0])
        return data.tobytes()
    if not count:
        return []
    memory, spelled = _memory(kind, dtype, target)
    array: NDArray[Any] = np.empty(count, spelled)
    attribute.read(array, mtype=memory)
    return flatten(array, target, name_of=name_of)


def _memory(kind: h5t.TypeID, stored: DType, dtype: DType) -> tuple[h5t.TypeID, np.dtype[Any]]:
    """Type to read elements into, for the library and for numpy.

    Fixed members of records are read as the bytes that they are; only the rest becomes objects.
    """
    size = item_size(dtype)
    if size is not None:
        return (kind if dtype is stored else type_id(dtype)), np.dtype(f"V{size}")
    if not isinstance(dtype, Compound) or not isinstance(stored, Compound):
        spelled = to_numpy(dtype, references=_REFERENCES)
        return h5t.py_create(spelled), spelled
    members = [
        _memory(kind.get_member_type(index), before.dtype, after.dtype)
        for index, (before, after) in enumerate(zip(stored.fields, dtype.fields, strict=True))
    ]
    record = h5t.create(h5t.COMPOUND, sum(member.get_size() for member, _ in members))
    offset = 0
    for index, (member, _) in enumerate(members):
        record.insert(kind.get_member_name(index), offset, member)
        offset += member.get_size()
    return record, np.dtype([(field.name, spelled) for field, (_, spelled) in zip(dtype.fields, members, strict=True)])


def _check(space: h5s.SpaceID, box: Box) -> None:
    if space.get_simple_extent_type() == h5s.NULL:
        raise InvalidSelection("the dataset has no elements to select from (its dataspace is null)")
    shape = space.get_simple_extent_dims()
    if any(len(numbers) != len(shape) for numbers in box):
        raise InvalidSelection(f"the dataset has {len(shape)} axes")
    for size, start, count, step in zip(shape, *box, strict=True):
        if start < 0 or count < 0 or step < 1:
            raise InvalidSelection("starts and counts are not negative, steps are 1 or more")
        if count and start + (count - 1) * step >= size:
            raise OutOfBounds(f"{count} elements from {start}, {step} apart, leave an axis of {size}")


def _select(space: h5s.SpaceID, box: Box) -> h5s.SpaceID:
    start, count, step = box
    if count:
        space.select_hyperslab(start, count, step)
    return space


def _memory_space(box: Box) -> h5s.SpaceID:
    return h5s.create_simple((prod(box[1]),))


def _parts(box: Box) -> Iterator[Box]:
    """Cut a box into boxes of a few elements each that follow one another in C order."""
    start, count, step = box
    total = prod(count)
    if total <= _AT_ONCE:
        if total:
            yield box
        return
    axis = next(axis for axis, length in enumerate(count) if length > 1)
    rows = max(1, _AT_ONCE * count[axis] // total)
    for row in range(0, count[axis], rows):
        first = (*start[:axis], start[axis] + row * step[axis], *start[axis + 1 :])
        taken = (*count[:axis], min(rows, count[axis] - row), *count[axis + 1 :])
        yield from _parts((first, taken, step))


def _weight(value: Any) -> int:
    """Bytes that a plain value takes in a message, roughly and not less."""
    if isinstance(value, bytes | str):
        return len(value) + 5
    if isinstance(value, list):
        return 5 + sum(map(_weight, value))
    if isinstance(value, dict):
        return 5 + sum(map(_weight, value)) + sum(map(_weight, value.values()))
    return 9
