"""HTTP for synchronous clients: runs flows over urllib3.

The transport knows bytes and statuses, not what they mean. It keeps connections open between requests, repeats what
may be repeated, and translates every error of the network once, here.
"""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions as foreign

from ndstream.core.limits import DEFAULT_LIMITS, Limits, MiB
from ndstream.errors import (
    CertificateError,
    ConnectFailed,
    ConnectionLost,
    InvalidRequest,
    NDStreamError,
    ProtocolError,
    TimedOut,
    TransportError,
)
from ndstream.transports.joining import JoiningHTTPConnection, JoiningHTTPSConnection
from ndstream.transports.waking import waking
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

PIECE = 1 * MiB  # what is received at a time, and so how often those who watch hear of it
FAST_PIECE = 4 * MiB  # the same from a peer that takes less than `FAST` seconds for a piece: each has its price
FAST = 0.05
GATHERED = 4 * MiB  # what must have come of a fast peer's body before its receiver is woken: in `Limits.read_timeout`
SPARE = 64 * 1024  # more than what may have been received ahead
AHEAD = 4 * 1024  # what is received at once when a flow asks for a few bytes: small answers need no second look
POOLED = 16  # connections kept open to one server
FIRST_PAUSE = 0.1  # seconds before the first repetition; doubles each time
LONGEST_PAUSE = 30.0  # seconds; a server that asks for more patience gets none
BUSY_STATUSES = (429, 503)  # the server says: later


class Exchange:
    """An answer whose head has come and whose body is being read. Use as a context manager, in one thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse, where: str, timeout: float) -> None:
        self.head = Head(
            status=response.status, headers={name.lower(): value for name, value in response.headers.items()}
        )
        self._response = response
        self._straight = _straight(response)
        self._waking = waking(getattr(response.connection, "sock", None)) if self._straight is not None else None
        self._fast = False
        self._where = where
        self._timeout = timeout
        self._ahead = memoryview(b"")

    def peek(self, count: int) -> bytes:
        """Look at the next bytes, at most `AHEAD`; fewer than `count` only at the end of the body.

        Raises
        ------
        ConnectionLost, TimedOut, ProtocolError
        """
        while len(self._ahead) < count:
            more = self._receive(AHEAD)
            if not more:
                break
            self._ahead = memoryview(bytes(self._ahead) + more)
        return bytes(self._ahead[:count])

    def read_some(self, most: int) -> bytes:
        """Read at most `most` bytes, b"" at the end of the body.

        Raises
        ------
        ConnectionLost, TimedOut, ProtocolError
        """
        if self._ahead:
            return self._take(most)
        return self._receive(most)

    def read_now(self, most: int) -> bytes:
        """Read what has come, at most `most` bytes, without waiting for more than the first; b"" at the end.

        Raises
        ------
        ConnectionLost, TimedOut, ProtocolError
        """
        if self._ahead:
            return self._take(most)
        self._wake_after(1)
        with _Translated(self._where, self._timeout):
            return self._response.read1(most) or b""

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes.

        Raises
        ------
        ConnectionLost, TimedOut, ProtocolError
        """
        if count <= AHEAD and len(self.peek(count)) == count:
            return self._take(count)
        data = bytearray(count)
        self.read_into(memoryview(data))
        return bytes(data)

    def read_into(self, buffer: memoryview, watch: Callable[[int], None] | None = None) -> None:
        """Fill the buffer, telling `watch` how many bytes came each time.

        Raises
        ------
        ConnectionLost, TimedOut, ProtocolError
        """
        done = min(len(buffer), len(self._ahead))
        if done:
            buffer[:done] = self._ahead[:done]
            self._ahead = self._ahead[done:]
            if watch is not None:
                watch(done)
        while done < len(buffer):
            with _Translated(self._where, self._timeout):
                count = self._receive_into(buffer[done : done + (FAST_PIECE if self._fast else PIECE)])
            if not count:
                raise ConnectionLost(f"{self._where}: the answer ended {len(buffer) - done} bytes too early")
            done += count
            if watch is not None:
                watch(count)

    def _receive_into(self, buffer: memoryview) -> int:
        if self._straight is None:
            return self._response.readinto(buffer)
        left = self._response.length_remaining
        # Never for more than is still to come behind the piece: its last bytes would be waited for in vain.
        gathers = self._fast and left is not None and left - len(buffer) >= GATHERED + SPARE
        self._wake_after(GATHERED if gathers else 1)
        begin = time.monotonic()
        count = self._straight.readinto(buffer)
        self._fast = time.monotonic() - begin < FAST
        if left is not None:
            self._response.length_remaining = left - count
        return count

    def _wake_after(self, least: int) -> None:
        if self._waking is not None:
            self._waking.set(least)

    def _receive(self, most: int) -> bytes:
        self._wake_after(1)
        with _Translated(self._where, self._timeout):
            return self._response.read(most) or b""

    def _take(self, most: int) -> bytes:
        data = bytes(self._ahead[:most])
        self._ahead = self._ahead[len(data) :]
        return data

    def finish(self) -> None:
        """Give the connection back for the next request if the body was read to its end, else close it."""
        try:
            self._wake_after(1)
            complete = not self._ahead and (self._response.length_remaining == 0 or not self._response.read(1))
        except (foreign.HTTPError, OSError):
            complete = False
        if complete:
            self._response.release_conn()
        else:
            self.close()

    def close(self) -> None:
        """Close the connection, whatever is still under way."""
        self._response.close()
        self._response.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.close()


