"""Reading runs of bytes of a contiguous dataset, few long ones or many short ones."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ndstream.core.selection import Selection
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.plan import Gather, gather
from ndstream.wire.buffers import BufferPool

Array = NDArray[np.generic]


def read_runs(
    file: OpenFile, offset: int, block: Selection, itemsize: int, out: NDArray[np.uint8], pool: BufferPool
) -> None:
    """Read a selection of a contiguous dataset.

    Parameters
    ----------
    file : OpenFile
    offset : int, bytes
        Where the dataset begins in the file.
    block : Selection
        Not empty; its result has the size of `out`.
    itemsize : int, bytes
    out : ndarray, uint8, contiguous
        Written completely, in C order of the result.
    pool : BufferPool
        For at most two buffers of about a megabyte.
    """
    starts, lengths = block.runs()
    if starts.size == 1:
        file.read(offset + int(starts[0]) * itemsize, out)
        return
    runs = gather(starts, lengths, itemsize)
    first, last = runs.groups[:-1], runs.groups[1:]
    alone = last - first == 1
    _read_alone(file, offset, runs, first[alone], itemsize, out)
    together = np.flatnonzero(~alone)
    if not together.size:
        return
    result = out.view(element_type(itemsize))
    begins = runs.starts[first]
    buffer = pool.take(int((runs.ends - begins)[together].max()) * itemsize)
    for group in together.tolist():
        begin = int(begins[group])
        near = buffer[: (int(runs.ends[group]) - begin) * itemsize]
        file.read(offset + begin * itemsize, near)
        chosen = slice(int(first[group]), int(last[group]))
        scatter(
            near.view(result.dtype), runs.starts[chosen] - begin, runs.lengths[chosen], result, runs.targets[chosen]
        )


def _read_alone(
    file: OpenFile, offset: int, runs: Gather, chosen: NDArray[np.int64], itemsize: int, out: NDArray[np.uint8]
) -> None:
    starts = (runs.starts[chosen] * itemsize + offset).tolist()
    targets = (runs.targets[chosen] * itemsize).tolist()
    ends = ((runs.targets[chosen] + runs.lengths[chosen]) * itemsize).tolist()
    read = file.read
    for start, target, end in zip(starts, targets, ends, strict=True):
        read(start, out[target:end])


def scatter(
    source: Array, starts: NDArray[np.int64], lengths: NDArray[np.int64], result: Array, targets: NDArray[np.int64]
) -> None:
    """Copy runs of elements from one flat array into another.

    Parameters
    ----------
    source, result : ndarray, shapes (m,) and (n,), contiguous, one dtype
    starts, lengths, targets : ndarray, shape (k,), int64, elements
        Run i goes from ``source[starts[i]:][:lengths[i]]`` to ``result[targets[i]:][:lengths[i]]``.

    Notes
    -----
    Works on all runs of one length together, as rows of overlapping windows; runs of many different lengths one by
    one. The copies release the GIL.
    """
    distinct = np.unique(lengths)
    if distinct.size > 8:
        for start, length, target in zip(starts.tolist(), lengths.tolist(), targets.tolist(), strict=True):
            np.copyto(result[target : target + length], source[start : start + length])
        return
    for length in distinct.tolist():
        if distinct.size == 1:
            rows, places = starts, targets
        else:
            same = lengths == length
            rows, places = starts[same], targets[same]
        windows, into = _windows(source, length), _windows(result, length)
        _assign(into, _as_slice(places), windows, _as_slice(rows))


def _windows(array: Array, length: int) -> Array:
    step = array.itemsize
    return as_strided(array, (array.size - length + 1, length), (step, step))


def _as_slice(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Rows as a slice when they are evenly spaced upwards: numpy copies by strides instead of by index."""
    step = int(rows[1] - rows[0]) if rows.size > 1 else 1
    if step < 1 or (np.diff(rows) != step).any():
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1, step)


def _assign(into: Array, places: slice | NDArray[np.int64], windows: Array, rows: slice | NDArray[np.int64]) -> None:
    if isinstance(places, slice):
        np.copyto(into[places], windows[rows])
    else:
        into[places] = windows[rows]
