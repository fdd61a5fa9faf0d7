"""Chunks that are stored past the filters of the library, and their masks, which it does not keep up with.

Two things that libhdf5 does (2.0 and before, `H5D__chunk_direct_write`) make a chunk unreadable, or give what is packed
for elements. It goes on with the mask that it has found when it looked the chunk up, until it looks up another one. And
a mask gets into the index with a new size alone: where the size of a chunk stays, the mask of before does too, also
when the library itself writes the chunk through all filters. So nothing is stored past it but by `put`, and what it is
to write to goes through `unmask` first.
"""

from __future__ import annotations

from enum import Enum, auto
from io import BytesIO
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5i, h5o, h5p, h5r, h5s
from numpy.typing import NDArray

from ndstream.errors import NDStreamError
from ndstream.stores.hdf5.faults import LIBRARY_ERRORS
from ndstream.stores.hdf5.filters import add_filter, filters_of
from ndstream.stores.hdf5.items import element_type

#: What a stored chunk may have beyond its elements: filters that do not shrink it make it a little longer.
_MORE = 4096


class _Found(Enum):
    """What is known of a chunk that was not read."""

    NOWHERE = auto()  #: it is not stored
    LONGER = auto()  #: it is longer than a chunk that anybody stores now
    UNKNOWN = auto()


def put(dataset: h5d.DatasetID, corner: tuple[int, ...], stored: NDArray[np.uint8], mask: int) -> h5d.DatasetID:
    """Store a chunk of a dataset with filters as it is given.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
    corner : tuple of int
        Index of its first element.
    stored : ndarray, uint8, one axis
    mask : int
        Of the filters that were skipped: bit n for the n-th.

    Returns
    -------
    h5py.h5d.DatasetID
        The dataset, to be used from now on; every other identifier of it may be closed.
    """
    before = _look(dataset, corner, stored.size)
    if before is _Found.NOWHERE:
        known, resized = mask == 0, True
    elif isinstance(before, _Found):
        known, resized = False, before is _Found.LONGER
    else:
        known = before[0] == mask
        resized = known or before[1].size != stored.size
    if not resized:
        dataset.write_direct_chunk(corner, np.append(stored, np.uint8(0)), mask)
    dataset.write_direct_chunk(corner, stored, mask)
    return dataset if known else _reopened(dataset)


def unmask(dataset: h5d.DatasetID, corner: tuple[int, ...]) -> h5d.DatasetID:
    """Make sure that the library can write to a chunk: no filter was skipped that it will apply.

    A chunk that cannot be decoded is left as it is.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        With filters, and elements of fixed size.
    corner : tuple of int
        Index of the first element of the chunk.

    Returns
    -------
    h5py.h5d.DatasetID
        As from `put`.
    """
    before = _look(dataset, corner, 0)
    if isinstance(before, _Found) or not before[0]:
        return dataset
    try:
        mask, stored = _filtered(dataset, *before)
    except (NDStreamError, *LIBRARY_ERRORS):
        return dataset
    return dataset if mask == before[0] else put(dataset, corner, np.frombuffer(stored, np.uint8), mask)


def _look(dataset: h5d.DatasetID, corner: tuple[int, ...], least: int) -> tuple[int, NDArray[np.uint8]] | _Found:
    """Mask and bytes of a chunk of up to `least` bytes, or of as many as filters make of it."""
    whole = prod(dataset.get_create_plist().get_chunk()) * dataset.get_type().get_size()
    # A buffer of our own: of a dataset without any chunk h5py takes for the size what happens to be in memory.
    room = np.empty(max(least, whole + whole // 8) + _MORE, np.uint8)
    try:
        mask, stored = dataset.read_direct_chunk(corner, out=room)
    except ValueError:
        return _Found.LONGER
    except LIBRARY_ERRORS as error:
        text = str(error)
        return _Found.NOWHERE if "not allocated" in text or "not initialized" in text else _Found.UNKNOWN
    return mask, np.frombuffer(stored, np.uint8)


def _reopened(dataset: h5d.DatasetID) -> h5d.DatasetID:
    """Have the library forget what it knows of a dataset: it does when nobody has it open."""
    file, address = h5i.get_file_id(dataset), h5o.get_info(dataset).addr
    reference = h5r.create(dataset, b".", h5r.OBJECT)
    for each in h5f.get_obj_ids(file, h5f.OBJ_DATASET):
        if h5o.get_info(each).addr == address:
            while each.valid:
                h5i.dec_ref(each)
    return h5r.dereference(reference, file)


def _filtered(dataset: h5d.DatasetID, mask: int, stored: NDArray[np.uint8]) -> tuple[int, bytes]:
    """What the library makes of a chunk when it applies all filters that it can: mask and bytes."""
    kind, theirs = dataset.get_type().copy(), dataset.get_create_plist()
    grid = theirs.get_chunk()
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(grid)
    for stage in filters_of(theirs):
        add_filter(properties, stage, fixed=True)
    corner = (0,) * len(grid)
    elements: NDArray[Any] = np.empty(grid, element_type(kind.get_size()))
    with h5py.File(BytesIO(), "w") as file:
        space = h5s.create_simple(grid)
        given = h5d.create(file.id, b"given", kind, space, properties)
        given.write_direct_chunk(corner, stored, mask)
        given = _reopened(given)
        given.read(h5s.ALL, h5s.ALL, elements, kind)
        made = h5d.create(file.id, b"made", kind, space, properties)
        made.write(h5s.ALL, h5s.ALL, elements, kind)
        file.flush()
        found: tuple[int, bytes] = made.read_direct_chunk(corner)
    return found
