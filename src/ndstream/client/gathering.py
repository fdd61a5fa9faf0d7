"""Read any selection from a source that answers slice requests."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.connection import SliceSource
from ndstream.core.selection import Selection
from ndstream.errors import TooLarge
from ndstream.protocols.hdfstream.descriptor import MOST_RANGES
from ndstream.protocols.hdfstream.ranges import BLOCK, Whole, plan

VARIABLE_ELEMENTS = (
    1 << 20
)  # strings or sequences of one request: their answer is held in memory before it is taken apart


def gather(
    source: SliceSource,
    path: str,
    name: str,
    selection: Selection,
    dest: NDArray[Any],
    *,
    most_ranges: int = MOST_RANGES,
    straight: bool = True,
) -> None:
    """Read a selection into an array.

    Parameters
    ----------
    source, path, name
        Where from.
    selection : Selection
    dest : ndarray, C-contiguous
        Of the shape of the selection, followed by the axes of an array type. What can be is received in it directly.
    most_ranges : int
        Ranges of the first axis in one request.
    straight : bool
        False when the source must convert elements: it then gets no more than a block at a time.
    """
    extra = dest.shape[len(selection.shape) :]
    flat = dest.reshape((selection.count, *extra))
    if dest.dtype.hasobject:
        _gather_variable(source, path, name, selection, flat, most_ranges, VARIABLE_ELEMENTS)
    elif straight:
        _gather(source, path, name, selection, flat, most_ranges)
    else:
        start = 0
        for block in selection.blocks(max(1, BLOCK // (dest.itemsize * prod(extra)))):
            _gather(source, path, name, block, flat[start : start + block.count], most_ranges)
            start += block.count


def _gather(
    source: SliceSource, path: str, name: str, selection: Selection, flat: NDArray[Any], most_ranges: int
) -> None:
    extra = flat.shape[1:]
    spare = np.empty(0, flat.dtype)
    for transfer in plan(selection, flat.itemsize * prod(extra), most_ranges):
        shape = transfer.descriptor.shape + extra
        if isinstance(transfer, Whole):
            answer = flat[transfer.start : transfer.stop].reshape(shape)
            source.request_slice_into(path, name, transfer.descriptor.nested(), answer)
            continue
        if spare.size < prod(shape):
            # Memory that was used before is much faster than fresh memory.
            spare = np.empty(prod(shape), flat.dtype)
        answer = spare[: prod(shape)].reshape(shape)
        source.request_slice_into(path, name, transfer.descriptor.nested(), answer)
        transfer.place(answer, flat)


def _gather_variable(
    source: SliceSource, path: str, name: str, selection: Selection, flat: NDArray[Any], most_ranges: int, most: int
) -> None:
    """Read elements of variable length, fewer at a time when an answer is too long."""
    start = 0
    for block in selection.blocks(most):
        part = flat[start : start + block.count]
        try:
            _gather(source, path, name, block, part, most_ranges)
        except TooLarge:
            if block.count == 1:
                raise
            _gather_variable(source, path, name, block, part, most_ranges, block.count // 2)
        start += block.count
