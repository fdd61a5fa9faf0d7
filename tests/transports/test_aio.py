"""The driver of flows over aiohttp, against a server in the same loop that stops wherever it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.errors import ConnectFailed, ConnectionLost, ProtocolError, TransportError
from ndstream.transports import http
from ndstream.transports.aio import AioTransport
from ndstream.wire.flow import Course, Flow, Request, Start, Work, read, read_some, send

BODY = bytes(range(256)) * 8
_LONG = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)


class Peer:
    """A server: says how many connections there are, and who waits for something that does not come."""

    def __init__(self) -> None:
        self.open = 0
        self.began = 0
        self.asked: list[str] = []
        self.waiting = 0
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_LONG), self._changed:
            await self._changed.wait_for(condition)

    async def note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.began += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                self.asked.append(path)
                if await self._answered(path, writer):
                    continue
                self.waiting += 1
                await self.note()
                # Whoever is not answered any more can only end the connection.
                assert await reader.read() == b""
                self.waiting -= 1
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()
            await self.note()

    async def _answered(self, path: str, writer: asyncio.StreamWriter) -> bool:
        length = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        match path:
            case "/whole":
                writer.write(length + BODY)
            case "/nothing":
                return False
            case "/head":
                writer.write(length)
                return False
            case "/half":
                writer.write(length + BODY[: len(BODY) // 2])
                return False
            case "/chunks":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                return False
            case "/cut":
                writer.write(length + BODY[:10])
                writer.close()
                return False
        return True


@asynccontextmanager
async def connected(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[tuple[Peer, AioTransport]]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    transport = AioTransport(f"http://127.0.0.1:{port}", limits=limits)
    try:
        yield peer, transport
    finally:
        await transport.aclose()
        await peer.until(lambda: peer.open == 0)
        server.close()
        await server.wait_closed()


def run(use: Callable[[Peer, AioTransport], Awaitable[None]], limits: Limits = DEFAULT_LIMITS) -> None:
    async def main() -> None:
        async with connected(limits) as (peer, transport):
            await use(peer, transport)

    asyncio.run(main())


def get(path: str) -> Start:
    def flow() -> Flow[bytes]:
        yield from send(Request(method="GET", path=path))
        pieces = []
        while piece := (yield from read_some(1000)):
            pieces.append(piece)
        return b"".join(pieces)

    return flow


async def cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("path", ["/nothing", "/head", "/half", "/chunks"])
def test_a_cancelled_flow_takes_its_connection_with_it_and_no_other(path: str) -> None:
    async def use(peer: Peer, transport: AioTransport) -> None:
        assert await transport.drive(get("/whole")) == BODY
        tasks = [asyncio.ensure_future(transport.drive(get(path))) for _ in range(5)]
        await peer.until(lambda: peer.waiting == 5)
        # One began on the connection that was there already.
        assert peer.open == peer.began == 5
        for task in tasks[:4]:
            await cancelled(task)
        await peer.until(lambda: (peer.waiting, peer.open) == (1, 1))
        assert await transport.drive(get("/whole")) == BODY
        await cancelled(tasks[4])
        await peer.until(lambda: peer.waiting == 0)
        assert [await transport.drive(get("/whole")) for _ in range(3)] == [BODY] * 3
        # These three took the connection of the one before them.
        assert (peer.open, peer.began) == (1, 6)
        assert len(asyncio.all_tasks()) == 2  # this one, and the side of the server

    run(use)


def test_a_flow_that_waits_for_the_end_of_a_body_takes_its_connection_with_it_too() -> None:
    async def use(peer: Peer, transport: AioTransport) -> None:
        read_all = asyncio.Event()

        def hello() -> Flow[bytes]:
            yield from send(Request(method="GET", path="/chunks"))
            found = yield from read(5)
            read_all.set()
            return found

        asked = asyncio.ensure_future(transport.drive(hello))
        await read_all.wait()
        await cancelled(asked)
        await peer.until(lambda: peer.open == 0)

    run(use)


def test_flows_that_wait_for_a_connection_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndstream.transports.aio._POOLED", 2)

    async def use(peer: Peer, transport: AioTransport) -> None:
        tasks = [asyncio.ensure_future(transport.drive(get("/nothing"))) for _ in range(6)]
        await peer.until(lambda: peer.waiting == 2)
        for task in tasks:
            await cancelled(task)
        await peer.until(lambda: peer.open == 0)
        assert peer.asked == ["/nothing"] * 2
        assert await asyncio.gather(*[transport.drive(get("/whole")) for _ in range(20)]) == [BODY] * 20
        assert peer.open <= 2

    run(use)


def test_flows_of_one_course_run_a_few_at_a_time_and_end_together() -> None:
    def course(paths: list[str]) -> Course[list[bytes]]:
        found: list[bytes] = yield [get(path) for path in paths]
        return found

    async def use(peer: Peer, transport: AioTransport) -> None:
        assert await transport.run(course(["/whole"] * 9)) == [BODY] * 9
        assert peer.began <= 3
        task = asyncio.ensure_future(transport.run(course(["/whole", *["/half"] * 9])))
        await peer.until(lambda: peer.waiting == 3)
        await cancelled(task)
        await peer.until(lambda: peer.waiting == 0)
        assert peer.asked.count("/half") == 3
        # A failure of one ends the others too, wherever they are.
        with pytest.raises(ConnectionLost):
            await transport.run(course(["/half", "/half", "/cut"]))
        await peer.until(lambda: peer.waiting == 0)

    run(use, replace(DEFAULT_LIMITS, read_requests=3, retries=0))


def test_a_course_may_go_on_after_an_error() -> None:
    def course() -> Course[bytes]:
        try:
            yield (get("/cut"),)
        except ConnectionLost:
            (found,) = yield (get("/whole"),)
            return bytes(found)
        raise AssertionError

    async def use(peer: Peer, transport: AioTransport) -> None:
        assert await transport.run(course()) == BODY

    run(use, replace(DEFAULT_LIMITS, retries=0))


def test_work_that_was_begun_is_done_before_a_cancelled_flow_ends() -> None:
    begun, go_on = threading.Event(), threading.Event()
    written = bytearray(1)

    def work() -> None:
        begun.set()
        assert go_on.wait(_LONG)
        written[0] = 1

    def flow() -> Flow[None]:
        yield from send(Request(method="GET", path="/whole"))
        yield from read(len(BODY))
        yield Work(work, 1)

    async def use(peer: Peer, transport: AioTransport) -> None:
        task = asyncio.ensure_future(transport.drive(flow))
        assert await asyncio.to_thread(begun.wait, _LONG)
        asyncio.get_running_loop().call_soon(go_on.set)
        await cancelled(task)
        assert written[0] == 1

    run(use)


def test_lost_connections_are_repeated_and_what_cannot_be_is_raised() -> None:
    async def use(peer: Peer, transport: AioTransport) -> None:
        with pytest.raises(ConnectionLost):
            await transport.drive(get("/cut"))
        assert peer.asked == ["/cut"] * 3

    run(use)

    async def refused() -> None:
        transport = AioTransport("http://127.0.0.1:1", limits=replace(DEFAULT_LIMITS, retries=1))
        with pytest.raises(ConnectFailed):
            await transport.drive(get("/whole"))
        await transport.aclose()

    asyncio.run(refused())


def test_an_error_of_a_flow_closes_its_connection() -> None:
    def flow() -> Flow[None]:
        yield from send(Request(method="GET", path="/half"))
        yield from read(10)
        raise ProtocolError("not what was expected")

    async def use(peer: Peer, transport: AioTransport) -> None:
        with pytest.raises(ProtocolError):
            await transport.drive(flow)
        await peer.until(lambda: peer.open == 0)

    run(use)


@pytest.mark.parametrize("path", ["/nothing", "/head", "/half", "/chunks"])
def test_what_is_under_way_ends_when_all_is_closed(path: str) -> None:
    async def use(peer: Peer, transport: AioTransport) -> None:
        tasks = [asyncio.ensure_future(transport.drive(get(path))) for _ in range(3)]
        await peer.until(lambda: peer.waiting == 3)
        await transport.aclose()
        for task in tasks:
            with pytest.raises(TransportError, match="closed"):
                await task
        await peer.until(lambda: peer.open == 0)
        assert len(peer.asked) == 3
        assert await transport.drive(get("/whole")) == BODY

    run(use)


def test_nothing_is_repeated_when_all_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(peer: Peer, transport: AioTransport) -> None:
        pausing, over = asyncio.Event(), asyncio.Event()
        sleep = asyncio.sleep

        async def pause(seconds: float) -> None:
            if seconds:
                pausing.set()
                await over.wait()
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", pause)
        asked = asyncio.ensure_future(transport.drive(get("/cut")))
        await pausing.wait()
        await transport.aclose()
        over.set()
        with pytest.raises(TransportError, match="closed"):
            await asked
        assert peer.began == 1

    run(use)
