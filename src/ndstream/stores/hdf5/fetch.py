"""Elements, read through the HDF5 library."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, TypeAlias

import numpy as np
from h5py import h5a, h5d, h5s, h5z
from numpy.typing import NDArray

from ndstream.core.elements import NameOf, flatten
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge, UnsupportedDType, UnsupportedFilter
from ndstream.stores.hdf5.dtypes import Kind, kind_of
from ndstream.stores.hdf5.filters import filters_of

Box: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

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
    UnsupportedDType, UnsupportedFilter
        There is no way to read the type, or to undo a filter.
    """
    space = dataset.get_space()
    _check(space, box)
    kind = kind_of(dataset.get_type())
    if kind.target is None:
        raise UnsupportedDType("elements of this type cannot be read")
    total = prod(box[1])
    if total * (kind.size or 1) > most:
        raise TooLarge(f"{total} elements are more than {most} bytes")
    if kind.size is not None:
        data = np.empty(total * kind.size, np.uint8)
        if total:
            _read(dataset, space, box, data, kind)
        return data.tobytes()
    elements: list[Any] = []
    for part in _parts(box):
        array: NDArray[Any] = np.empty(prod(part[1]), kind.spelled)
        _read(dataset, space, part, array, kind)
        found = flatten(array, kind.target, name_of=name_of)
        most -= weight(found)
        if most < 0:
            raise TooLarge("the elements that were asked for take more bytes than one answer may have")
        elements += found
    return elements


def read_attribute(attribute: h5a.AttrID, kind: Kind, count: int, name_of: NameOf) -> bytes | list[Any]:
    """Read all `count` elements of an attribute of a type of that kind.

    Returns what `read_box` does. How much memory it takes is for the caller to check.
    """
    if kind.target is None:
        raise UnsupportedDType("values of this type cannot be read")
    if kind.size is not None:
        data = np.empty(count * kind.size, np.uint8)
        if count:
            attribute.read(data, mtype=kind.memory)
        return data.tobytes()
    array: NDArray[Any] = np.empty(count, kind.spelled)
    if count:
        attribute.read(array, mtype=kind.memory)
    return flatten(array, kind.target, name_of=name_of)


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


def _read(dataset: h5d.DatasetID, space: h5s.SpaceID, box: Box, target: NDArray[Any], kind: Kind) -> None:
    """Read a box that is not empty into `target`, which has room for it; selects it in `space`."""
    start, count, step = box
    if count:
        space.select_hyperslab(start, count, step)
    try:
        dataset.read(h5s.create_simple((prod(count),)), space, target, mtype=kind.memory)
    except OSError:
        # The library only says that it looked for a plugin, and where.
        for stage in filters_of(dataset.get_create_plist()):
            if not h5z.filter_avail(stage.id):
                raise UnsupportedFilter(f"filter {stage.id} is not installed on the server") from None
        raise


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


def weight(value: Any) -> int:
    """Bytes that a plain value takes in a message, roughly and not less."""
    if isinstance(value, bytes | str):
        return len(value) + 5
    if isinstance(value, list):
        return 5 + sum(map(weight, value))
    if isinstance(value, dict):
        return 5 + sum(map(weight, value)) + sum(map(weight, value.values()))
    return 9
