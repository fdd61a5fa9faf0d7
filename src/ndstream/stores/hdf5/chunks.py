"""The stored chunks of one dataset: found, read, decoded, put into results."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.selection import Part, chunk_counts
from ndstream.errors import Corrupt
from ndstream.stores.hdf5.cache import ByteCache
from ndstream.stores.hdf5.decode import Pipeline, pipeline
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.layout import Chunked
from ndstream.stores.hdf5.plan import box_around, span_of
from ndstream.wire.buffers import BufferPool, Scratch

#: Decoded chunks, by the generation of their file in which they are at an offset, that offset, and how they are decoded
#: and shaped: in a damaged file two datasets may claim the same bytes.
ChunkCache = ByteCache[tuple[str, int, Pipeline, tuple[int, ...]], NDArray[Any]]

_AT_ONCE = 64 << 10


class Chunks:
    """Chunks of a dataset.

    Parameters
    ----------
    file : OpenFile
    layout : Chunked
    shape : tuple of int
        Of the dataset.
    itemsize : int, bytes
    fill : bytes or None
        One element, for chunks that were never written.
    pool : BufferPool
        For chunks that are kept.
    cache : ChunkCache
        Keeps chunks of which a reader used only a part.
    keep : int, bytes
        Largest chunk that is put into the cache.

    Notes
    -----
    Safe to use from several threads at once.
    """

    def __init__(
        self,
        file: OpenFile,
        layout: Chunked,
        shape: tuple[int, ...],
        itemsize: int,
        fill: bytes | None,
        *,
        pool: BufferPool,
        cache: ChunkCache,
        keep: int,
    ) -> None:
        self.grid = layout.chunks
        self.itemtype = element_type(itemsize)
        self.nbytes = math.prod(layout.chunks) * itemsize
        self._file = file
        self._pipeline = pipeline(layout.filters, self.nbytes)
        self.refresh(layout, shape, file.generation)
        self._filled_with = fill
        self._pool = pool
        self._cache = cache
        self._keep = keep

    @cached_property
    def _fill(self) -> Any:
        fill = self._filled_with
        return np.frombuffer(fill, self.itemtype)[0] if fill and any(fill) else np.zeros((), self.itemtype)[()]

    def refresh(self, layout: Chunked, shape: tuple[int, ...], generation: str) -> None:
        """Find chunks where `layout` says, which is of that generation; no thread may be reading meanwhile."""
        self._generation = generation
        self._counts = chunk_counts(shape, layout.chunks)
        self._numbers, self._offsets, self._sizes, self._masks = layout.index

    def put(self, part: Part, result: NDArray[Any], scratch: Scratch) -> None:
        """Read what `part` takes from its chunk, into its place in `result` (of dtype `itemtype`).

        `scratch` is of the calling thread.

        Raises
        ------
        Corrupt, Replaced
        """
        row = self._find(part.chunk)
        if row is None:
            result[part.target] = self._fill
            return
        if part.whole:
            place = result[(*part.target, ...)]
            if place.size * place.itemsize == self.nbytes and place.flags.c_contiguous:
                self._read(row, place.reshape(-1).view(np.uint8), scratch)
                return
        result[part.target] = self._chunk(row, part, scratch)[part.source]

    def put_at_once(self, parts: Sequence[Part], result: NDArray[Any]) -> bool:
        """Do the same for several parts if that takes no waiting and no decoding; False leaves `result` undefined."""
        for part in parts:
            row = self._find(part.chunk)
            if row is None:
                result[part.target] = self._fill
                continue
            chunk = self._cached(row)
            if chunk is None:
                if not self._is_plain(row):
                    return False
                first, last = self._needed(part)
                near = self._pool.take(self.nbytes)
                offset = int(self._offsets[row]) + first
                if last - first > _AT_ONCE or not self._file.read_now(offset, near[first:last].data):
                    return False
                chunk = near.view(self.itemtype).reshape(self.grid)
            result[part.target] = chunk[part.source]
        return True

    def _find(self, chunk: tuple[int, ...]) -> int | None:
        number = 0
        for position, count in zip(chunk, self._counts, strict=True):
            number = number * count + position
        # Not numpy's own search: that lets go of the GIL, and a thread that decodes queues to get it back.
        row = bisect_left(self._numbers, number)
        return row if row < self._numbers.size and self._numbers[row] == number else None

    def _mask(self, row: int) -> int:
        return int(self._masks[row]) if self._masks.size else 0

    def _is_plain(self, row: int) -> bool:
        return self._pipeline.passes(self._mask(row))

    def _needed(self, part: Part) -> tuple[int, int]:
        first, last = span_of(*box_around(part.source, self.grid), self.grid)
        return first * self.itemtype.itemsize, last * self.itemtype.itemsize

    def _cached(self, row: int) -> NDArray[Any] | None:
        return self._cache.get(self._key(row))

    def _key(self, row: int) -> tuple[str, int, Pipeline, tuple[int, ...]]:
        return self._generation, int(self._offsets[row]), self._pipeline, self.grid

    def _chunk(self, row: int, part: Part, scratch: Scratch) -> NDArray[Any]:
        chunk = self._cached(row)
        if chunk is not None:
            return chunk
        out = self._pool.take(self.nbytes)
        chunk = out.view(self.itemtype).reshape(self.grid)
        if self._is_plain(row):
            # Stored as it is: only what is needed of it is read, the rest of the buffer stays as it was.
            first, last = self._needed(part)
            self._file.read(int(self._offsets[row]) + first, out[first:last])
            return chunk
        self._read(row, out, scratch)
        if not part.whole and self.nbytes <= self._keep:
            self._cache.put(self._key(row), chunk, self.nbytes)
        return chunk

    def _read(self, row: int, out: NDArray[np.uint8], scratch: Scratch) -> None:
        offset, size = int(self._offsets[row]), int(self._sizes[row])
        if self._is_plain(row):
            if size != out.size:
                raise Corrupt(f"a chunk holds {size} bytes where {out.size} belong")
            self._file.read(offset, out)
            return
        stored = scratch.take(size)
        self._file.read(offset, stored)
        self._pipeline.decode(stored, self._mask(row), out, scratch.take)
