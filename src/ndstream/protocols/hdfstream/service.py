"""What a request is answered with: which documents, and which data in them.

Everything is looked up, checked and opened before an `Answer` exists; what can go wrong after that is reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import msgspec

from ndstream.core.model import Directory, File, Group, Node
from ndstream.core.ports import Access, Detail, Reading, Service
from ndstream.core.selection import Selection
from ndstream.errors import DataError, InvalidSelection, NDStreamError, NotFound, Replaced, TooLarge
from ndstream.protocols.hdfstream import codec
from ndstream.protocols.hdfstream.cache import DocumentCache
from ndstream.protocols.hdfstream.documents import WIDEST, Describer, directory_document, file_entry, reveal
from ndstream.protocols.hdfstream.messages import Request, Slices
from ndstream.protocols.hdfstream.slices import select, split
from ndstream.protocols.hdfstream.streams import Stream, WatchedStream, encoded_at_once, open_stream
from ndstream.protocols.hdfstream.wire_types import wire_type
from ndstream.wire.buffers import BufferPool
from ndstream.wire.ndmsgpack import Buffer

T = TypeVar("T")
Part: TypeAlias = Buffer | Stream

_DEEPEST = 64  # levels of groups in one document; members may come as nil at any depth
_WIDE = 256  # members of a group that is described in a thread: others need not wait for it
_REMEMBERED = 4096  # datasets known to fail half way
_log = logging.getLogger(__name__)


class Answer(msgspec.Struct, frozen=True):
    """What to send: buffers, and streams between them. Close it, whatever happens."""

    parts: tuple[Part, ...]

    @property
    def length(self) -> int | None:
        """Bytes in all; None when a stream does not know."""
        total = 0
        for part in self.parts:
            length = len(part) if isinstance(part, bytes | memoryview) else part.length
            if length is None:
                return None
            total += length
        return total

    async def aclose(self) -> None:
        """Close the streams."""
        await _close(part for part in self.parts if not isinstance(part, bytes | memoryview))


async def _close(streams: Iterable[Stream]) -> None:
    for stream in streams:
        await stream.aclose()


class HDFStream:
    """The hdfstream protocol over a store; may be used by any number of requests at once."""

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self._limits = service.limits
        self._counters = service.counters
        self._cache = DocumentCache(service.limits.layout_cache // 4)
        self._pool = BufferPool(2 * service.limits.request_memory)
        self._failing: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    async def answer(self, path: str, request: Request, access: Access, *, extended: bool) -> Answer:
        """Answer a request.

        Parameters
        ----------
        path : str
            Virtual path, without slashes at its ends.
        extended
            Whether the client understands our extension.

        Raises
        ------
        NotFound
            No such path or object, or not for this user.
        InvalidSelection, OutOfBounds, UnsupportedDType, DataError, ServiceError
        """
        try:
            return await self._attempt(path, request, access, extended)
        except NotFound:
            # A stock client was shown other names for what it could not have digested (see `disguise`).
            for meant in [] if extended else _revealed(path, request):
                with suppress(NotFound):
                    return await self._attempt(*meant, access, extended)
            raise

    async def _attempt(self, path: str, request: Request, access: Access, extended: bool) -> Answer:
        if request.object is None:
            return await self._entry(path, request.depth, access, extended)
        name = "/" + request.object.strip("/")
        try:
            if request.slices is not None:
                return await self._elements(path, name, request.slices, access, extended)
            return await self._object(path, name, request, access, extended)
        except NotFound:
            # Only now ask what the path is: for a directory the object is ignored, nothing gets its own message.
            entry = await self._lookup(path, request.depth, access)
            if isinstance(entry, Directory):
                return _directory(entry, extended)
            raise

    # -- directories and files --

    async def _lookup(self, path: str, depth: int, access: Access) -> Directory | File:
        try:
            return await self._store.lookup(path, access, depth=depth)
        except NotFound as error:
            raise NotFound(f"Invalid path specified: {path}") from error

    async def _entry(self, path: str, depth: int, access: Access, extended: bool) -> Answer:
        entry = await self._lookup(path, depth, access)
        if isinstance(entry, Directory):
            return _directory(entry, extended)
        return Answer((codec.encode(file_entry(entry, extended=extended)),))

    # -- elements --

    async def _elements(self, path: str, name: str, slices: Slices, access: Access, extended: bool) -> Answer:
        def choose(shape: tuple[int, ...]) -> Selection:
            return select(slices if slices.rank <= len(shape) else split(slices, len(shape))[0], shape)

        reading = await self._store.read(path, name, access, choose)
        try:
            part = self._encoded(reading, slices, extended)
        except BaseException:
            await reading.aclose()
            raise
        if isinstance(part, bytes | memoryview):
            await reading.aclose()
        return Answer((part,))

    def _encoded(self, reading: Reading, slices: Slices, extended: bool) -> Part:
        """Encode what a reading gives: all of it, when it is small and at hand."""
        if slices.rank == len(reading.shape) and (whole := encoded_at_once(reading, extended=extended)) is not None:
            return whole
        stream = open_stream(reading, self._pool, extended=extended, inner=_inner(reading, slices, extended))
        ready = stream.ready
        return stream if ready is None else ready

    # -- objects --

    async def _object(self, path: str, name: str, request: Request, access: Access, extended: bool) -> Answer:
        depth = min(request.depth, _DEEPEST)
        detail = Detail(depth=depth, wide=WIDEST, data=min(request.limit, self._limits.inline_data))
        node = await self._store.describe(path, name, access, detail)
        form = (request.limit, depth, extended)
        encoded = self._cache.get(node, form)
        if encoded is not None:
            return Answer((encoded,))
        describer = Describer(limit=request.limit, depth=depth, extended=extended)
        missing = list(describer.missing(node, name))
        if missing:
            return await self._streamed(path, name, node, missing, describer, access)
        encoded = await self._encode(describer, node, name)
        self._cache.put(node, form, encoded)
        return Answer((encoded,))

    async def _encode(self, describer: Describer, node: Node, name: str) -> bytes:
        def work() -> bytes:
            return codec.encode(describer.document(node, name))

        wide = isinstance(node, Group) and len(node.members) > _WIDE
        encoded = await asyncio.to_thread(work) if wide else work()
        if len(encoded) > self._limits.document:
            raise TooLarge(f"a description may have {self._limits.document} bytes, this one has {len(encoded)}")
        return encoded

    async def _streamed(
        self, path: str, name: str, node: Node, missing: list[str], describer: Describer, access: Access
    ) -> Answer:
        """Answer with a description and data that is not in it."""
        file = await self._lookup(path, 0, access)
        generation = file.generation if isinstance(file, File) else ""
        streams: dict[str, Stream] = {}
        try:
            for each in missing:
                stream = await self._member(path, each, generation, access, describer.extended, direct=each == name)
                if stream is not None:
                    streams[each] = stream
            holes = codec.make_holes(streams)
            whole = replace(describer, holes=holes)
            first, *pieces = codec.cut(await self._encode(whole, node, name), holes.values())
        except BaseException:
            await _close(streams.values())
            raise
        parts: list[Part] = [first]
        for stream, piece in zip(streams.values(), pieces, strict=True):
            parts += [stream, piece]
        return Answer(tuple(parts))

    async def _member(
        self, path: str, name: str, generation: str, access: Access, extended: bool, *, direct: bool
    ) -> Stream | None:
        """Open all data of a dataset; None when it cannot be read and is not what was asked for itself."""
        key = (path, generation, name)
        try:
            if key in self._failing:
                raise DataError(f"{name} could not be read to its end before")
            reading = await self._store.read(path, name, access, None)
            try:
                stream = open_stream(reading, self._pool, extended=extended)
            except BaseException:
                await reading.aclose()
                raise
        except NDStreamError as error:
            if direct:
                raise
            self._counters.add("hdfstream_unreadable_members", label=error.code)
            _log.debug("%s: %s comes without data: %s", path, name, error)
            return None
        return WatchedStream(stream, lambda error: self._remember(key, error))

    def _remember(self, key: tuple[str, str, str], error: NDStreamError) -> None:
        """Leave out a dataset that failed half way from the next description of its group."""
        if not isinstance(error, DataError) or isinstance(error, Replaced):
            return
        self._failing[key] = None
        if len(self._failing) > _REMEMBERED:
            self._failing.popitem(last=False)


def _revealed(path: str, request: Request) -> Iterator[tuple[str, Request]]:
    """What a request may mean besides what it says, the most literal first."""
    plain = None if request.object is None else msgspec.structs.replace(request, object=reveal(request.object))
    if plain and plain != request:
        yield path, plain
    if reveal(path) != path:
        yield reveal(path), request
        if plain and plain != request:
            yield reveal(path), plain


def _directory(directory: Directory, extended: bool) -> Answer:
    return Answer((codec.encode(directory_document(directory, extended=extended)),))


def _inner(reading: Reading, slices: Slices, extended: bool) -> Slices | None:
    """What the slices take of the axes of an array type, if a stock client was shown such axes."""
    dims: tuple[Any, ...] = () if extended else wire_type(reading.dtype).dims
    rank = len(reading.shape)
    if slices.rank not in (rank, rank + len(dims)) or (dims and slices.rank == rank):
        raise InvalidSelection(f"a slice of {slices.rank} axes was asked for, the dataset has {rank + len(dims)}")
    return split(slices, rank)[1] if dims else None
