"""Arrays on their way out of a store, encoded piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from math import prod
from typing import Any, Protocol

from numpy.typing import NDArray

from ndstream.core.dtypes import readable
from ndstream.core.ports import Lent, Reading, lent_or_read
from ndstream.errors import DataError, NDStreamError, UnsupportedDType
from ndstream.protocols.hdfstream.codec import begin_elements, encode_elements, end_elements
from ndstream.protocols.hdfstream.documents import carried, spelled
from ndstream.protocols.hdfstream.messages import Slices
from ndstream.protocols.hdfstream.slices import select
from ndstream.protocols.hdfstream.wire_types import WireType, wire_type
from ndstream.wire.buffers import BufferPool
from ndstream.wire.ndmsgpack import (
    LONGEST_PREFIX,
    Bins,
    Buffer,
    bin_header,
    encoded_length,
    write_prefix,
)


class Stream(Protocol):
    """An encoded array that is not all in memory."""

    @property
    def length(self) -> int | None:
        """Bytes that will come, when that is known beforehand."""
        ...

    @property
    def ready(self) -> Buffer | None:
        """The whole of it, when it is small and at hand."""
        ...

    def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """Encoded bytes; iterate once. Who `borrows` may be given some that are `Lent`."""
        ...

    async def aclose(self) -> None:
        """Give back what is held; at any time, more than once."""
        ...


def open_stream(reading: Reading, pool: BufferPool, *, extended: bool, inner: Slices | None = None) -> Stream:
    """Encode what a reading gives.

    Parameters
    ----------
    pool : BufferPool
        For what has to be converted.
    extended
        Whether the client understands our extension.
    inner : Slices, optional
        What to take of the axes of an array type, which stand behind those of the dataset. Without it, all.

    Raises
    ------
    UnsupportedDType
        Elements of this type cannot be read.
    InvalidSelection, OutOfBounds
        `inner` does not fit.
    """
    wire = wire_type(reading.dtype)
    if wire.carrier == "nothing":
        raise UnsupportedDType("elements of this type cannot be read")
    if wire.carrier == "bytes":
        return ArrayStream(reading, wire, pool, extended=extended, inner=inner)
    if inner is not None and inner.rank:
        select(inner, ())
    return ElementStream(reading, extended=extended)


def encoded_at_once(reading: Reading, *, extended: bool) -> bytes | None:
    """Encode what is at hand and travels as it is stored, in fewer steps than `open_stream`; None for all else."""
    ready = reading.ready
    wire = wire_type(reading.dtype)
    if not ready or wire.carrier != "bytes" or wire.recast is not None or wire.dims:
        return None
    nbytes = len(ready)
    if wire.target is None or nbytes != wire.target.itemsize * prod(reading.shape):
        return None
    return b"".join((_prefix(wire, reading.shape, nbytes, extended=extended), bin_header(nbytes), ready))


class ArrayStream:
    """Elements of a fixed size: the prefix, then the bytes in bins (SPEC.md, "Arrays")."""

    def __init__(
        self, reading: Reading, wire: WireType, pool: BufferPool, *, extended: bool, inner: Slices | None
    ) -> None:
        self._reading = reading
        self._wire = wire
        self._pool = pool
        self._narrow: Callable[[NDArray[Any]], NDArray[Any]] | None = None
        dims = wire.dims
        if inner is not None and (inner.rank or wire.dims):
            chosen = select(inner, wire.dims)
            if not chosen.is_everything:
                dims = chosen.shape
                self._narrow = _narrowing(inner, wire.dims)
        assert wire.target is not None
        shape = reading.shape if extended else reading.shape + dims
        self._nbytes = prod(reading.shape) * prod(dims) * wire.target.itemsize
        self._prefix = _prefix(wire, shape, self._nbytes, extended=extended)

    @property
    def length(self) -> int | None:
        """See `Stream`."""
        return encoded_length(self._prefix, self._nbytes)

    @property
    def ready(self) -> Buffer | None:
        """See `Stream`."""
        ready = self._reading.ready
        if ready is None:
            return None
        data = self._wire.convert(self._narrowed(ready))
        if len(data) != self._nbytes:
            raise DataError(f"{len(data)} bytes came for an array of {self._nbytes}")
        return b"".join((self._prefix, bin_header(len(data)), data)) if len(data) else self._prefix

    async def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """See `Stream`."""
        yield self._prefix
        bins = Bins(self._nbytes)
        recast = self._wire.recast_into(self._pool)

        def convert(stored: memoryview) -> memoryview:
            narrowed = self._narrowed(stored)
            return narrowed if recast is None else recast(narrowed)

        if recast is None and self._narrow is None:
            async for stored in lent_or_read(self._reading, borrows=borrows):
                for piece in bins.cut(stored):
                    yield piece
        else:
            async for buffer in self._reading.buffers():
                for piece in bins.cut(await asyncio.to_thread(convert, buffer)):
                    yield piece
        bins.finish()

    async def aclose(self) -> None:
        """See `Stream`."""
        await self._reading.aclose()

    def _narrowed(self, buffer: memoryview) -> memoryview:
        return buffer if self._narrow is None else memoryview(self._narrow(self._wire.array(buffer)).tobytes())


@lru_cache(maxsize=1024)
def _prefix(wire: WireType, shape: tuple[int, ...], nbytes: int, *, extended: bool) -> bytes:
    prefix = write_prefix(spelled(wire, extended=extended), wire.kind, shape, nbytes)
    if len(prefix) + len(bin_header(min(nbytes, 1 << 16))) <= LONGEST_PREFIX:
        return prefix
    # Too many members to spell where the client looks: the description of the dataset has spelled them already.
    assert wire.target is not None
    each = wire.target.itemsize * (prod(wire.dims) if extended else 1)
    return write_prefix(f"V{each}", "V", shape, nbytes)


def _narrowing(inner: Slices, dims: tuple[int, ...]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Take `inner` from arrays of shape (elements, *dims)."""
    if inner.many is not None:  # the dataset is a scalar: only then may these axes come first
        chosen = select(inner, dims)
        return lambda array: chosen.apply(array[0])
    box = (slice(None), *(slice(start, start + count) for start, count in inner.extents))
    return lambda array: array[box]


class ElementStream:
    """Elements of variable length, as an array that cannot be said to end before it does."""

    length: int | None = None
    ready: Buffer | None = None

    def __init__(self, reading: Reading, *, extended: bool) -> None:
        self._reading = reading
        self._extended = extended
        self._count = prod(reading.shape)
        self._dtype = readable(reading.dtype) or reading.dtype
        self._head = begin_elements(reading.shape, self._count, extended=extended)

    async def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """See `Stream`."""
        yield self._head
        missing = self._count
        async for elements in self._reading.elements():
            missing -= len(elements)
            yield encode_elements(elements if self._extended else carried(elements, self._dtype))
        if missing:
            raise DataError(f"{self._count} elements were promised, {missing} are missing")
        if tail := end_elements(extended=self._extended):
            yield tail

    async def aclose(self) -> None:
        """See `Stream`."""
        await self._reading.aclose()


class WatchedStream:
    """A stream that tells when it fails half way."""

    ready: Buffer | None = None

    def __init__(self, stream: Stream, failed: Callable[[NDStreamError], None]) -> None:
        self._stream = stream
        self._failed = failed
        self.length = stream.length

    async def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """See `Stream`."""
        try:
            async for piece in self._stream.pieces(borrows=borrows):
                yield piece
        except NDStreamError as error:
            self._failed(error)
            raise

    async def aclose(self) -> None:
        """See `Stream`."""
        await self._stream.aclose()
