"""Connections of asynchronous programs to servers of our own; the rules are those of `ndstream.client.native`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.blocks import BlockCache
from ndstream.client.credentials import Credentials
from ndstream.client.following import AWAY, PIECE, Commits, Growth
from ndstream.client.hdfstream import AGENT
from ndstream.client.native import found_in
from ndstream.client.reading import read, read_many
from ndstream.core.counters import Counters
from ndstream.core.limits import Limits
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Committed, Event, Operation
from ndstream.core.selection import Selection
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.transports.aio import AioTransport


class AioConnection:
    """One server, one user, for the tasks of one event loop.

    Parameters
    ----------
    server : str
        Base address of the endpoints, ending in ``/v1``.
    credentials, verify, limits
        As for `ndstream.client.native.NativeConnection`.

    Attributes
    ----------
    counters, blocks
        As of `ndstream.client.native.NativeConnection`.
    """

    def __init__(self, server: str, credentials: Credentials, *, verify: bool | str, limits: Limits) -> None:
        self.server = server
        headers = {"User-Agent": AGENT} | credentials.headers()
        self._http = AioTransport(server, headers=headers, verify=verify, limits=limits)
        # Who follows keeps a connection for as long: it must be none that others wait for.
        self._followers = AioTransport(server, headers=headers, verify=verify, limits=limits, most=0)
        self._flows = NativeFlows(server, limits)
        self.counters = Counters()
        self.blocks = BlockCache(limits.block_cache, self.counters) if limits.block_cache else None

    async def lookup(self, path: str) -> Directory | File:
        """Describe the directory or file at a virtual path."""
        return found_in(await self._http.drive(lambda: self._flows.lookup(path)), f"{self.server}: /{path}")

    async def describe(self, path: str, name: str, *, depth: int = 0, data: int = 0) -> Node:
        """Describe an object of a file."""
        return (await self._http.drive(lambda: self._flows.describe(path, name, depth=depth, data=data))).node

    async def read(
        self, path: str, name: str, selection: Selection, dest: NDArray[Any], described: Dataset | None = None
    ) -> None:
        """Read a selection; see `ndstream.client.native.NativeConnection.read`."""
        await self._http.run(read(self._flows, path, Wanted(name, selection, dest), described, self.blocks))

    async def read_many(self, path: str, reads: Sequence[tuple[str, Selection, NDArray[Any]]]) -> None:
        """Read selections of several datasets of a file, all of one state; see `ndstream.client.reading.read_many`."""
        await self._http.run(read_many(self._flows, path, [Wanted(*each) for each in reads]))

    async def apply(
        self, path: str, operations: Sequence[Operation], *, condition: str | None = None, create: bool = False
    ) -> Committed:
        """Carry out operations together, once; see `ndstream.client.native.NativeConnection.apply`."""
        key = uuid.uuid4().hex
        return await self._http.drive(
            lambda: self._flows.apply(path, operations, key=key, condition=condition, create=create)
        )

    async def follow(self, path: str, since: int | str | None = None) -> AsyncGenerator[Event, None]:
        """Events of the commits of a file after `since`, or after the moment in which the first one is awaited.

        See `NativeConnection.follow` in the same words.
        """
        if since is None:
            since = await self._http.drive(lambda: self._flows.state(path)) or ""
        commits = Commits(self._flows, path, since)
        while True:
            try:
                async with self._followers.begin(commits.begin) as exchange:
                    while True:
                        for event in commits.take(await exchange.read_some(PIECE)):
                            yield event
            except AWAY as error:
                await self._followers.pause(commits.patience.lost(error))

    async def growth(self, path: str, name: str, dtype: np.dtype[Any]) -> AsyncGenerator[NDArray[Any], None]:
        """Follow what is appended to a dataset; see `NativeConnection.growth`."""
        growth = Growth(self._flows, path, name, dtype)
        async with aclosing(self.follow(path, await self._http.run(growth.begin()))) as events:
            async for event in events:
                rows = await self._patiently(growth, event)
                if rows is not None:
                    yield rows

    async def _patiently(self, growth: Growth, event: Event) -> NDArray[Any] | None:
        while True:
            try:
                rows = await self._http.run(growth.rows(event))
            except AWAY as error:
                await self._http.pause(growth.patience.lost(error))
            else:
                growth.patience.heard()
                return rows

    async def aclose(self) -> None:
        """Close all network connections."""
        try:
            await self._http.aclose()
        finally:
            await self._followers.aclose()
