"""The protocol in this process, on a real socket, over a store in memory: for limits, and for what must be watched."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import uvloop

from ndstream.core.limits import Limits
from ndstream.core.ports import Access, Exposure, Reading, Service
from ndstream.protocols.rpc.connection import Connection
from ndstream.protocols.rpc.serve import Connections
from ndstream.stores.memory import Array, Group, MemoryStore

T = TypeVar("T")

_PATIENCE = 60.0


class Everybody:
    """Lets everybody in, to read and to write."""

    required = False

    def anonymous(self, address: str) -> Access:
        return Access(key=address, writable=frozenset({""}))

    async def check(self, secret: str, user: str | None, address: str) -> Access:
        return self.anonymous(address)


class Watched:
    """A reading that notes what it gives."""

    def __init__(self, reading: Reading, given: list[weakref.ref[Any]], gate: asyncio.Event) -> None:
        self._reading = reading
        self._given = given
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reading, name)

    async def buffers(self) -> AsyncIterator[memoryview]:
        async for buffer in self._reading.buffers():
            piece = np.frombuffer(bytearray(buffer), np.uint8)
            self._given.append(weakref.ref(piece))
            await self._gate.wait()
            view = piece.data
            del piece
            yield view
            del view


class GatedStore(MemoryStore):
    """Carries out nothing while its gate is closed.

    Attributes
    ----------
    pieces : Event
        Cleared, no piece of a dataset is given.
    given : list of weakref
        The pieces that were read of datasets that are not small.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gate = asyncio.Event()
        self.gate.set()
        self.pieces = asyncio.Event()
        self.pieces.set()
        self.given: list[weakref.ref[Any]] = []

    async def read(self, *arguments: Any) -> Any:
        reading = await super().read(*arguments)
        return reading if reading.nbytes is None or reading.ready else Watched(reading, self.given, self.pieces)

    @property
    def alive(self) -> int:
        """Number of pieces that somebody still has."""
        return sum([piece() is not None for piece in self.given])

    async def apply(self, *arguments: Any, **options: Any) -> Any:
        await self.gate.wait()
        return await super().apply(*arguments, **options)


class Hosted:
    """An application in the event loop of a thread."""

    def __init__(self, app: Connections, store: GatedStore, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.app = app
        self.store = store
        self.port = port
        self._loop = loop

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the event loop."""

        async def work() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_PATIENCE)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, which is looked at in the event loop."""
        deadline = time.monotonic() + _PATIENCE
        while not self.call(condition):
            assert time.monotonic() < deadline, "the condition never held"

    def check(self, later: float = 0.0) -> None:
        """Look at all connections, as the server does every second; as if so many seconds had passed."""
        self.call(lambda: self.app.check(self._loop.time() + later))

    @property
    def connections(self) -> list[Connection]:
        return list(self.app._open)


@contextmanager
def hosted(members: dict[str, Array] | None = None, **limits: Any) -> Iterator[Hosted]:
    """Serve datasets under these limits."""
    chosen = Limits(**limits)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Hosted, asyncio.AbstractServer]:
        store = GatedStore({"data.h5": Group(dict(members or {}))}, limits=chosen)
        app = Connections(Service(store=store, limits=chosen), Exposure(path="data.h5", admission=Everybody()))
        listener = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(app.connection, sock=listener)
        return Hosted(app, store, loop, listener.getsockname()[1]), server

    async def stop(host: Hosted, server: asyncio.AbstractServer) -> None:
        host.store.gate.set()
        host.store.pieces.set()
        server.close()
        await host.app.drain(_PATIENCE)
        await loop.shutdown_default_executor()

    try:
        host, server = asyncio.run_coroutine_threadsafe(start(), loop).result(_PATIENCE)
        try:
            yield host
        finally:
            asyncio.run_coroutine_threadsafe(stop(host, server), loop).result(2 * _PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
