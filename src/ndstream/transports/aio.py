"""HTTP for asynchronous clients: runs flows over aiohttp, by the rules of `ndstream.transports.http`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import aiohttp
from yarl import URL

from ndstream.core.limits import DEFAULT_LIMITS, Limits, MiB
from ndstream.errors import (
    CertificateError,
    ConnectFailed,
    ConnectionLost,
    InvalidRequest,
    NDStreamError,
    TimedOut,
    TransportError,
)
from ndstream.transports import http
from ndstream.transports.works import Works
from ndstream.wire.flow import (
    Course,
    Flow,
    Head,
    Instruction,
    Peek,
    Read,
    ReadInto,
    ReadSome,
    Request,
    Start,
    Tell,
    Work,
)

T = TypeVar("T")

_PIECE = 1 * MiB
_POOLED = 32  # connections to one server


class AioExchange:
    """An answer whose head has come and whose body is being read, by one task."""

    def __init__(self, response: aiohttp.ClientResponse, where: str, timeout: float) -> None:
        self.head = Head(
            status=response.status, headers={name.lower(): value for name, value in response.headers.items()}
        )
        self._response = response
        self._where = where
        self._timeout = timeout
        self._ahead = memoryview(b"")
        self._ended = False

    async def peek(self, count: int) -> bytes:
        """Look at the next bytes; fewer than `count` only at the end of the body."""
        while len(self._ahead) < count:
            more = await self._receive()
            if not more:
                break
            self._ahead = memoryview(bytes(self._ahead) + more)
        return bytes(self._ahead[:count])

    async def read_some(self, most: int) -> bytes:
        """Read at most `most` bytes, b"" at the end of the body."""
        if not self._ahead:
            self._ahead = memoryview(await self._receive())
        return self._take(most)

    async def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        data = bytearray(count)
        await self.read_into(memoryview(data))
        return bytes(data)

    async def read_into(self, buffer: memoryview) -> None:
        """Fill the buffer.

        Raises
        ------
        ConnectionLost, TimedOut
        """
        done = 0
        while done < len(buffer):
            if not self._ahead:
                self._ahead = memoryview(await self._receive())
                if not self._ahead:
                    raise ConnectionLost(f"{self._where}: the answer ended {len(buffer) - done} bytes too early")
            count = min(len(buffer) - done, len(self._ahead))
            buffer[done : done + count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            done += count

    async def finish(self) -> None:
        """Give the connection back for the next request if the body was read to its end, else close it."""
        complete = False
        try:
            complete = not self._ahead and not await self._receive()
        except NDStreamError:
            pass
        finally:  # who is cancelled takes the connection along
            if complete:
                self._response.release()
            else:
                self.close()

    def close(self) -> None:
        """Close the connection, whatever is still under way."""
        self._response.close()

    def end(self) -> None:
        """Let the task that reads go on with an error, as the client is closed: aiohttp would let it wait for ever."""
        self._ended = True
        self._response.content.set_exception(aiohttp.ClientConnectionError())

    async def _receive(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if self._ended:
                raise _closed(self._where) from None
            raise _translation(error, self._where, self._timeout) from error

    def _take(self, most: int) -> bytes:
        data = bytes(self._ahead[:most])
        self._ahead = self._ahead[len(data) :]
        return data


class AioTransport:
    """Connections to one server, for the tasks of one event loop.

    Parameters
    ----------
    base, headers, verify, limits
        See `ndstream.transports.http.HTTPTransport`.
    most : int, optional
        Connections at once, 0 for any number.

    Notes
    -----
    Any number of tasks may use it at once; those that find no free connection wait. A task that is cancelled takes its
    connection with it, and nothing else. What is under way when all is closed ends with a `TransportError`.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        limits: Limits = DEFAULT_LIMITS,
        most: int | None = None,
    ) -> None:
        self.base = base
        self._most = _POOLED if most is None else most
        self._headers = dict(headers or {})
        self._verify = verify
        self.limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._exchanges: WeakSet[AioExchange] = WeakSet()

    async def drive(self, start: Callable[[], Flow[T]]) -> T:
        """Run a flow to its end, again from the start if the connection is lost or the server is busy.

        Raises
        ------
        TransportError, TimedOut
            When the last attempt failed as well.
        NDStreamError
            Whatever the flow raises.
        """
        run, result = await self._attempts(start)
        await run.exchange.finish()
        return result

    async def run(self, course: Course[T]) -> T:
        """Run a course to its end; flows that it yields together run at once.

        Raises
        ------
        TransportError, TimedOut, NDStreamError
            What the course does not handle.
        """
        try:
            starts = next(course)
            while True:
                try:
                    results = await self._drive_all(starts)
                except NDStreamError as error:
                    starts = course.throw(error)
                else:
                    starts = course.send(results)
        except StopIteration as end:
            answer: T = end.value
            return answer
        finally:
            course.close()

    async def _drive_all(self, starts: Sequence[Start]) -> list[Any]:
        if len(starts) == 1:
            return [await self.drive(starts[0])]
        turns = asyncio.Semaphore(self.limits.read_requests)

        async def drive(start: Start) -> Any:
            async with turns:
                return await self.drive(start)

        tasks = [asyncio.ensure_future(drive(start)) for start in starts]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            # They write into memory of the caller: none may be under way when this returns.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    @asynccontextmanager
    async def begin(self, start: Callable[[], Flow[None]]) -> AsyncIterator[AioExchange]:
        """Run a flow that sends a request and looks at the head of the answer; the body is left to the caller."""
        run, _ = await self._attempts(start)
        try:
            yield run.exchange
        finally:
            run.exchange.close()

    async def open(self, request: Request) -> AioExchange:
        """Send one request, once, and return its answer with the body still to be read.

        Raises
        ------
        ConnectFailed, ConnectionLost, CertificateError, TimedOut, TransportError
        """
        url = self.base + request.path
        body = request.body
        session = self._connected()
        try:
            response = await session.request(
                request.method,
                URL(url, encoded=True),
                data=_pieces(body) if isinstance(body, tuple) else body,
                headers=self._headers | http.length_of(request) | dict(request.headers),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if session.closed:
                raise _closed(url) from None
            raise _translation(error, url, self.limits.read_timeout) from error
        exchange = AioExchange(response, url, self.limits.read_timeout)
        self._exchanges.add(exchange)
        return exchange

    async def pause(self, seconds: float) -> None:
        """Wait before the same is asked again.

        Raises
        ------
        TransportError
            All was closed meanwhile.
        """
        session = self._session
        await asyncio.sleep(seconds)
        if self._session is not session:
            raise _closed(self.base)

    async def aclose(self) -> None:
        """Close all connections; the transport can still be used, and opens new ones then."""
        session, self._session = self._session, None
        for exchange in self._exchanges:
            exchange.end()
        self._exchanges.clear()
        if session is not None:
            await session.close()

    async def _attempts(self, start: Callable[[], Flow[T]]) -> tuple[_Run[T], T]:
        for attempt in range(self.limits.retries + 1):
            last = attempt == self.limits.retries
            run = _Run(self, start(), None if last else attempt)
            try:
                return run, await run.result()
            except _Later as later:
                pause = later.pause
            except (ConnectionLost, ConnectFailed):
                if last or not run.repeatable:
                    raise
                pause = http.FIRST_PAUSE * 2**attempt
            await self.pause(pause)
        raise AssertionError("the last attempt returns or raises")

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._most, ssl=_tls(self._verify)),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.limits.connect_timeout, sock_read=self.limits.read_timeout
                ),
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                read_bufsize=_PIECE,
                trust_env=False,
            )
        return self._session