class HTTPTransport:
    """Connections to one server.

    Parameters
    ----------
    base : str
        Address that the paths of requests follow, without a slash at the end.
    headers : mapping
        Sent with every request (credentials among them: never shown in messages).
    verify : bool or str
        False trusts any certificate; a string is the path of a file of trusted ones.
    limits : Limits
        Times, and the number of repetitions.

    Notes
    -----
    Safe to use from several threads. A forked child opens connections of its own. Proxies and redirections are not
    followed: both would carry credentials to hosts that nobody named.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.base = base
        self._headers = dict(headers or {})
        self._verify = verify
        self.limits = limits
        self._timeout = urllib3.Timeout(connect=limits.connect_timeout, read=limits.read_timeout)
        self._prefix = urlsplit(base).path
        self._process = os.getpid()
        self._pool = self._new_pool()
        self._cookies: dict[str, str] = {}

    def drive(self, start: Callable[[], Flow[T]], watch: Callable[[int], None] | None = None) -> T:
        """Run a flow to its end, again from the start if the connection is lost or the server is busy.

        Parameters
        ----------
        start : callable
            Makes the flow; called once per attempt.
        watch : callable, optional
            Told the number of bytes that arrived in buffers of the flow, each time; a negative number takes back
            what a lost attempt had received.

        Raises
        ------
        TransportError, TimedOut
            When the last attempt failed as well.
        NDStreamError
            Whatever the flow raises.
        """
        run, result = self._attempts(start, watch)
        run.finish()
        return result

    def run(self, course: Course[T], watch: Callable[[int], None] | None = None) -> T:
        """Run a course to its end; flows that it yields together run at once, in threads.

        Parameters
        ----------
        course : generator
        watch : callable, optional
            As in `drive`.

        Raises
        ------
        TransportError, TimedOut, NDStreamError
            What the course does not handle.
        """
        try:
            starts = next(course)
            while True:
                try:
                    results = self._drive_all(starts, watch)
                except NDStreamError as error:
                    starts = course.throw(error)
                else:
                    starts = course.send(results)
        except StopIteration as end:
            answer: T = end.value
            return answer
        finally:
            course.close()

    def _drive_all(self, starts: Sequence[Start], watch: Callable[[int], None] | None) -> list[Any]:
        if len(starts) == 1:
            return [self.drive(starts[0], watch)]
        group = _Group(watch)
        with ThreadPoolExecutor(min(len(starts), self.limits.read_requests), "ndstream-read") as threads:
            futures = [threads.submit(self.drive, start, group.watch) for start in starts]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # They write into memory of the caller: none may be under way when this returns.
                group.stop()
                threads.shutdown(cancel_futures=True)
                raise

    def begin(self, start: Callable[[], Flow[None]]) -> Exchange:
        """Run a flow that sends a request and looks at the head of the answer; the body is left to the caller.

        Attempts, and errors, are those of `drive`.
        """
        run, _ = self._attempts(start, None)
        return run.exchange

    def _attempts(self, start: Callable[[], Flow[T]], watch: Callable[[int], None] | None) -> tuple[_Run[T], T]:
        for attempt in range(self.limits.retries + 1):
            last = attempt == self.limits.retries
            run = _Run(self, start(), None if last else attempt, watch)
            try:
                return run, run.result()
            except _Later as later:
                pause = later.pause
            except (ConnectionLost, ConnectFailed):
                if last or not run.repeatable:
                    raise
                pause = FIRST_PAUSE * 2**attempt
            run.take_back()
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def open(self, request: Request) -> Exchange:
        """Send one request, once, and return its answer with the body still to be read.

        Raises
        ------
        ConnectFailed, ConnectionLost, CertificateError, TimedOut, TransportError
        """
        url = self.base + request.path
        with _Translated(url, self.limits.read_timeout):
            response = self._connections().request(
                request.method,
                self._prefix + request.path,
                body=request.body,  # type: ignore[arg-type]  # any buffers do, what urllib3 says is narrower
                headers=self._headers | self._cookie_header() | length_of(request) | dict(request.headers),
                preload_content=False,
                retries=False,
                redirect=False,
                timeout=self._timeout,
            )
        self._keep_cookies(response)
        return Exchange(response, url, self.limits.read_timeout)

    def close(self) -> None:
        """Close all idle connections; the transport can still be used."""
        closed, self._pool = self._pool, self._new_pool()
        closed.close()

    def _cookie_header(self) -> dict[str, str]:
        return (
            {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())} if self._cookies else {}
        )

    def _keep_cookies(self, response: urllib3.BaseHTTPResponse) -> None:
        """Remember the session that a web container opened; there is one server, so where a cookie is for is clear."""
        for line in response.headers.getlist("set-cookie") if "set-cookie" in response.headers else ():
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name.strip()] = value.strip()

    def _connections(self) -> urllib3.HTTPConnectionPool:
        process = os.getpid()
        if process != self._process:
            # The sockets that a fork copied belong to the parent: using them would mix two conversations.
            self._pool, self._process = self._new_pool(), process
        return self._pool

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        options: dict[str, Any] = {}
        if self.base.startswith("https:"):
            if self._verify is False:
                options = {"cert_reqs": ssl.CERT_NONE, "assert_hostname": False}
            elif isinstance(self._verify, str):
                options = {"ca_certs": self._verify}
        with _Translated(self.base, self.limits.connect_timeout):
            pool = urllib3.connection_from_url(self.base, maxsize=POOLED, **options)
        pool.ConnectionCls = JoiningHTTPSConnection if pool.scheme == "https" else JoiningHTTPConnection
        return pool


def _straight(response: urllib3.BaseHTTPResponse) -> http.client.HTTPResponse | None:
    """What receives into memory of the caller; None when it is not there, or the body is not sent as it is.

    urllib3's own `readinto` makes bytes and copies them, under the GIL: half of all that receiving costs.
    """
    within = getattr(response, "_fp", None)
    plain = "content-encoding" not in response.headers and "transfer-encoding" not in response.headers
    return within if plain and isinstance(within, http.client.HTTPResponse) else None


def length_of(request: Request) -> dict[str, str]:
    """Length of a body in parts, which would be sent in chunks if it were not told."""
    return {"Content-Length": str(sum(map(len, request.body)))} if isinstance(request.body, tuple) else {}


class _Later(Exception):
    """The server is busy, and there is an attempt left."""

    def __init__(self, pause: float) -> None:
        self.pause = pause


class _Stopped(Exception):
    """Another flow of the group failed."""


class _Group:
    """Flows that run at once: one watches them all, and when one fails the others stop where they are."""

    def __init__(self, watch: Callable[[int], None] | None) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._stopped = False

    def watch(self, count: int) -> None:
        """Hear of bytes, in any thread."""
        if self._stopped:
            raise _Stopped
        if self._watch is not None:
            with self._lock:
                self._watch(count)

    def stop(self) -> None:
        """Have all of them end when they next hear of bytes."""
        self._stopped = True


class _Run(Generic[T]):
    """One attempt at a flow."""

    def __init__(
        self,
        transport: HTTPTransport,
        flow: Flow[T],
        attempt: int | None,
        watch: Callable[[int], None] | None,
    ) -> None:
        self.repeatable = True
        self._transport = transport
        self._flow = flow
        self._attempt = attempt
        self._watch = watch
        self._watched = 0
        self._exchange: Exchange | None = None
        self._works = Works(transport.limits.read_memory)

    def result(self) -> T:
        """Carry out what the flow yields until it returns; the last answer is left open."""
        value: Any = None
        try:
            while True:
                instruction = self._flow.send(value)
                value = self._carry_out(instruction)
        except StopIteration as end:
            answer: T = end.value
            self._works.finish()
            return answer
        except BaseException:
            self._works.drop()
            if self._exchange is not None:
                self._exchange.close()
            raise
        finally:
            self._flow.close()

    @property
    def exchange(self) -> Exchange:
        """The answer that the flow is at."""
        if self._exchange is None:
            raise AssertionError("a flow begins with a request")
        return self._exchange

    def finish(self) -> None:
        """Give the connection back."""
        self.exchange.finish()

    def take_back(self) -> None:
        """Tell the watcher that what came so far does not count."""
        if self._watch is not None and self._watched:
            self._watch(-self._watched)

    def _carry_out(self, instruction: Instruction) -> Any:
        if isinstance(instruction, Request):
            return self._send(instruction)
        match instruction:
            case ReadInto(buffer, counted):
                return self.exchange.read_into(buffer, self._count if counted and self._watch is not None else None)
            case ReadSome(most):
                return self.exchange.read_some(most)
            case Read(count):
                return self.exchange.read(count)
            case Peek(count):
                return self.exchange.peek(count)
            case Work():
                return self._works.add(instruction)
            case Tell(count):
                return self._count(count)

    def _send(self, request: Request) -> Head:
        if self._exchange is not None:
            self._exchange.finish()
        self.repeatable = self.repeatable and request.safe
        self._exchange = self._transport.open(request)
        head = self._exchange.head
        if head.status in BUSY_STATUSES and self._attempt is not None and self.repeatable:
            pause = pause_asked(head, FIRST_PAUSE * 2**self._attempt)
            if pause <= LONGEST_PAUSE:
                raise _Later(pause)
        return head

    def _count(self, count: int) -> None:
        self._watched += count
        if self._watch is not None:
            self._watch(count)


def pause_asked(head: Head, default: float) -> float:
    """Seconds to wait, from Retry-After; its form with a date is not worth a clock comparison."""
    text = head.headers.get("retry-after", "").strip()
    return float(text) if text.isdecimal() and len(text) < 9 else default


class _Translated:
    """Turns urllib3's errors into ours, naming the address. A class: it is entered several times in each request."""

    __slots__ = ("_timeout", "_where")

    def __init__(self, where: str, timeout: float) -> None:
        self._where = where
        self._timeout = timeout

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (foreign.HTTPError, OSError)) and not isinstance(error, NDStreamError):
            raise _translation(error, self._where, self._timeout) from error


