"""Reading datasets: the way of the bytes from files into buffers, outside the HDF5 library.

What is small and at hand is read at once, on the event loop. Everything else is made in threads, piece by piece, a few
pieces ahead of what is being sent, within the budgets of `ndstream.core.limits.Limits`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import item_size, readable
from ndstream.core.limits import Limits
from ndstream.core.ports import Reading
from ndstream.core.selection import Selection
from ndstream.errors import Replaced, TooLarge, UnsupportedDType
from ndstream.stores.budget import Budget
from ndstream.stores.hdf5.cache import ByteCache
from ndstream.stores.hdf5.chunks import ChunkCache, Chunks
from ndstream.stores.hdf5.descriptors import Descriptors, OpenFile
from ndstream.stores.hdf5.gate import Watch
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.layout import Chunked, Contiguous, Inline, Library
from ndstream.stores.hdf5.library import Boxes, Fetch
from ndstream.stores.hdf5.messages import Located
from ndstream.stores.hdf5.plan import plan
from ndstream.stores.hdf5.reading import LibraryReading, Means, PieceReading, ReadyReading, whole
from ndstream.stores.hdf5.spool import Spool, unspooled
from ndstream.stores.hdf5.stored import StoredChunkReading, StoredRows
from ndstream.stores.hdf5.work import Copying, Decoding, Filling, Work, loadings
from ndstream.stores.spools import SpoolFiles
from ndstream.wire.buffers import BufferPool, bytes_of

#: Runs or chunks that are read on the event loop before it is better to leave that to a thread.
_FEW = 8


class Reader:
    """Reads datasets that were located.

    Parameters
    ----------
    limits : Limits
    threads : int
        How many threads read and decode.

    Notes
    -----
    Belongs to one event loop. Give it back with `aclose`.
    """

    def __init__(self, limits: Limits, *, threads: int) -> None:
        self._means = Means(
            limits,
            # Chunks in the cache are pooled too, and come back one by one.
            BufferPool(limits.buffers + limits.chunk_cache),
            Budget(limits.buffers),
            ThreadPoolExecutor(threads, thread_name_prefix="ndstream-read"),
        )
        self._shares = threads
        self._files = Descriptors(limits.open_files)
        self._cache: ChunkCache = ByteCache(limits.chunk_cache)
        self._spools = SpoolFiles()

    async def open(
        self,
        located: Located,
        selection: Selection,
        fetch: Fetch,
        *,
        file: OpenFile | None = None,
        watch: Watch | None = None,
    ) -> Reading:
        """Prepare to read; what is small is read at once.

        Parameters
        ----------
        located : Located
            Where the dataset is, and in which state of which file.
        selection : Selection
            Of the shape of the dataset.
        fetch : function
            Asks a worker for a box of elements: for a `Library` layout.
        file : OpenFile, optional
            The file, when it is open already.
        watch : Watch, optional
            Of a file that is written meanwhile.

        Returns
        -------
        Reading
            With `ready` set when all is at hand, which it always is for `Limits.inline_data` bytes or less of a fixed
            type.

        Raises
        ------
        Replaced
            When the file is not the one that was located.
        UnsupportedDType
            When there is no way to read the type.
        TooLarge, Corrupt
        """
        layout = located.layout
        if isinstance(layout, Library):
            return await self._from_library(located, layout, selection, fetch, watch)
        ready = self.at_hand(located, selection, file=file)
        if ready is not None:
            return ready
        dtype, itemsize, elsewhere = located.dataset.dtype, located.itemsize, bool(located.dataset.elsewhere)
        assert itemsize is not None and not isinstance(layout, Inline)
        nbytes = selection.count * itemsize
        if file is None:
            file = self._files.open(located.file, located.generation)
        works: Iterator[Work]
        refresh: Callable[[Located], None] | None = None
        if isinstance(layout, Chunked):
            chunks = self._chunks(file, located, layout, itemsize)
            works = self._decoding(chunks, layout, selection)
            refresh = partial(_refresh, chunks)
        else:
            works = self._copying(file, layout, selection, itemsize, located.dataset.fill)
        reading = PieceReading(
            dtype, selection.shape, nbytes, self._means, file, works, watch, refresh, elsewhere=elsewhere
        )
        if nbytes > self._means.limits.inline_data:
            return reading
        return ReadyReading(dtype, selection.shape, await whole(reading), elsewhere=elsewhere)

    def at_hand(self, located: Located, selection: Selection, *, file: OpenFile | None = None) -> ReadyReading | None:
        """Read at once what is small, and takes no waiting and no decoding; None when it is not so.

        Parameters, and errors, are those of `open`.
        """
        layout = located.layout
        if isinstance(layout, Library):
            return None
        dtype, itemsize, elsewhere = located.dataset.dtype, located.itemsize, bool(located.dataset.elsewhere)
        if itemsize is None:
            raise UnsupportedDType(f"elements of this type are not stored as bytes: {dtype}")
        nbytes = selection.count * itemsize
        if not nbytes:
            return ReadyReading(dtype, selection.shape, memoryview(b""), elsewhere=elsewhere)
        if isinstance(layout, Inline):
            array = np.frombuffer(layout.data, element_type(itemsize)).reshape(selection.source)
            return ReadyReading(dtype, selection.shape, bytes_of(selection.apply(array)), elsewhere=elsewhere)
        if nbytes > self._means.limits.inline_data:
            return None
        if file is None:
            file = self._files.open(located.file, located.generation)
        if isinstance(layout, Chunked):
            ready = _chunks_at_once(self._chunks(file, located, layout, itemsize), selection)
        else:
            ready = _runs_at_once(file, layout, selection, itemsize, nbytes)
        if ready is None:
            return None
        file.check()
        return ReadyReading(dtype, selection.shape, ready, elsewhere=elsewhere)

    def open_stored(
        self, located: Located, selection: Selection, *, file: OpenFile | None = None, watch: Watch | None = None
    ) -> StoredChunkReading:
        """Prepare to read the chunks that a selection touches as they are stored; parameters as of `open`.

        Raises
        ------
        Replaced
            When the file is not the one that was located.
        UnsupportedDType
            When the dataset is not stored in chunks that can be decoded without the HDF5 library.
        """
        layout = located.layout
        if not isinstance(layout, Chunked):
            raise UnsupportedDType("the dataset is not stored in chunks that can be decoded without the HDF5 library")
        if file is None:
            file = self._files.open(located.file, located.generation)
        rows = StoredRows(layout, selection)
        dtype, means = located.dataset.dtype, self._means
        works = rows.works(file, means.limits)
        reading = PieceReading(dtype, selection.shape, rows.nbytes, means, file, works, watch, rows.refresh)
        return StoredChunkReading(located.dataset, rows, reading)

    @property
    def budget(self) -> Budget:
        """Memory that the readings hold."""
        return self._means.budget

    async def aclose(self) -> None:
        """End the threads, close the files, give the memory back."""
        await asyncio.to_thread(self._means.threads.shutdown, cancel_futures=True)
        self._files.clear()
        self._cache.clear()
        self._spools.clear()
        self._means.pool.clear()

    async def _from_library(
        self, located: Located, layout: Library, selection: Selection, fetch: Fetch, watch: Watch | None
    ) -> Reading:
        dtype = readable(located.dataset.dtype)
        if dtype is None:
            raise UnsupportedDType(f"elements of this type cannot be read: {located.dataset.dtype}")
        itemsize, elsewhere = item_size(dtype), bool(located.dataset.elsewhere)
        boxes = Boxes(layout, selection.source, itemsize, fetch, self._means.limits)
        reading = LibraryReading(dtype, itemsize, layout, selection, boxes, self._means, watch, elsewhere=elsewhere)
        if reading.nbytes is None or reading.nbytes > self._means.limits.inline_data:
            return reading
        single = await boxes.single(selection)
        data = await whole(reading) if single is None else single
        return ReadyReading(dtype, selection.shape, data, elsewhere=elsewhere)

    def _chunks(self, file: OpenFile, located: Located, layout: Chunked, itemsize: int) -> Chunks:
        limits = self._means.limits
        shape = located.dataset.shape or ()
        chunks = Chunks(
            file, layout, shape, itemsize, located.dataset.fill,
            pool=self._means.pool, cache=self._cache, keep=limits.chunk_cache // 4,
        )  # fmt: skip
        if chunks.nbytes > limits.chunk:
            raise TooLarge(f"a chunk of {chunks.nbytes} bytes is more than the limit 'chunk' ({limits.chunk})")
        return chunks

    def _copying(
        self, file: OpenFile, layout: Contiguous, selection: Selection, itemsize: int, fill: bytes | None
    ) -> Iterator[Work]:
        start = selection.run_start
        if layout.offset is not None and start is not None:
            whole = (layout.offset + start * itemsize, selection.count * itemsize)
            yield from loadings(file, [whole], self._means.limits, unit=itemsize)
            return
        for piece in plan(selection, layout, itemsize, self._means.limits):
            if layout.offset is None:
                yield Filling(piece.block, itemsize, fill)
            else:
                yield Copying(file, layout.offset, piece.block, itemsize, self._means.pool)

    def _decoding(self, chunks: Chunks, layout: Chunked, selection: Selection) -> Iterator[Work]:
        limits, itemsize = self._means.limits, chunks.itemtype.itemsize
        # What a thread needs besides the result: the stored chunk, the decoded one, and one between two filters. Of a
        # chunk that is stored as it is, only the rows that a piece needs.
        each = 3 * chunks.nbytes if layout.filters else min(chunks.nbytes, limits.piece)
        shares = max(min(self._shares, limits.request_memory // each), 1)
        for piece in plan(selection, layout, itemsize, limits):
            if piece.spooled:
                most = max(limits.piece // itemsize, 1)
                spool = Spool(chunks, piece.block, self._means.pool, self._spools)
                yield from unspooled(spool, most, shares, shares * each)
            else:
                yield Decoding(chunks, piece.block, shares, shares * each, self._means.pool)


def _refresh(chunks: Chunks, located: Located) -> None:
    if not isinstance(located.layout, Chunked):
        raise Replaced("the dataset is stored in another way than before")
    chunks.refresh(located.layout, located.dataset.shape or (), located.generation)


def _runs_at_once(
    file: OpenFile, layout: Contiguous, selection: Selection, itemsize: int, nbytes: int
) -> memoryview | None:
    """Read a few runs, `nbytes` together, without waiting; None when that is not possible."""
    if layout.offset is None:
        return None
    single = selection.run_start
    if single is not None:
        whole = memoryview(bytearray(nbytes))
        return whole if file.read_now(layout.offset + single * itemsize, whole) else None
    starts, lengths = selection.runs()
    if starts.size > _FEW:
        return None
    out = np.empty(nbytes, np.uint8)
    at = 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        end = at + length * itemsize
        if not file.read_now(layout.offset + start * itemsize, out[at:end].data):
            return None
        at = end
    return out.data


def _chunks_at_once(chunks: Chunks, selection: Selection) -> memoryview | None:
    """Take parts of a few chunks without waiting and decoding; None when that is not possible."""
    parts = list(islice(selection.over(chunks.grid), _FEW + 1))
    if len(parts) > _FEW:
        return None
    result: NDArray[Any] = np.empty(selection.shape, chunks.itemtype)
    return bytes_of(result) if chunks.put_at_once(parts, result) else None
