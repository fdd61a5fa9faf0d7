"""What requests of the native protocol are answered with.

Everything is looked up, checked and opened before an `Answer` exists; what can go wrong after that is reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from math import prod
from typing import Any, Protocol, TypeAlias

import msgspec

from ndstream.core import model
from ndstream.core.dtypes import DType, is_fixed, memory_size
from ndstream.core.limits import MiB
from ndstream.core.operations import Committed, Event, State
from ndstream.core.ports import (
    Access,
    Detail,
    Lent,
    Reading,
    Service,
    StoredChunks,
    StoredReading,
    WritableStore,
    lent_or_read,
)
from ndstream.core.selection import Selection
from ndstream.core.selection.plain import from_plain, prepared, takes_long
from ndstream.errors import (
    Busy,
    Conflict,
    DataError,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    UnsupportedDType,
)
from ndstream.protocols.native import codec
from ndstream.protocols.native.messages import (
    BLOCKS,
    CHUNKS,
    COMMIT_HEADER,
    JSON,
    MOST_READS,
    MSGPACK,
    NPY,
    PROTOCOL,
    RAW,
    Batch,
    Block,
    Capabilities,
    Described,
    Entry,
    Read,
    Stored,
    Values,
)
from ndstream.wire.ndblock import END, begin_block, frame
from ndstream.wire.ndmsgpack import Buffer

PAGE = 1 << 20
"""Members of a group in one description, unless fewer are asked for."""
_WIDE = 20  # links of a group that is described besides the one that was asked for
_DEEPEST = 64
_ATTEMPTS = 3  # to open several readings between two commits, before commits wait for it
_JSON_DATA = 8 * MiB
_PROMPT = 1024  # members of a group that are encoded in the event loop
_LIMITS = (
    "request_body",
    "spool",
    "selections",
    "selection_text",
    "path_length",
    "document",
    "inline_data",
    "request_memory",
)


class Stream(Protocol):
    """Part of an answer that is not in memory."""

    @property
    def length(self) -> int | None:
        """Bytes that will come, when that is known."""
        ...

    def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """What to send; iterate once. Who `borrows` may be given some that is `Lent`."""
        ...

    async def aclose(self) -> None:
        """Give back what is held; at any time, more than once."""
        ...


Part: TypeAlias = bytes | memoryview | Stream


class Answer(msgspec.Struct, frozen=True):
    """What to send; close it, whatever happens. `tag` is the entity tag, without quotes; "" for an answer without."""

    media_type: str
    parts: tuple[Part, ...]
    tag: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()

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
        for part in self.parts:
            if not isinstance(part, bytes | memoryview):
                await part.aclose()


def _headers(commit: int) -> tuple[tuple[bytes, bytes], ...]:
    """What an answer says besides the tag."""
    return ((COMMIT_HEADER.encode(), b"%d" % commit),)


class Native:
    """The native protocol over a store; may be used by any number of requests at once."""

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self._limits = service.limits
        self._version = version("ndstream")
        features = []
        if isinstance(self._store, StoredChunks):
            features.append("stored-chunks")
        self._writing = self._store if isinstance(self._store, WritableStore) else None
        if self._writing is not None:
            features += ["write", "events"]
        self._features = tuple(features)

    # -- descriptions --

    def capabilities(self, access: Access, *, json: bool) -> Answer:
        """Say what the server is."""
        document = Capabilities(
            ndstream=self._version,
            protocol=PROTOCOL,
            features=self._features,
            limits={name: getattr(self._limits, name) for name in _LIMITS},
            user=access.user,
        )
        return Answer(_type(json), (_encoded(document, json),))

    async def tree(self, path: str, access: Access, *, depth: int, json: bool) -> Answer:
        """Describe a directory or file."""
        found = await self._store.lookup(path, access, depth=depth)
        writable = access.writes(path)
        if isinstance(found, model.Directory):
            return Answer(_type(json), (_encoded(Entry(directory=found, writable=writable), json),))
        state = await self.state(path, access, found)
        return Answer(
            _type(json), (_encoded(Entry(file=found, writable=writable), json),), state.tag, _headers(state.commit)
        )

    async def node(
        self, path: str, name: str, access: Access, *, depth: int, data: int, after: str | None, page: int, json: bool
    ) -> Answer:
        """Describe an object of a file; of a group, at most `page` members behind the one called `after`."""
        detail = Detail(depth=min(depth, _DEEPEST), wide=_WIDE, data=min(data, self._limits.inline_data))

        # Before the description: of an older state it must not be said that it is of a newer one.
        state = await self.state(path, access)
        node = await self._store.describe(path, name, access, detail)
        node, following = _page(node, after, page)
        document = Described(
            name=name, node=node, generation=state.generation, commit=state.commit, following=following
        )
        wide = isinstance(node, model.Group) and len(node.members) > _PROMPT
        body = await asyncio.to_thread(_encoded, document, json) if wide else _encoded(document, json)
        if len(body) > self._limits.document:
            most = self._limits.document
            raise TooLarge(
                f"a description may have {most} bytes, this one has {len(body)}: ask for pages or less depth"
            )
        return Answer(_type(json), (body,), "" if _is_elsewhere(node) else state.tag, _headers(state.commit))

    async def state(self, path: str, access: Access, file: model.File | None = None) -> State:
        """Look up which state a file is in.

        Raises
        ------
        NotFound
            There is no such file.
        """
        found = file or await self._store.lookup(path, access)
        if not isinstance(found, model.File):
            raise NotFound(f"{path or '/'} is a directory")
        written = self._writing if found.is_hdf5 else None
        return State(found.generation, 0) if written is None else await written.state(path, access)

    # -- data --

    async def data(
        self, path: str, reads: Sequence[Read], access: Access, media_type: str, *, match: str | None = None
    ) -> Answer:
        """Answer with the data of selections, one behind the other.

        Raises
        ------
        InvalidRequest
            Several are asked for in a form that has place for one.
        TooLarge
            They are more than `MOST_READS`, or those of them that are small are too much to be held together.
        Conflict
            The entity tag is not `match`.
        Busy
            The file changes all the time, and not only through this server.
        """
        if len(reads) > MOST_READS:
            raise TooLarge(f"{len(reads)} selections in one request; it takes {MOST_READS}")
        if len(reads) > 1 and media_type not in (BLOCKS, CHUNKS):
            raise InvalidRequest(f"several selections are answered as {BLOCKS} or {CHUNKS} only")

        for _ in range(_ATTEMPTS):
            answer = await self._of_one_state(path, reads, access, media_type, match)
            if answer is not None:
                return answer
        if self._writing is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.reader_patience), self._writing.steady(path, access):
                    answer = await self._of_one_state(path, reads, access, media_type, match)
        if answer is None:
            raise Busy(f"{path} changes so often that {len(reads)} selections were never of the same state")
        return answer

    async def _of_one_state(
        self, path: str, reads: Sequence[Read], access: Access, media_type: str, match: str | None
    ) -> Answer | None:
        """Open the answer; None when the file has changed between the first selection and the last."""
        state = await self.state(path, access)
        _check_match(path, state, match)
        parts: list[Part] = []
        tag, held = state.tag, 0
        async with AsyncExitStack() as opened:
            for read in reads:
                some, elsewhere = await self._open(path, read, access, media_type, opened)
                parts += some
                held += _held(some, media_type)
                if held > self._limits.request_memory and len(reads) > 1:
                    raise TooLarge(
                        f"these selections are more than the {self._limits.request_memory} bytes that one request may "
                        f"hold (request_memory): ask for fewer at once"
                    )
                if elsewhere:
                    tag = ""
            # A reading that is open stays of the state in which it was opened, or fails while it is sent.
            if (match is not None or len(reads) > 1) and await self.state(path, access) != state:
                return None
            opened.pop_all()
        return Answer(media_type, tuple(parts), tag, _headers(state.commit))

    async def _open(
        self, path: str, read: Read, access: Access, media_type: str, opened: AsyncExitStack
    ) -> tuple[list[Part], bool]:
        """Open one selection; what to send for it, and whether other files have a part in it."""
        if isinstance(read.select, str) and len(read.select) > self._limits.selection_text:
            raise TooLarge(f"a selection may have {self._limits.selection_text} characters")

        most = self._limits.selections
        chosen = read.select
        if takes_long(chosen):
            chosen = await asyncio.to_thread(prepared, chosen, most=most)

        def choose(shape: tuple[int, ...]) -> Selection:
            return from_plain(chosen, shape, most=most)

        if media_type == CHUNKS:
            if not isinstance(self._store, StoredChunks):
                raise UnsupportedDType("this server does not send chunks as they are stored")
            stored = await self._store.stored(path, read.name, access, choose)
            opened.push_async_callback(stored.aclose)
            return _stored(stored), bool(stored.dataset.elsewhere)
        reading = await self._store.read(path, read.name, access, choose)
        opened.push_async_callback(reading.aclose)
        if media_type in (MSGPACK, JSON):
            return [await self._document(reading, json=media_type == JSON)], reading.elsewhere
        header = _head(reading, media_type)
        if reading.ready is not None and reading.nbytes == len(reading.ready):
            whole = b"".join((header, reading.ready))
            await reading.aclose()
            return [whole], reading.elsewhere
        stream: Stream = Frames(reading) if reading.nbytes is None else Bytes(reading, reading.nbytes)
        return [header, stream] if header else [stream], reading.elsewhere

    async def _document(self, reading: Reading, *, json: bool) -> bytes:
        """Put all of a reading in one document."""
        most = min(_JSON_DATA if json else self._limits.document, self._limits.document)
        size = memory_size(reading.dtype) * prod(reading.shape)
        if size > most:
            raise TooLarge(f"{size} bytes of data in one document, {most} are allowed; ask for {BLOCKS}")
        data: bytes | list[Any]
        if is_fixed(reading.dtype):
            data = bytes(reading.ready) if reading.ready else b"".join([piece async for piece in reading.buffers()])
        else:
            data = [element async for elements in reading.elements() for element in elements]
        await reading.aclose()
        value = codec.plain_values(reading.dtype, reading.shape, data) if json else data
        return _encoded(Values(dtype=reading.dtype, shape=reading.shape, data=value), json)

    # -- writing --

    def check_writable(self, path: str, access: Access) -> None:
        """Make sure that this user may write, before the body of a request is read.

        Raises
        ------
        Forbidden
            This user may not, or nobody may.
        NotFound
            The user must not know of such a path.
        """
        if not access.sees(path):
            raise NotFound(f"no such path: {path}")
        if self._writing is None or not access.writes(path):
            raise Forbidden(f"{path} is served read-only" + (f" to {access.user}" if access.user else ""))

    async def commit(
        self, path: str, batch: Batch, access: Access, *, match: str | None, key: str | None, json: bool
    ) -> Answer:
        """Carry out a batch, of somebody who may (`check_writable`)."""
        store = self._writing
        assert store is not None
        condition = int(match) if match is not None and match.isdecimal() and len(match) < 20 else match
        owned = None if key is None else f"{access.user or ''}:{key}"
        committed: Committed = await store.apply(
            path, access, batch.operations, condition=condition, key=owned, create=batch.create
        )
        return Answer(_type(json), (_encoded(committed, json),), committed.tag, _headers(committed.number))

    async def events(self, path: str, access: Access, since: int | str | None) -> AsyncIterator[Event]:
        """Follow the commits of a file, from after the number or tag `since`.

        Raises
        ------
        InvalidRequest
            The server has no events.
        NotFound
        """
        if self._writing is None:
            raise InvalidRequest("this server has no events")
        await self.state(path, access)
        return self._writing.follow(path, access, since=since)


def _check_match(path: str, state: State, match: str | None) -> None:
    if match is not None and match not in ("*", state.tag):
        raise Conflict(f"{path} is in the state {state.tag}, not {match}")


def _type(json: bool) -> str:
    return JSON if json else MSGPACK


def _encoded(document: msgspec.Struct, json: bool) -> bytes:
    return codec.encode_json(document) if json else codec.encode_msgpack(document)


def _held(parts: list[Part], media_type: str) -> int:
    """Bytes that an open selection takes until it is sent; the index of stored chunks is there in three forms."""
    held = sum(len(part) for part in parts if isinstance(part, bytes | memoryview))
    return 3 * held if media_type == CHUNKS else held


def _is_elsewhere(node: model.Node) -> bool:
    """Whether other files have a part in an object."""
    return isinstance(node, model.Group | model.Dataset | model.NamedType) and bool(node.elsewhere)


def _page(node: model.Node, after: str | None, page: int) -> tuple[model.Node, str | None]:
    """Cut the members of a group to a page; the name of its last one when there are more."""
    if not isinstance(node, model.Group) or (after is None and len(node.members) <= page):
        return node, None
    names = list(node.members)
    try:
        start = 0 if after is None else names.index(after) + 1
    except ValueError:
        raise Conflict(f"the group has no member {after!r} any more: begin again") from None
    chosen = names[start : start + page]
    members = {name: node.members[name] for name in chosen}
    links = {name: link for name, link in node.links.items() if name in members}
    more = start + page < len(names)
    return msgspec.structs.replace(node, members=members, links=links), chosen[-1] if more else None


def _head(reading: Reading, media_type: str) -> bytes:
    """What stands before the bytes of an array."""
    if media_type == NPY:
        return codec.npy_header(reading.dtype, reading.shape)
    if media_type == RAW:
        if reading.nbytes is None:
            raise UnsupportedDType(f"elements of variable length have no bytes of their own: ask for {BLOCKS}")
        return b""
    block = Block(dtype=reading.dtype, shape=reading.shape, nbytes=reading.nbytes)
    return begin_block(codec.encode_msgpack(block))


def _stored(stored: StoredReading) -> list[Part]:
    index = stored.index
    header = Stored(dataset=stored.dataset, chunks=len(index), nbytes=stored.nbytes)
    head = begin_block(codec.encode_msgpack(header)) + index.astype("<u8", copy=False).tobytes()
    return [head, Bytes(stored, stored.nbytes)]


class Bytes:
    """The buffers of a reading as they are, counted."""

    def __init__(self, reading: Reading | StoredReading, length: int) -> None:
        self._reading = reading
        self.length: int | None = length

    async def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """See `Stream`; a reading that gives more or less than it promised fails."""
        missing = self.length or 0
        async for buffer in lent_or_read(self._reading, borrows=borrows):
            missing -= len(buffer)
            if missing < 0:
                break
            yield buffer
        if missing:
            raise DataError(f"{self.length} bytes were promised, {missing} are missing")

    async def aclose(self) -> None:
        """See `Stream`."""
        await self._reading.aclose()


class Frames:
    """Elements of variable length, a list of them in each frame."""

    length: int | None = None

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._dtype: DType = reading.dtype

    async def pieces(self, *, borrows: bool = False) -> AsyncIterator[Buffer | Lent]:
        """See `Stream`."""
        missing = prod(self._reading.shape)
        async for elements in self._reading.elements():
            missing -= len(elements)
            if elements:
                yield frame(codec.encode_msgpack(elements))
        if missing:
            raise DataError(f"{prod(self._reading.shape)} elements were promised, {missing} are missing")
        yield END

    async def aclose(self) -> None:
        """See `Stream`."""
        await self._reading.aclose()
