"""How long a peer may take for a frame; the clock is that of the test."""

from __future__ import annotations

import asyncio
from typing import Any

from ndstream.core.limits import Limits
from ndstream.core.ports import ANYBODY, Access, Exposure, Service
from ndstream.protocols.rpc.serve import Connections
from ndstream.stores.memory import Group, MemoryStore


class Anybody:
    required = False

    def anonymous(self, address: str) -> Access:
        return ANYBODY

    async def check(self, secret: str, user: str | None, address: str) -> Access:
        return ANYBODY


class Transport(asyncio.Transport):
    """Goes nowhere."""

    aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have none."""

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


def test_a_frame_has_its_time_from_its_own_beginning_on() -> None:
    async def work() -> None:
        service = Service(store=MemoryStore({"a.h5": Group()}), limits=Limits(frame_timeout=60.0))
        connections = Connections(service, Exposure(path="a.h5", admission=Anybody()))
        link, transport = connections.connection(), Transport()
        link.connection_made(transport)
        memoryview(link.get_buffer(-1))[:5] = b"\x00\x00\x10\x00\x81"
        link.buffer_updated(5)
        now = asyncio.get_running_loop().time()
        connections.check(now + 1)
        assert not transport.aborted
        connections.check(now + 59)
        assert not transport.aborted
        connections.check(now + 62)
        assert transport.aborted
        link.connection_lost(None)
        await connections.drain(1)

    asyncio.run(work())
