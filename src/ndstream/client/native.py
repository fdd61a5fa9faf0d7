"""Connections to servers of our own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.blocks import BlockCache
from ndstream.client.connection import Connection, Download, Reopen
from ndstream.client.credentials import Credentials
from ndstream.client.following import AWAY, PIECE, Commits, Growth
from ndstream.client.hdfstream import AGENT, HDFStreamConnection
from ndstream.client.progress import transfer
from ndstream.client.reading import read, read_many
from ndstream.core.counters import Counters
from ndstream.core.limits import Limits
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Committed, Event, Operation
from ndstream.core.selection import Selection
from ndstream.errors import InvalidRequest, ProtocolError
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.protocols.native.messages import Entry
from ndstream.transports.http import HTTPTransport


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

    Attributes
    ----------
    capabilities : Capabilities
        What the server says of itself.
    counters : Counters
        What `blocks` has done.
    blocks : BlockCache or None
        Data that are kept, when ``limits.block_cache`` allows it.

    Raises
    ------
    ProtocolError, NotFound
        There is no such server at this address.
    NotAuthenticated, TransportError, TimedOut, ServiceError
    """

    converts = True

    def __init__(
        self, server: str, credentials: Credentials, *, verify: bool | str, limits: Limits, reopen: Reopen
    ) -> None:
        super().__init__(server, credentials.user, reopen, limits)
        self._credentials = credentials
        self._verify = verify
        headers = {"User-Agent": AGENT} | credentials.headers()
        self._http = HTTPTransport(server, headers=headers, verify=verify, limits=limits)
        self._flows = NativeFlows(server, limits)
        self.counters = Counters()
        self.blocks = BlockCache(limits.block_cache, self.counters) if limits.block_cache else None
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

    def read(
        self, path: str, name: str, selection: Selection, dest: NDArray[Any], described: Dataset | None = None
    ) -> None:
        """Read a selection: as elements, or as stored chunks that are decoded here when that pays; large ones in parts.

        Values are converted as they arrive.
        """
        wanted = Wanted(name, selection, dest)
        known = described if "stored-chunks" in self.capabilities.features else None
        with transfer(name, dest.nbytes) as watch:
            self._http.run(read(self._flows, path, wanted, known, self.blocks), watch)

    def read_many(self, path: str, reads: Sequence[tuple[str, Selection, NDArray[Any]]]) -> None:
        """Read selections of several datasets of a file, all of one state; see `ndstream.client.reading.read_many`."""
        self._http.run(read_many(self._flows, path, [Wanted(*each) for each in reads]))

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

    def follow(self, path: str, since: int | str | None = None) -> Generator[Event]:
        """Events of the commits of a file after number `since`, or after the state of that tag, as they happen.

        None stands for the state of this call. A lost connection is taken up again where it was lost, also with a
        server that was started again. Close the iterator to stop.

        Raises
        ------
        NotFound
            The file is gone.
        ConnectionLost, ConnectFailed, TimedOut
            The server stays away.
        InvalidRequest
            It does not tell of changes.
        """
        if "events" not in self.capabilities.features:
            raise InvalidRequest(f"{self.server} does not tell of changes")
        if since is None:
            since = self._http.drive(lambda: self._flows.state(path)) or ""
        return self._events(Commits(self._flows, path, since))

    def _events(self, commits: Commits) -> Generator[Event]:
        while True:
            try:
                with self._http.begin(commits.begin) as exchange:
                    while True:
                        yield from commits.take(exchange.read_now(PIECE))
            except AWAY as error:
                time.sleep(commits.patience.lost(error))

    def growth(self, path: str, name: str, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Follow what is appended to a dataset along its first axis: arrays of new rows.

        What is there when this returns is not among it; what comes after that is.

        Raises
        ------
        NotFound
            The dataset, or its file, is gone.
        NDStreamError
            See `follow`.
        """
        growth = Growth(self._flows, path, name, dtype)
        return self._grown(growth, self.follow(path, self._http.run(growth.begin())))

    def _grown(self, growth: Growth, events: Generator[Event]) -> Iterator[NDArray[Any]]:
        with closing(events):
            for event in events:
                rows = self._patiently(growth, event)
                if rows is not None:
                    yield rows

    def _patiently(self, growth: Growth, event: Event) -> NDArray[Any] | None:
        while True:
            try:
                rows = self._http.run(growth.rows(event))
            except AWAY as error:
                time.sleep(growth.patience.lost(error))
            else:
                growth.patience.heard()
                return rows

    def close(self) -> None:
        """Close idle network connections."""
        self._http.close()
        if "_words" in self.__dict__:
            self._words.close()


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
