"""The shape of chunks when nobody chose one."""

from __future__ import annotations

from math import ceil, prod

from ndstream.core.limits import KiB, MiB

_SMALLEST = 64 * KiB
_LARGEST = 1 * MiB


def chunk_shape(shape: tuple[int, ...], maxshape: tuple[int | None, ...] | None, itemsize: int) -> tuple[int, ...]:
    """Choose the shape of chunks.

    Parameters
    ----------
    shape
        Of the dataset, one axis at least.
    maxshape
        Its largest shape; None for an axis without end.
    itemsize : int, bytes

    Returns
    -------
    tuple of int
        Chunks of 64 KiB for small datasets up to 1 MiB for large ones. An axis that may grow without end is divided
        last: a chunk holds whole rows if they fit, and few of them, because adding a row writes its chunk again. The
        other sides are halved in turn, the slowest axis first, so that a read along any axis meets few chunks.

    Examples
    --------
    >>> chunk_shape((0, 512), (None, 512), 8)
    (16, 512)
    >>> chunk_shape((1000, 1000, 1000), None, 4)
    (63, 63, 63)
    """
    largest = maxshape or shape
    growing = [axis for axis, most in enumerate(largest) if most is None]
    sides = [1 if most is None else max(1, side) for side, most in zip(shape, largest, strict=True)]
    row = prod(sides) * itemsize
    target = min(max(row if growing else row // 1024, _SMALLEST), _LARGEST)
    halved = [axis for axis in range(len(sides)) if axis not in growing]
    turn = 0
    while prod(sides) * itemsize > target and any(sides[axis] > 1 for axis in halved):
        axis = halved[turn % len(halved)]
        sides[axis] = ceil(sides[axis] / 2)
        turn += 1
    while growing and prod(sides) * itemsize * 2 ** len(growing) <= target:
        for axis in growing:
            sides[axis] *= 2
    return tuple(sides)
