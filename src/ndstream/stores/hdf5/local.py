"""Local HDF5 files for clients: opening them, and writing into them what the data model describes.

Types are those of the description, not what h5py would make of a numpy dtype: declared sizes, character sets, names
of enumerations and gaps stay. Objects go in and out as h5py's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t, h5z
from numpy.typing import NDArray

from ndstream.core.dtypes import (
    Array,
    DType,
    String,
    holds_references,
    is_fixed,
    readable,
    to_numpy,
)
from ndstream.core.elements import restore
from ndstream.core.model import Attribute, Dataset
from ndstream.errors import Corrupt, NDStreamError, NotFound, UnsupportedDType
from ndstream.stores.hdf5.dtypes import type_id
from ndstream.stores.hdf5.recovery import put_in_order

with suppress(ImportError):
    import hdf5plugin  # noqa: F401  # importing it registers its filters

_OPTIONAL = h5z.FLAG_OPTIONAL


def open_local(path: str | Path, mode: str = "r") -> h5py.File:
    """Open a file of this machine; what a process that died left to be done to it is done first.

    Raises
    ------
    NotFound
        There is no such file.
    Corrupt
        It is no HDF5 file, or damaged.
    Conflict, StorageFull, StorageFailed
        What was left to be done cannot be.
    """
    there = Path(path).absolute()
    if there.is_fifo():
        raise Corrupt(f"{path}: a pipe is no HDF5 file")  # opening it would wait for whoever writes to it
    put_in_order(there)
    try:
        return h5py.File(path, mode)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file") from error
    except OSError as error:
        raise Corrupt(f"{path}: {error}") from error


def link_hard(group: h5py.Group, name: str, target: Any) -> None:
    """Give an object that is there already one more name."""
    group[name] = target


def link_soft(group: h5py.Group, name: str, target: str) -> None:
    """Make a soft link."""
    group[name] = h5py.SoftLink(target)


def link_external(group: h5py.Group, name: str, filename: str, target: str) -> None:
    """Make a link into another file."""
    group[name] = h5py.ExternalLink(filename, target)


def commit_type(group: h5py.Group, name: str, dtype: DType) -> h5py.Datatype:
    """Give a type a name.

    Raises
    ------
    UnsupportedDType
    """
    type_id(_written(dtype)).commit(group.id, name.encode())
    return group[name]


def create_dataset(group: h5py.Group, name: str, described: Dataset) -> h5py.Dataset:
    """Make a dataset as described, without elements and attributes.

    Chunks, filters, fill value and largest shape are those of the description; a filter that this machine does not
    have is left out. Data of virtual and external datasets become the file's own.

    Raises
    ------
    UnsupportedDType
    """
    stored = _written(described.dtype)
    properties = h5p.create(h5p.DATASET_CREATE)
    if described.chunks is not None and described.shape:
        properties.set_chunk(described.chunks)
        for each in described.filters:
            if h5z.filter_avail(each.id):
                properties.set_filter(each.id, _OPTIONAL if each.optional else 0, each.asked)
    elif described.storage == "compact":
        properties.set_layout(h5d.COMPACT)
    if described.fill is not None and any(described.fill) and stored is described.dtype:
        _set_fill(properties, stored, described.fill)
    made = h5d.create(group.id, name.encode(), type_id(stored), _space(described.shape, described.maxshape), properties)
    return h5py.Dataset(made)


def write_box(dataset: h5py.Dataset, bounds: Sequence[tuple[int, int]], data: NDArray[Any]) -> None:
    """Write elements into a box of a dataset.

    Parameters
    ----------
    dataset : h5py.Dataset
    bounds : sequence of (start, stop), one per axis
    data : ndarray, C-contiguous
        Elements as `ndstream.core.dtypes.to_numpy` spells their type, the axes of an array type last. References
        stay null: they lead into the file that they came from.
    """
    file_space = dataset.id.get_space()
    shape = tuple(stop - start for start, stop in bounds)
    if bounds:
        file_space.select_hyperslab(tuple(start for start, _ in bounds), shape)
    _write(dataset.id, h5s.create_simple(shape) if bounds else h5s.create(h5s.SCALAR), file_space, data)


def write_attributes(target: Any, attributes: Mapping[str, Attribute]) -> Iterator[str]:
    """Write attributes of exact types to an object; yields what is wrong with each that cannot be written."""
    for name, attribute in attributes.items():
        if attribute.dtype is None or attribute.problem is not None:
            yield f"attribute {name!r} is left out: {attribute.problem or 'unknown type'}"
            continue
        try:
            _write_attribute(target, name, attribute)
        except (NDStreamError, OSError, RuntimeError, TypeError, ValueError) as error:
            yield f"attribute {name!r} is left out: {error}"


def _write_attribute(target: Any, name: str, attribute: Attribute) -> None:
    assert attribute.dtype is not None
    stored = _written(attribute.dtype)
    made = h5a.create(target.id, name.encode(), type_id(stored), _space(attribute.shape, attribute.shape))
    if attribute.shape is None or 0 in attribute.shape or holds_references(stored):
        return
    value = attribute.value
    if isinstance(value, list):
        array = restore(value, stored, attribute.shape)
        made.write(array, mtype=h5t.py_create(to_numpy(stored)))
    else:
        spelled = to_numpy(stored)
        flat: NDArray[Any] = np.frombuffer(value or b"", spelled)
        made.write(flat.reshape(attribute.shape + spelled.shape), mtype=type_id(stored))


def _set_fill(properties: h5p.PropDCID, dtype: DType, fill: bytes) -> None:
    """Set the fill value, of a type that h5py can set it for: of arrays and of objects it cannot."""
    if isinstance(dtype, String) and dtype.size is not None:
        # h5py takes the memory of a fixed string for a pointer; of a variable one it makes a fixed one itself.
        text = fill.rstrip(b"\0")
        properties.set_fill_value(np.array(text, dtype=h5py.string_dtype(dtype.charset)))
    elif is_fixed(dtype) and not isinstance(dtype, Array):
        properties.set_fill_value(np.frombuffer(fill, to_numpy(dtype)).reshape(()))


def _write(dataset: h5d.DatasetID, memory: h5s.SpaceID, file: h5s.SpaceID, data: NDArray[Any]) -> None:
    if not data.dtype.hasobject:
        # The bytes are as the file has them: its own type for the memory too, so that nothing is converted.
        dataset.write(memory, file, data, mtype=dataset.get_type())
    elif not _names_references(data.dtype):
        dataset.write(memory, file, data, mtype=h5t.py_create(data.dtype))


def _written(dtype: DType) -> DType:
    found = readable(dtype)
    if found is None:
        raise UnsupportedDType(f"elements of type {dtype} cannot be written")
    return found


def _space(shape: tuple[int, ...] | None, maxshape: tuple[int | None, ...] | None) -> h5s.SpaceID:
    if shape is None:
        return h5s.create(h5s.NULL)
    if not shape:
        return h5s.create(h5s.SCALAR)
    largest = tuple(h5s.UNLIMITED if size is None else size for size in (maxshape or shape))
    return h5s.create_simple(shape, largest)


def _names_references(dtype: np.dtype[Any]) -> bool:
    """As `holds_references`, of numpy's spelling."""
    if dtype.names is not None:
        return any(_names_references(dtype[name]) for name in dtype.names)
    metadata: Mapping[str, Any] = dtype.base.metadata or {}
    inner = metadata.get("vlen")
    return "ref" in metadata or (isinstance(inner, np.dtype) and _names_references(inner))
