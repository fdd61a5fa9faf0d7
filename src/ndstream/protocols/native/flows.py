"""What a client asks of a server that speaks the native protocol, as flows.

Every method makes one request and reads its answer; see `ndstream.wire.flow`. Source: SPEC.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from math import prod
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import DType, is_fixed, to_numpy
from ndstream.core.elements import restore
from ndstream.core.limits import DEFAULT_LIMITS, KiB, Limits, MiB
from ndstream.core.model import Dataset
from ndstream.core.operations import Committed, Operation
from ndstream.core.selection import Part, Selection, chunk_counts
from ndstream.core.selection.plain import to_plain
from ndstream.errors import DataError, ProtocolError, TooLarge, UnsupportedDType
from ndstream.protocols.native import codec
from ndstream.protocols.native.messages import (
    BLOCKS,
    CHUNKS,
    EVENTS,
    KEY_HEADER,
    MSGPACK,
    PROBLEM,
    PROTOCOL,
    Batch,
    Block,
    Capabilities,
    Described,
    Entry,
    Read,
    Reads,
    Stored,
)
from ndstream.wire.buffers import BufferPool, Scratch
from ndstream.wire.flow import Flow, Head, Request, read_into, read_some, send, tell, work
from ndstream.wire.ndblock import begin_block, read_frame, read_header
from ndstream.wire.status import ERROR_HEADER, error_class

Take: TypeAlias = Callable[[int], NDArray[np.uint8]]
Decode: TypeAlias = Callable[[NDArray[np.uint8], int, NDArray[np.uint8], Take], None]
"""Decodes a stored chunk, given its mask of filters, into a destination, with buffers for what comes between."""

_DOCUMENT = {"Accept": MSGPACK, "Accept-Encoding": "gzip, deflate"}
_LONGEST_ERROR = 64 * KiB
_PIECE = 1 * MiB
_SPARE = 1 * MiB  # bytes that are converted at a time: they stay in the caches of the processor
_ROWS = 4096  # rows of an index that are taken apart at a time
_TOGETHER = 4 * MiB  # bytes of stored chunks that are received in one go, unless one has more
_DECODED = 8 * MiB  # bytes that they decode to
_SHARE = 4  # towards the end, a go has this part of what is left, so that all threads come to an end together
_INLINE = 4 * KiB  # bytes of a payload that stay in the header of a batch

_Arriving: TypeAlias = tuple[Part, int, int]
"""What a stored chunk is wanted for, its bytes, and its mask of filters."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A selection of a dataset, and the array that it goes into: C-contiguous, of its shape, array axes last."""

    name: str
    selection: Selection
    destination: NDArray[Any]


