"""What surrounds every request: it is counted, and whatever goes wrong in it ends well."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from time import perf_counter

from ndstream.core.ports import Access, ASGIApp, Message, Receive, Scope, Send
from ndstream.errors import ConnectionLost
from ndstream.server.answer import TEXT, Answer
from ndstream.server.connection import Connection, connection_of
from ndstream.server.meter import Meter

CLIENT_GONE = 499
SWITCHED = 101

log = logging.getLogger("ndstream.server")
access_log = logging.getLogger("ndstream.access")

_run = secrets.token_hex(3)
_numbers = itertools.count(1)


def plain_failure(status: int, text: str) -> tuple[str, bytes]:
    """Form of an error where no protocol has its own."""
    return TEXT, f"{status}: {text}\n".encode()


class Watch:
    """Application under watch: the outermost layer around a protocol or a page.

    An exception nobody foresaw is logged with an id that the answer has too (``x-request-id``). It becomes a 500 in
    the protocol's form or, after the first byte, the end of the connection: never a short answer that looks whole.
    """

    def __init__(
        self, app: ASGIApp, meter: Meter, failure: Callable[[int, str], tuple[str, bytes]] = plain_failure
    ) -> None:
        self._app = app
        self._meter = meter
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        meter = self._meter
        exchange = _Exchange(scope, send, meter)
        connection = exchange.connection
        if connection is not None and connection.lends:
            scope["ndstream.emptied"] = connection.emptied
        started = perf_counter()
        meter.active += 1
        try:
            await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            # The server stops, and this request had its time. uvicorn would log an error, and send what it still has.
            if exchange.connection is None:
                raise
            await _end(exchange.connection)
        # Only here may nothing be let through: the layers below name what they expect.
        except Exception as error:  # noqa: BLE001
            await self._failed(error, exchange)
        finally:
            meter.active -= 1
            seconds = perf_counter() - started
            meter.done(exchange.status, seconds)
            if access_log.isEnabledFor(logging.INFO):
                _log_access(scope, exchange, seconds)

    async def _failed(self, error: Exception, exchange: _Exchange) -> None:
        connection = exchange.connection
        if isinstance(error, ConnectionLost) and (connection is None or connection.broken):
            exchange.status = CLIENT_GONE
            if connection is not None:
                await _end(connection)
            return
        identity = exchange.identity = f"{_run}-{next(_numbers):x}"
        method, path = exchange.scope["method"], exchange.scope["path"]
        log.error("request %s (%s %r) failed", identity, method, path, exc_info=error)
        if not exchange.status:
            media_type, body = self._failure(500, f"internal error, logged as request {identity}")
            await Answer(500, media_type, body).send(exchange.send)
            return
        exchange.status = 500
        if connection is None:
            raise error
        await _end(connection)


async def _end(connection: Connection) -> None:
    connection.abort()
    # uvicorn takes an answer that is not complete for a mistake, unless there is nobody to answer.
    await connection.gone()


class _Exchange:
    """One request and its answer so far; `status` is 0 until the head was sent."""

    __slots__ = ("_send", "connection", "identity", "meter", "scope", "sent", "status")

    def __init__(self, scope: Scope, send: Send, meter: Meter) -> None:
        self.scope = scope
        self.meter = meter
        self.connection: Connection | None = connection_of(scope)
        self.identity = ""
        self.status = 0
        self.sent = 0
        self._send = send

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on, and raise `ConnectionLost` when nobody takes the rest: uvicorn would drop it in silence."""
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            return self._send(self._identified(message) if self.status >= 500 else message)
        if kind == "websocket.accept":
            self.status = SWITCHED
        length = len(message.get("body", b"")) or len(message.get("text", ""))
        self.sent += length
        self.meter.sent += length
        return self._send_part(message) if message.get("more_body") else self._send(message)

    async def _send_part(self, message: Message) -> None:
        await self._send(message)
        if self.connection is not None and self.connection.broken:
            raise ConnectionLost("the client went away")

    def _identified(self, message: Message) -> Message:
        if not self.identity:
            self.identity = f"{_run}-{next(_numbers):x}"
            log.warning("request %s (%s %r): %d", self.identity, self.scope["method"], self.scope["path"], self.status)
        headers = [*message.get("headers", ()), (b"x-request-id", self.identity.encode())]
        return {**message, "headers": headers}


def _log_access(scope: Scope, exchange: _Exchange, seconds: float) -> None:
    access: Access | None = scope.get("ndstream.access")
    access_log.info(
        "%s %s %s %r %d %d bytes %.1f ms",
        (scope.get("client") or ("-",))[0],
        (access.user if access else None) or "-",
        scope["method"],
        scope["path"],
        exchange.status,
        exchange.sent,
        seconds * 1000,
    )