def _translation(error: Exception, where: str, timeout: float) -> NDStreamError:
    match error:
        case foreign.NewConnectionError():  # to urllib3 a kind of timeout
            return ConnectFailed(f"{where}: {_cause(error)}")
        case foreign.ConnectTimeoutError():
            return TimedOut(f"{where}: no connection within the time allowed")
        case foreign.ReadTimeoutError() | TimeoutError():
            return TimedOut(f"{where}: nothing came for {timeout:g} s")
        case foreign.SSLError():
            return _tls_error(where, error)
        case foreign.DecodeError():
            return ProtocolError(f"{where}: the compressed answer cannot be decoded")
        case foreign.ProtocolError() | OSError():
            return ConnectionLost(f"{where}: the connection was lost: {_cause(error)}")
        case foreign.LocationValueError() | foreign.URLSchemeUnknown():
            return InvalidRequest(f"{where}: not an address: {error}")
        case _:
            return TransportError(f"{where}: {error}")


def _tls_error(where: str, error: foreign.SSLError) -> TransportError:
    reason = error.args[0] if error.args else error
    if isinstance(reason, (ssl.SSLCertVerificationError, ssl.CertificateError)) or "CERTIFICATE" in str(reason):
        return CertificateError(f"{where}: the certificate of the server is not trusted: {reason}")
    return ConnectFailed(f"{where}: no secure connection: {reason}")


def _cause(error: BaseException) -> str:
    """Innermost reason, without urllib3's names of objects."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