class NativeFlows:
    """The requests of the protocol.

    Parameters
    ----------
    server : str
        Name of the server in messages.
    limits : Limits
        How long a document may be.

    Notes
    -----
    All flows raise the error that the server names, with a message that says server, path and cause; `ProtocolError`
    when the answer is not what the protocol allows; and `TooLarge` when a document is longer than ``limits.document``.
    Paths follow an address that ends in ``/v1``. Safe to use from several threads.
    """

    def __init__(self, server: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.server = server
        self.limits = limits
        self._pool = BufferPool(64 * MiB)

    def capabilities(self) -> Flow[Capabilities]:
        """Ask what the server is: what a new connection begins with, to see whether it is let in.

        Raises
        ------
        ProtocolError
            This is no server of ours, or a newer one than this client knows.
        """
        body = yield from self._document("", None, Request(method="GET", path="", headers=_DOCUMENT))
        found = codec.decode(body, Capabilities)
        if found.protocol > PROTOCOL:
            raise ProtocolError(f"{self.server} speaks version {found.protocol} of the protocol, not {PROTOCOL}")
        return found

    def lookup(self, path: str) -> Flow[Entry]:
        """Describe the directory or file at a virtual path."""
        request = Request(method="GET", path=_url("tree", path), headers=_DOCUMENT)
        body = yield from self._document(path, None, request)
        with self._reading(path, None):
            return codec.decode(body, Entry)

    def state(self, path: str, known: str | None = None) -> Flow[str | None]:
        """Ask which state a file is in: its entity tag; None when that is the one `known` already."""
        headers = _DOCUMENT if known is None else _DOCUMENT | {"If-None-Match": f'"{known}"'}
        head = yield from send(Request(method="GET", path=_url("tree", path), headers=headers))
        if head.status == HTTPStatus.NOT_MODIFIED and known is not None:
            return None
        yield from self._check(head, path, None)
        while (yield from read_some(_PIECE)):
            continue
        tag = _tag(head)
        if tag is None:
            raise ProtocolError(f"{self._where(path, None)}: the answer does not tell the state of the file")
        return tag

    def describe(self, path: str, name: str, *, depth: int, data: int) -> Flow[Described]:
        """Describe an object of a file, with its members down to `depth` and data of at most `data` bytes."""
        query = {"name": name, "depth": depth, "data": data}
        request = Request(method="GET", path=_url("node", path, query), headers=_DOCUMENT)
        body = yield from self._document(path, name, request)
        with self._reading(path, name):
            return codec.decode(body, Described)

    def read(self, path: str, wanted: Sequence[Wanted], state: str | None = None) -> Flow[str | None]:
        """Read selections of datasets of one file, straight into their arrays when the elements are as stored.

        Parameters
        ----------
        state : str, optional
            Entity tag of the state that the file must be in.

        Returns
        -------
        str or None
            Entity tag of the state that it was in; None when other files have a part in the data.

        Raises
        ------
        Conflict
            The file is in another state.
        ProtocolError
            The answer has another shape.
        """
        head = yield from self._data(path, wanted, BLOCKS, state)
        for each in wanted:
            with self._reading(path, each.name):
                yield from self._block(each.destination)
        with self._reading(path, None):
            yield from _end()
        return _tag(head)

    def read_stored(
        self, path: str, wanted: Wanted, described: Dataset, decode: Decode, state: str | None = None
    ) -> Flow[None]:
        """Read a selection as stored chunks, which are decoded while others arrive.

        Parameters
        ----------
        wanted : Wanted
            Elements are converted to the type of its array.
        described : Dataset
            What is known of the dataset: the chunks that come must be such.
        decode : callable
            Undoes its filters.
        state : str, optional
            Entity tag of the state that the file must be in.

        Raises
        ------
        Conflict
            The file is in another state.
        UnsupportedDType
            The server does not send the chunks of this dataset, or it has become one that is stored in another way.
        Corrupt
            A chunk does not decode to what it should.
        """
        yield from self._data(path, [wanted], CHUNKS, state)
        with self._reading(path, wanted.name):
            header = codec.decode((yield from read_header(self.limits.document)), Stored)
            if header.chunks > self.limits.chunk_index:
                raise ProtocolError("too many chunks came")
            if _way_of(header.dataset) != _way_of(described):
                raise UnsupportedDType("the dataset is stored in another way than it was")
            index = np.empty((header.chunks, 3), "<u8")
            yield from read_into(index.reshape(-1).view(np.uint8).data, counted=False)
            reading = partial(self._reading, path, wanted.name)
            scatter = _Scatter(wanted, header.dataset, decode, self._pool, reading)
            yield from scatter.run(index, self.limits.chunk)
            yield from _end()

    def apply(
        self,
        path: str,
        operations: Sequence[Operation],
        *,
        key: str,
        condition: str | None = None,
        create: bool = False,
    ) -> Flow[Committed]:
        """Carry out operations together; sent again after a lost answer, they are carried out once.

        Parameters
        ----------
        key : str
            Name of the batch, ASCII, never used before.
        condition : str, optional
            Number of the commit, or entity tag, that must be the last one.
        create : bool
            Make the file if there is none.
        """
        reduced, bodies = codec.detach(tuple(operations), _INLINE)
        head = begin_block(codec.encode_msgpack(Batch(operations=reduced, create=create)))
        headers = {"Accept": MSGPACK, "Content-Type": BLOCKS, KEY_HEADER: key}
        if condition is not None:
            headers["If-Match"] = f'"{condition}"'
        request = Request(method="POST", path=_url("write", path), headers=headers, body=(head, *bodies))
        body = yield from self._document(path, None, request)
        with self._reading(path, None):
            return codec.decode(body, Committed)

    def follow(self, path: str, since: int | str) -> Flow[None]:
        """Ask for the events after a commit, by its number or tag; the body is left to who drives the flow."""
        headers = {"Accept": EVENTS, "Accept-Encoding": "identity"}
        head = yield from send(Request(method="GET", path=_url("events", path, {"since": since}), headers=headers))
        yield from self._check(head, path, None)

    def _data(self, path: str, wanted: Sequence[Wanted], media_type: str, state: str | None) -> Flow[Head]:
        """Ask for data."""
        reads = tuple([Read(name=each.name, select=to_plain(each.selection, explicit=True)) for each in wanted])
        body = codec.encode_msgpack(Reads(reads=reads))
        headers = {"Accept": media_type, "Content-Type": MSGPACK, "Accept-Encoding": "identity"}
        if state is not None:
            headers["If-Match"] = f'"{state}"'
        head = yield from send(Request(method="POST", path=_url("data", path), headers=headers, body=body))
        yield from self._check(head, path, wanted[0].name)
        self._expect(head, media_type, path)
        return head

    def _block(self, destination: NDArray[Any]) -> Flow[None]:
        """Read one block into an array."""
        block = codec.decode((yield from read_header(self.limits.document)), Block)
        shape, dtype = block.shape, block.dtype
        spelled = to_numpy(dtype)
        if shape + spelled.shape != destination.shape:
            raise ProtocolError(f"an array of shape {shape + spelled.shape} came, not of {destination.shape}")
        if block.nbytes is None:
            yield from self._frames(dtype, destination)
            return
        if not is_fixed(dtype) or block.nbytes != spelled.itemsize * prod(shape):
            raise ProtocolError(f"{block.nbytes} bytes do not make shape {shape} of {spelled}")
        if spelled.base != destination.dtype:
            yield from _converted(spelled.base, destination)
        elif destination.nbytes:
            yield from read_into(_bytes_of(destination))

    def _frames(self, dtype: DType, destination: NDArray[Any]) -> Flow[None]:
        """Read elements of variable length."""
        extra = to_numpy(dtype).shape
        flat = destination.reshape(-1, *extra) if destination.size else destination
        total = prod(destination.shape[: destination.ndim - len(extra)])
        start = 0
        while (body := (yield from read_frame(self.limits.document))) is not None:
            elements = codec.decode_elements(body)
            if start + len(elements) > total:
                raise ProtocolError(f"more than {total} elements came")
            flat[start : start + len(elements)] = restore(elements, dtype, (len(elements),))
            start += len(elements)
        if start != total:
            raise ProtocolError(f"{start} of {total} elements came")

    def _document(self, path: str, name: str | None, request: Request) -> Flow[bytes]:
        """Send a request and read all of the document that answers it."""
        head = yield from send(request)
        yield from self._check(head, path, name)
        self._expect(head, MSGPACK, path)
        pieces = []
        length = 0
        while piece := (yield from read_some(_PIECE)):
            length += len(piece)
            if length > self.limits.document:
                most = self.limits.document
                raise TooLarge(f"{self._where(path, name)}: a document of more than {most} bytes (limit: document)")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _expect(self, head: Head, media_type: str, path: str) -> None:
        kind = head.headers.get("content-type", "").partition(";")[0].strip()
        if kind != media_type:
            raise ProtocolError(f"{self._where(path, None)}: the answer is {kind or 'untyped'}, not {media_type}")

    def _check(self, head: Head, path: str, name: str | None) -> Flow[None]:
        """Raise the error that an answer stands for, with the text of the server, unless it is a success."""
        if 200 <= head.status < 300:
            return
        body = yield from read_some(_LONGEST_ERROR)
        told = head.headers.get("content-type", "").startswith(PROBLEM)
        text = codec.decode_problem(body) if told else ""
        kind = error_class(head.status, head.headers.get(ERROR_HEADER))
        raise kind(f"{self._where(path, name)}: {text or 'no reason given'} (HTTP {head.status})")

    @contextmanager
    def _reading(self, path: str, name: str | None) -> Iterator[None]:
        """Say of what is wrong with an answer which answer it is."""
        try:
            yield
        except (ProtocolError, UnsupportedDType, TooLarge, DataError) as error:
            raise type(error)(f"{self._where(path, name)}: {error}") from error

    def _where(self, path: str, name: str | None) -> str:
        inside = "" if name is None else f"::{name}"
        return f"{self.server}: /{path.strip('/')}{inside}"


class _Scatter:
    """Stored chunks into the elements of an array that a selection wants of them.

    `reading` says of what is wrong with a chunk which dataset it is of: in a thread nobody else would.
    """

    def __init__(
        self,
        wanted: Wanted,
        dataset: Dataset,
        decode: Decode,
        pool: BufferPool,
        reading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._selection = wanted.selection
        self._destination = wanted.destination
        self._decode = decode
        self._pool = pool
        self._reading = reading
        assert dataset.chunks is not None
        self._chunks = dataset.chunks
        spelled = to_numpy(dataset.dtype)
        self._base = spelled.base
        self._cell = self._chunks + spelled.shape
        self._untold = wanted.destination.nbytes
        self._nbytes = prod(self._cell) * self._base.itemsize
        self._grid = chunk_counts(dataset.shape or (), self._chunks)
        self._fill: Any = 0
        if dataset.fill is not None:
            self._fill = np.frombuffer(dataset.fill, spelled.base).reshape(spelled.shape)

    def run(self, index: NDArray[np.uint64], most: int) -> Flow[None]:
        """Read the chunks that `index` lists; what else is wanted holds the fill value."""
        rows = (row for start in range(0, len(index), _ROWS) for row in index[start : start + _ROWS].tolist())
        row = next(rows, None)
        batch: list[_Arriving] = []
        gathered = 0
        left = int(index[:, 1].sum())
        for part in self._selection.over(self._chunks):
            number = 0
            for position, side in zip(part.chunk, self._grid, strict=True):
                number = number * side + position
            if row is None or row[0] != number:
                self._destination[part.target] = self._fill
                yield from self._tell([part])
                continue
            if row[1] > most:
                raise TooLarge(f"a chunk has {row[1]} bytes, {most} are accepted (limit: chunk)")
            together = min(_TOGETHER, left // _SHARE)
            if batch and (gathered + row[1] > together or (len(batch) + 1) * self._nbytes > _DECODED):
                yield from self._receive(batch, gathered)
                left -= gathered
                batch, gathered = [], 0
            batch.append((part, row[1], row[2]))
            gathered += row[1]
            row = next(rows, None)
        if batch:
            yield from self._receive(batch, gathered)
        if row is not None:
            raise ProtocolError(f"chunk {row[0]} came, which was not asked for")
        yield from tell(self._untold)

    def _receive(self, batch: list[_Arriving], nbytes: int) -> Flow[None]:
        """Read stored chunks in one go, and have one thread decode them: each go has its price, however small."""
        stored = self._pool.take(nbytes)
        if nbytes:
            yield from read_into(stored.data, counted=False)
        # One of them decoded, and once more between two filters.
        yield from work(partial(self._place, batch, stored), nbytes + 2 * self._nbytes)
        yield from self._tell([part for part, _, _ in batch])

    def _tell(self, parts: list[Part]) -> Flow[None]:
        # How much index arrays take of the result is told at the end: it would have to be copied to be counted.
        nbytes = sum(self._destination[part.target].nbytes for part in parts if _is_box(part))
        if nbytes:
            self._untold -= nbytes
            yield from tell(nbytes)

    def _place(self, batch: list[_Arriving], stored: NDArray[np.uint8]) -> None:
        """Decode chunks, which `stored` has one behind the other, into their places."""
        # Between two chunks, the caches are full of data: what can be said of all is said before the first.
        places = [self._place_of(part) for part, _, _ in batch]
        decode, take = self._decode, Scratch(self._pool).take
        start = 0
        with self._reading():
            for (part, size, mask), place in zip(batch, places, strict=True):
                out = self._pool.take(self._nbytes) if place is None else place
                decode(stored[start : start + size], mask, out, take)
                start += size
                if place is None:
                    self._destination[part.target] = out.view(self._base).reshape(self._cell)[part.source]

    def _place_of(self, part: Part) -> NDArray[np.uint8] | None:
        """Memory of the result that a whole chunk can be decoded into; None when there is none."""
        if part.whole and _is_box(part):
            target = self._destination[part.target]
            if target.shape == self._cell and target.dtype == self._base and target.flags.c_contiguous:
                flat: NDArray[np.uint8] = target.reshape(-1).view(np.uint8)
                return flat
        return None


def _is_box(part: Part) -> bool:
    return all(isinstance(index, slice) for index in part.target)


def _tag(head: Head) -> str | None:
    """Entity tag of an answer, without quotes; None when it has none."""
    return head.headers.get("etag", "").removeprefix("W/").strip('"') or None


def _way_of(dataset: Dataset) -> tuple[Any, ...]:
    """What has to be known of a dataset to make elements of its stored chunks."""
    return len(dataset.shape or ()), dataset.dtype, dataset.chunks, dataset.filters


def _url(endpoint: str, path: str, query: dict[str, Any] | None = None) -> str:
    asked = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return f"/{endpoint}/{quote(path.strip('/'))}{asked}"


def _converted(dtype: np.dtype[Any], destination: NDArray[Any]) -> Flow[None]:
    """Read elements of a type into an array of another, a piece at a time."""
    flat = destination.reshape(-1)
    spare = np.empty(min(flat.size, max(1, _SPARE // dtype.itemsize)), dtype)
    for start in range(0, flat.size, max(1, spare.size)):
        target = flat[start : start + spare.size]
        received = spare[: target.size]
        yield from read_into(_bytes_of(received), counted=False)
        np.copyto(target, received, casting="unsafe")
        yield from tell(target.nbytes)


def _end() -> Flow[None]:
    """Nothing may follow; reading so far also proves that the answer ended as it should."""
    if (yield from read_some(1)):
        raise ProtocolError("something follows the data")


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Memory of a C-contiguous array, as single bytes."""
    return array.reshape(-1).view(np.uint8).data
