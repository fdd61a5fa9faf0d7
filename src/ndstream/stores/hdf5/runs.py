"""Reading runs of bytes of a contiguous dataset, few long ones or many short ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ndstream.core.selection import Selection, Span
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.plan import Gather, gather
from ndstream.wire.buffers import BufferPool

Array = NDArray[np.generic]

#: Runs of fewer bytes than this are taken out of whole rows, read about so many bytes at a time.
_SHORT = 512
_ROWS = 2 << 20


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
    if _read_rows(file, offset, block, itemsize, out, pool):
        return
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
    starts, targets = runs.starts[chosen] * itemsize + offset, runs.targets[chosen] * itemsize
    stops = targets + runs.lengths[chosen] * itemsize
    file.read_each(starts.tolist(), targets.tolist(), stops.tolist(), out)


def _read_rows(
    file: OpenFile, offset: int, block: Selection, itemsize: int, out: NDArray[np.uint8], pool: BufferPool
) -> bool:
    """Read whole rows of the first axis, a few at a time, and take from them what is wanted.

    For selections that take little pieces of every row, where that is much cheaper than to list all the runs. False,
    and nothing done, for others.
    """
    if block.joint or not block.axes or _run(block) * itemsize >= _SHORT:
        return False
    first = block.axes[0]
    if not isinstance(first, Span):
        return False
    row = math.prod(block.source[1:]) * itemsize
    at_a_time = _ROWS // (row * abs(first.step))
    if not at_a_time:
        return False
    near = pool.take(((min(at_a_time, first.count) - 1) * abs(first.step) + 1) * row)
    each = out.size // first.count
    for begin in range(0, first.count, at_a_time):
        count = min(at_a_time, first.count - begin)
        ends = first.start + begin * first.step, first.start + (begin + count - 1) * first.step
        low, high = min(ends), max(ends) + 1
        rows = near[: (high - low) * row]
        file.read(offset + low * row, rows)
        few = replace(
            block,
            source=(high - low, *block.source[1:]),
            axes=(Span(ends[0] - low, count, first.step), *block.axes[1:]),
        )
        result = out[begin * each : (begin + count) * each].view(element_type(itemsize)).reshape(few.shape)
        np.copyto(result, few.apply(rows.view(result.dtype).reshape(few.source)))
    return True


def _run(block: Selection) -> int:
    """Elements of one run of a selection, as far as that can be seen without listing them."""
    length = 1
    for axis, side in zip(reversed(block.axes), reversed(block.source), strict=True):
        if not isinstance(axis, Span) or (axis.step != 1 and axis.count > 1):
            break
        length *= axis.count
        if axis.count != side:
            break
    return length


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
