"""Connections to servers of our own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from math import prod
from typing import Any

from numpy.typing import NDArray

from ndstream.client.connection import Connection, Download, Reopen
from ndstream.client.credentials import Credentials
from ndstream.client.hdfstream import AGENT, HDFStreamConnection
from ndstream.client.progress import transfer
from ndstream.core.dtypes import is_fixed, to_numpy
from ndstream.core.limits import KiB, Limits, MiB
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Committed, Event, Operation
from ndstream.core.selection import Selection
from ndstream.errors import ConnectionLost, InvalidRequest, ProtocolError, UnsupportedDType, UnsupportedFilter
from ndstream.protocols.native.codec import decode_events
from ndstream.protocols.native.flows import Decode, NativeFlows, Wanted
from ndstream.protocols.native.messages import Entry
from ndstream.stores.hdf5.decode import pipeline
from ndstream.transports.http import Exchange, HTTPTransport

THROUGH = 1 * MiB
"""Bytes from which on compressed data are asked for as they are stored, to be decoded here."""
_WASTE = 2  # of chunks, at most that many times the bytes that are wanted of them
_EVENTS = 64 * KiB


class NativeConnection(Connection):
    """One server, one user. It begins with one request, which shows what the server can and whether the user is let in.

    Parameters
    ----------
    server : str
        Base address of the endpoints, ending in ``/v1``.
    credentials : Credentials
    verify : bool or str
        See `ndstream.transports.http.HTTPTransport`.
    limits : Limits
    reopen : callable
        See `Connection`.

    Raises
    ------
    ProtocolError, NotFound
        There is no such server at this address.
    NotAuthenticated, TransportError, TimedOut, ServiceError
    """

    def __init__(
        self, server: str, credentials: Credentials, *, verify: bool | str, limits: Limits, reopen: Reopen
    ) -> None:
        super().__init__(server, credentials.user, reopen, limits)
        self._credentials = credentials
        self._verify = verify
        headers = {"User-Agent": AGENT} | credentials.headers()
        self._http = HTTPTransport(server, headers=headers, verify=verify, limits=limits)
        self._flows = NativeFlows(server, limits)
        try:
            self.capabilities = self._http.drive(self._flows.capabilities)
        except BaseException:
            self._http.close()
            raise

    @cached_property
    def _words(self) -> HDFStreamConnection:
        """The same server in hdfstream, for what is said in the words of that: slice descriptors, downloads."""
        base = self.server.removesuffix("/v1") + "/hdfstream"
        return HDFStreamConnection(
            base, self._credentials, verify=self._verify, limits=self.limits, reopen=self._reopen
        )

    def request_path(self, path: str) -> dict[str, Any]:
        """Describe the directory or file at a virtual path, in the words of hdfstream."""
        return self._words.request_path(path)

    def entry(self, path: str) -> Entry:
        """Describe the directory or file at a virtual path, and whether this user may write there."""
        return self._http.drive(lambda: self._flows.lookup(path))

    def lookup(self, path: str) -> Directory | File:
        """Describe the directory or file at a virtual path."""
        return found_in(self.entry(path), f"{self.server}: /{path}")

    def describe(self, path: str, name: str, *, max_depth: int, data_size_limit: int) -> Node:
        """Describe an object of a file."""
        return self._http.drive(lambda: self._flows.describe(path, name, depth=max_depth, data=data_size_limit)).node

    def describe_at(self, path: str, name: str) -> tuple[Node, int]:
        """Describe an object, with the number of the commit that this is the state of, or of a later one."""
        found = self._http.drive(lambda: self._flows.describe(path, name, depth=0, data=0))
        return found.node, found.commit

    def read(
        self, path: str, name: str, selection: Selection, dest: NDArray[Any], described: Dataset | None = None
    ) -> None:
        """Read a selection in one request: as elements, or as stored chunks that are decoded here when that pays."""
        wanted = Wanted(name, selection, dest)
        with transfer(name, dest.nbytes) as watch:
            if described is not None and "stored-chunks" in self.capabilities.features:
                decode = decode_here(described, selection, dest)
                if decode is not None:
                    try:
                        self._http.drive(lambda: self._flows.read_stored(path, wanted, described, decode))
                        return
                    except UnsupportedDType:
                        pass  # these chunks the server keeps to itself: it can still decode them
            self._http.drive(lambda: self._flows.read(path, [wanted]), watch)

    def read_many(self, path: str, wanted: Sequence[Wanted]) -> None:
        """Read selections of several datasets of a file in one request."""
        self._http.drive(lambda: self._flows.read(path, wanted))

    def request_slice(self, path: str, name: str, descriptor: Any) -> NDArray[Any]:
        """Read a slice into a new array."""
        return self._words.request_slice(path, name, descriptor)

    def request_slice_into(self, path: str, name: str, descriptor: Any, dest: NDArray[Any]) -> None:
        """Read a slice into an array."""
        self._words.request_slice_into(path, name, descriptor, dest)

    def download(self, path: str, start: int = 0, etag: str = "") -> AbstractContextManager[Download]:
        """Begin to read the bytes of a file, or a tar of a directory."""
        return self._words.download(path, start, etag)

    def apply(
        self, path: str, operations: Sequence[Operation], *, condition: str | None = None, create: bool = False
    ) -> Committed:
        """Carry out operations together, once, however often the connection is lost meanwhile.

        Raises
        ------
        Forbidden, Conflict, Exists, NotFound, StorageFull
        InvalidRequest, InvalidSelection, UnsupportedDType
            Nothing was done.
        ConnectionLost, TimedOut
            It is not known whether it was done.
        """
        key = uuid.uuid4().hex
        return self._http.drive(
            lambda: self._flows.apply(path, operations, key=key, condition=condition, create=create)
        )

    def follow(self, path: str, since: int | None = None) -> Iterator[Event]:
        """Events of the commits of a file after number `since` (None: from now on), as they happen.

        A lost connection is taken up again where it was lost. Close the iterator to stop.

        Raises
        ------
        NotFound
            The file is gone.
        ConnectionLost, ConnectFailed
            The server stays away.
        InvalidRequest
            It does not tell of changes.
        """
        if "events" not in self.capabilities.features:
            raise InvalidRequest(f"{self.server} does not tell of changes")
        last, fruitless = since, 0
        while True:
            begun = partial(self._flows.follow, path, last)
            try:
                with self._http.begin(begun) as exchange:
                    for event in _events(exchange):
                        last, fruitless = event.number, 0
                        yield event
            except ConnectionLost:
                if fruitless >= self.limits.retries:
                    raise
            fruitless += 1

    def close(self) -> None:
        """Close idle network connections."""
        self._http.close()
        if "_words" in self.__dict__:
            self._words.close()


def _events(exchange: Exchange) -> Iterator[Event]:
    buffer = bytearray()
    while piece := exchange.read_some(_EVENTS):
        buffer += piece
        yield from decode_events(buffer)


def found_in(entry: Entry, where: str) -> Directory | File:
    """What an entry describes.

    Raises
    ------
    ProtocolError
        Nothing.
    """
    found = entry.directory or entry.file
    if found is None:
        raise ProtocolError(f"{where}: neither a directory nor a file")
    return found


def decode_here(described: Dataset, selection: Selection, dest: NDArray[Any]) -> Decode | None:
    """What decodes stored chunks of a dataset; None when the server had better send elements.

    It pays when the data are compressed and many, most of what the chunks hold is wanted, and all filters are known.
    """
    chunks = described.chunks
    if chunks is None or not described.filters or dest.nbytes < THROUGH or not is_fixed(described.dtype):
        return None
    spelled = to_numpy(described.dtype)
    touched = 1
    for (start, stop), chunk in zip(selection.bounds, chunks, strict=True):
        touched *= (-(-stop // chunk) - start // chunk) * chunk
    if spelled.base != dest.dtype or touched > _WASTE * selection.count:
        return None
    try:
        return pipeline(described.filters, prod(chunks) * spelled.itemsize).decode
    except UnsupportedFilter:
        return None
