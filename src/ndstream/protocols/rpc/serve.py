"""The connections of the framed TCP protocol, and what they share."""

from __future__ import annotations

import asyncio

from ndstream.core.ports import Exposure, Service
from ndstream.protocols.rpc.connection import Connection
from ndstream.protocols.rpc.intake import Intake
from ndstream.protocols.rpc.outgoing import Replies
from ndstream.protocols.rpc.service import Commands


class Connections:
    """Everybody who is connected; see `ndstream.core.ports.StreamApp`."""

    def __init__(self, service: Service, exposure: Exposure) -> None:
        self.limits = service.limits
        self.counters = service.counters
        self.admission = exposure.admission
        self.commands = Commands(service, exposure.path)
        self.intake = Intake(service.limits.frames)
        self.replies = Replies(service.limits.replies)
        self.closing = False
        self._open: set[Connection] = set()
        self._left = asyncio.Event()

    def connection(self) -> asyncio.BufferedProtocol:
        """Make the protocol of a connection that was accepted."""
        return Connection(self).link

    def enter(self, connection: Connection) -> bool:
        """Count a connection in; False when there are too many, or no more are taken."""
        self.counters.add("rpc_connections")
        self._open.add(connection)
        return len(self._open) <= self.limits.connections and not self.closing

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        self._open.discard(connection)
        if not self._open:
            self._left.set()

    def check(self, now: float) -> None:
        """Cut whoever is too slow."""
        for connection in list(self._open):
            connection.check(now)

    async def drain(self, seconds: float) -> None:
        """Take no more requests, let those under way end for so long, then close every connection."""
        self.closing = True
        if self._open:
            ends = [asyncio.ensure_future(connection.drain()) for connection in self._open]
            _, late = await asyncio.wait(ends, timeout=seconds)
            for end in late:
                end.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self._open):
            connection.link.abort()
        if self._open:
            self._left.clear()
            await self._left.wait()
