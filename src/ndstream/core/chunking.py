"""The shape of chunks when nobody chose one, and chunks that somebody made."""

from __future__ import annotations

from math import ceil, prod

from ndstream.core.limits import KiB, MiB
from ndstream.core.operations import WriteChunk
from ndstream.errors import InvalidRequest, OutOfBounds

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


def check_chunk(
    operation: WriteChunk, shape: tuple[int, ...], chunks: tuple[int, ...], most: int | None
) -> tuple[int, ...]:
    """Make sure that a chunk is one of the grid; returns the shape that the dataset of that shape needs for it.

    Its first axis may have `most` elements, None for any number: the last chunk may reach beyond that.

    Raises
    ------
    InvalidRequest, OutOfBounds
    """
    start, name = operation.start, operation.name
    if len(start) != len(shape) or any(index < 0 or index % side for index, side in zip(start, chunks, strict=False)):
        raise InvalidRequest(f"no chunk of {name}, which are of the shape {chunks}, begins at {start}")
    if any(index >= side for index, side in zip(start[1:], shape[1:], strict=True)):
        raise OutOfBounds(f"{name} of the shape {shape} does not reach to {start}")
    needed = start[0] + chunks[0]
    if most is not None and start[0] < most < needed:
        needed = most
    return (max(shape[0], needed), *shape[1:])


def check_stored(operation: WriteChunk, nbytes: int, filters: int, whole: int) -> None:
    """Make sure that a chunk may have `nbytes` bytes, where it has `whole` before it goes through so many filters.

    Raises
    ------
    InvalidRequest
    """
    if not 0 <= operation.mask < 1 << filters:
        raise InvalidRequest(f"{operation.name} has {filters} filters; the mask {operation.mask} names others")
    if not nbytes:
        raise InvalidRequest("a stored chunk has one byte at least")
    if operation.mask == (1 << filters) - 1 and nbytes != whole:
        raise InvalidRequest(f"{nbytes} bytes, where a chunk of {operation.name} without filters has {whole}")