class _Later(Exception):
    """The server is busy, and there is an attempt left."""

    def __init__(self, pause: float) -> None:
        self.pause = pause


class _Run(Generic[T]):
    """One attempt at a flow."""

    def __init__(self, transport: AioTransport, flow: Flow[T], attempt: int | None) -> None:
        self.repeatable = True
        self._transport = transport
        self._flow = flow
        self._attempt = attempt
        self._exchange: AioExchange | None = None
        self._works = Works(transport.limits.read_memory)

    @property
    def exchange(self) -> AioExchange:
        """The answer that the flow is at."""
        if self._exchange is None:
            raise AssertionError("a flow begins with a request")
        return self._exchange

    async def result(self) -> T:
        """Carry out what the flow yields until it returns; the last answer is left open."""
        value: Any = None
        try:
            while True:
                value = await self._carry_out(self._flow.send(value))
        except StopIteration as end:
            answer: T = end.value
            await self._finish_works()
            return answer
        except BaseException:
            # Waits for a chunk or two to be decoded: they go into memory of the caller, who is about to have it back.
            self._works.drop()
            if self._exchange is not None:
                self._exchange.close()
            raise
        finally:
            self._flow.close()

    async def _finish_works(self) -> None:
        try:
            while (first := self._works.first()) is not None:
                await asyncio.wrap_future(first)
                self._works.take()
        except BaseException:
            self._works.drop()
            self.exchange.close()
            raise

    async def _carry_out(self, instruction: Instruction) -> Any:
        match instruction:
            case Request():
                return await self._send(instruction)
            case ReadInto(buffer):
                return await self.exchange.read_into(buffer)
            case ReadSome(most):
                return await self.exchange.read_some(most)
            case Read(count):
                return await self.exchange.read(count)
            case Peek(count):
                return await self.exchange.peek(count)
            case Work(nbytes=nbytes):
                while (oldest := self._works.oldest(nbytes)) is not None:
                    await asyncio.wrap_future(oldest)
                    self._works.take()
                return self._works.start(instruction)
            case Tell():
                return None

    async def _send(self, request: Request) -> Head:
        if self._exchange is not None:
            await self._exchange.finish()
        self.repeatable = self.repeatable and request.safe
        self._exchange = await self._transport.open(request)
        head = self._exchange.head
        if head.status in http.BUSY_STATUSES and self._attempt is not None and self.repeatable:
            pause = http.pause_asked(head, http.FIRST_PAUSE * 2**self._attempt)
            if pause <= http.LONGEST_PAUSE:
                raise _Later(pause)
        return head


async def _pieces(parts: tuple[bytes | memoryview, ...]) -> AsyncIterator[memoryview]:
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]


def _tls(verify: bool | str) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


def _closed(where: str) -> TransportError:
    return TransportError(f"{where}: the client was closed meanwhile")


def _translation(error: Exception, where: str, timeout: float) -> NDStreamError:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return TimedOut(f"{where}: no connection within the time allowed")
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return TimedOut(f"{where}: nothing came for {timeout:g} s")
        case aiohttp.ClientConnectorCertificateError():
            return CertificateError(f"{where}: the certificate of the server is not trusted: {error}")
        case aiohttp.ClientConnectorError():
            return ConnectFailed(f"{where}: {error}")
        case aiohttp.InvalidURL() | ValueError():
            return InvalidRequest(f"{where}: not an address: {error}")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
            return ConnectionLost(f"{where}: the connection was lost: {error or type(error).__name__}")
        case _:
            return TransportError(f"{where}: {error}")
