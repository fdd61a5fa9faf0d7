"""Connections of asynchronous programs to servers of our own; the flows are those of `ndstream.client.native`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ndstream.client.credentials import Credentials
from ndstream.client.hdfstream import AGENT
from ndstream.client.native import decode_here, found_in
from ndstream.core.limits import KiB, Limits
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Committed, Event, Operation
from ndstream.core.selection import Selection
from ndstream.errors import ConnectionLost, UnsupportedDType
from ndstream.protocols.native.codec import decode_events
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.transports.aio import AioTransport

_EVENTS = 64 * KiB


class AioConnection:
    """One server, one user, for the tasks of one event loop.

    Parameters
    ----------
    server : str
        Base address of the endpoints, ending in ``/v1``.
    credentials, verify, limits
        As for `ndstream.client.native.NativeConnection`.
    """

    def __init__(self, server: str, credentials: Credentials, *, verify: bool | str, limits: Limits) -> None:
        self.server = server
        headers = {"User-Agent": AGENT} | credentials.headers()
        self._http = AioTransport(server, headers=headers, verify=verify, limits=limits)
        self._flows = NativeFlows(server, limits)
        self._limits = limits

    async def lookup(self, path: str) -> Directory | File:
        """Describe the directory or file at a virtual path."""
        return found_in(await self._http.drive(lambda: self._flows.lookup(path)), f"{self.server}: /{path}")

    async def describe(self, path: str, name: str, *, depth: int = 0, data: int = 0) -> Node:
        """Describe an object of a file."""
        return (await self._http.drive(lambda: self._flows.describe(path, name, depth=depth, data=data))).node

    async def read(
        self, path: str, name: str, selection: Selection, dest: NDArray[Any], described: Dataset | None = None
    ) -> None:
        """Read a selection in one request: as elements, or as stored chunks that are decoded here when that pays."""
        wanted = Wanted(name, selection, dest)
        decode = None if described is None else decode_here(described, selection, dest)
        if decode is not None and described is not None:
            try:
                await self._http.drive(partial(self._flows.read_stored, path, wanted, described, decode))
            except UnsupportedDType:
                pass  # these chunks the server keeps to itself: it can still decode them
            else:
                return
        await self._http.drive(lambda: self._flows.read(path, [wanted]))

    async def read_many(self, path: str, reads: Sequence[tuple[str, Selection, NDArray[Any]]]) -> None:
        """Read selections of several datasets of a file in one request."""
        wanted = [Wanted(*each) for each in reads]
        await self._http.drive(lambda: self._flows.read(path, wanted))

    async def apply(
        self, path: str, operations: Sequence[Operation], *, condition: str | None = None, create: bool = False
    ) -> Committed:
        """Carry out operations together, once; see `ndstream.client.native.NativeConnection.apply`."""
        key = uuid.uuid4().hex
        return await self._http.drive(
            lambda: self._flows.apply(path, operations, key=key, condition=condition, create=create)
        )

    async def follow(self, path: str, since: int | None = None) -> AsyncIterator[Event]:
        """Events of the commits of a file after number `since`; see `NativeConnection.follow` in the same words."""
        last, fruitless = since, 0
        while True:
            try:
                async with self._http.begin(partial(self._flows.follow, path, last)) as exchange:
                    buffer = bytearray()
                    while piece := await exchange.read_some(_EVENTS):
                        buffer += piece
                        for event in decode_events(buffer):
                            last, fruitless = event.number, 0
                            yield event
            except ConnectionLost:
                if fruitless >= self._limits.retries:
                    raise
            fruitless += 1

    async def aclose(self) -> None:
        """Close all network connections."""
        await self._http.aclose()
