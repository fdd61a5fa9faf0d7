"""Reading what only the HDF5 library can read: box by box, through a worker process."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import Limits
from ndstream.core.selection import Part, Selection, Span
from ndstream.errors import Corrupt, TooLarge
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.layout import Library
from ndstream.stores.hdf5.plan import box_around, grid_of
from ndstream.wire.buffers import BufferPool

#: (start, count, step, most bytes of the answer) → bytes for a fixed type, else a flat list of elements.
Fetch: TypeAlias = Callable[[tuple[int, ...], tuple[int, ...], tuple[int, ...], int], Awaitable[bytes | list[Any]]]

#: Elements of variable length that are asked for at a time: how large they are is known only afterwards.
_ELEMENTS = 1 << 14


class Boxes:
    """A dataset as boxes of elements that are fetched.

    Parameters
    ----------
    layout : Library
    shape : tuple of int
        Of the dataset.
    itemsize : int or None, bytes
        None when the type is not fixed.
    fetch : function
        Asks a worker.
    limits : Limits
    """

    def __init__(
        self, layout: Library, shape: tuple[int, ...], itemsize: int | None, fetch: Fetch, limits: Limits
    ) -> None:
        size = itemsize or max(limits.piece // _ELEMENTS, 1)
        chunks = layout.chunks
        self.grid = (
            chunks if chunks and math.prod(chunks) * size <= limits.piece else grid_of(shape, size, limits.piece)
        )
        self._itemsize = itemsize
        self._itemtype: np.dtype[Any] = element_type(itemsize) if itemsize else np.dtype(object)
        self._shape = shape
        self._fetch = fetch
        self._most = limits.piece if itemsize else limits.request_memory

    async def single(self, selection: Selection) -> memoryview | None:
        """Fetch a selection of a fixed type that is one box in one cell of the grid, as it comes; None for others."""
        start, count = [], []
        for axis, length in zip(selection.axes, self.grid, strict=True):
            if not isinstance(axis, Span) or axis.step != 1 or not axis.count:
                return None
            if axis.start // length != (axis.start + axis.count - 1) // length:
                return None
            start.append(axis.start)
            count.append(axis.count)
        data = await self._fetch(tuple(start), tuple(count), (1,) * len(count), self._most)
        if not isinstance(data, bytes) or len(data) != math.prod(count) * (self._itemsize or 0):
            raise Corrupt(f"another number of elements was read than the {math.prod(count)} that were expected")
        return memoryview(data)

    async def bytes_of(self, block: Selection, pool: BufferPool) -> NDArray[np.uint8]:
        """Fetch a block of a fixed type; uint8, C order."""
        assert self._itemsize is not None
        out = pool.take(block.count * self._itemsize)
        result: NDArray[Any] = out.view(self._itemtype).reshape(block.shape)
        for part in block.over(self.grid):
            result[part.target] = await self._part(part)
        return out

    async def elements(self, selection: Selection) -> AsyncIterator[list[Any]]:
        """Fetch a selection of a type of variable length, in lists."""
        for block in selection.blocks(_ELEMENTS, self.grid):
            async for some in self._elements_of(block):
                yield some

    async def _elements_of(self, block: Selection) -> AsyncIterator[list[Any]]:
        # In smaller ones when an answer would become too large: how large it is nobody knows before.
        result: NDArray[Any] = np.empty(block.shape, object)
        try:
            for part in block.over(self.grid):
                result[part.target] = await self._part(part)
        except TooLarge:
            if block.count <= 1:
                raise
            for half in block.blocks(-(-block.count // 2)):
                async for some in self._elements_of(half):
                    yield some
        else:
            yield result.reshape(-1).tolist()

    async def _part(self, part: Part) -> NDArray[Any]:
        """Fetch the box around a part of a cell of the grid, and take the part out of it."""
        start, stop = box_around(part.source, self.grid)
        count = tuple(high - low for low, high in zip(start, stop, strict=True))
        corner = tuple(
            position * length + low for position, length, low in zip(part.chunk, self.grid, start, strict=True)
        )
        data = await self._fetch(corner, count, (1,) * len(count), self._most)
        box = self._array(data, count)
        chosen: NDArray[Any] = box[
            tuple(
                _shifted(entry, low, length) for entry, low, length in zip(part.source, start, self.grid, strict=True)
            )
        ]
        return chosen

    def _array(self, data: bytes | list[Any], count: tuple[int, ...]) -> NDArray[Any]:
        expected = math.prod(count)
        if isinstance(data, list):
            # Not np.array: elements that are lists themselves would become axes.
            found, flat = len(data), np.fromiter(data, object, len(data))
        else:
            found, rest = divmod(len(data), self._itemsize or 1)
            flat = np.frombuffer(data, self._itemtype) if not rest and self._itemsize else np.empty(0, object)
        if found != expected or flat.size != expected:
            raise Corrupt(f"{found} elements were read where {expected} were expected")
        return flat.reshape(count)


def _shifted(entry: Any, by: int, length: int) -> Any:
    """Index into a box that begins at `by`, from one into a whole cell of `length`."""
    if not isinstance(entry, slice):
        return entry - by
    chosen = range(length)[entry]
    stop = chosen.stop - by
    return slice(chosen.start - by, stop if stop >= 0 else None, chosen.step)
