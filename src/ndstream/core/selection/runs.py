"""Contiguous runs of a selection in the flattened source."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ndstream.core.selection.axes import LARGEST, Axis, Indices, Span, merged
from ndstream.errors import TooLarge


def runs(
    source: tuple[int, ...], axes: tuple[Axis, ...], order: Iterable[int], joint: tuple[int, ...]
) -> tuple[Indices, Indices]:
    """Starts and lengths of the runs, in the order of the result.

    `order` names the axes from the slowest of the result to the fastest, the first of `joint` for all of these.
    """
    strides = [1] * len(source)
    for number in range(len(source) - 1, 0, -1):
        strides[number - 1] = strides[number] * source[number]
    if any(axis.count == 0 for axis in axes):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if math.prod(source) > LARGEST:
        raise TooLarge(f"positions in an array of shape {source} do not fit in 64 bits")

    base = 0
    length = 1
    starts: Indices | None = None  # None as long as there is one run, of `length`
    lengths: Indices | None = None  # None as long as all runs have `length`
    for number in reversed(tuple(order)):
        axis, stride = axes[number], strides[number]
        if number in joint:
            offsets = sum([axes[k].expand() * strides[k] for k in joint], np.zeros(1, np.int64))
        elif isinstance(axis, Span):
            base += axis.start * stride
            if axis.count == 1:
                continue
            if starts is None and axis.step == 1 and stride == length:
                length *= axis.count
                continue
            offsets = np.arange(axis.count, dtype=np.int64) * (axis.step * stride)
        elif starts is None and stride == length:
            starts, lengths = axis.runs()
            starts, lengths = starts * stride, lengths * stride
            continue
        else:
            offsets = axis.expand() * stride
        if lengths is not None:
            lengths = np.tile(lengths, offsets.size)
        starts = offsets if starts is None else (offsets[:, None] + starts).reshape(-1)
    if starts is None:
        return np.array([base], np.int64), np.array([length], np.int64)
    return merged(starts + base, np.full(starts.size, length, np.int64) if lengths is None else lengths)
