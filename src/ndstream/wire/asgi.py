"""Bodies of requests and answers over bare ASGI: read within a limit, sent without being joined."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from ndstream.core.limits import Limits
from ndstream.core.ports import Lent, Message, Receive, Scope, Send
from ndstream.errors import ConnectionLost, TooLarge
from ndstream.wire.ndmsgpack import Buffer

_JOINED = 1 << 16  # bytes; buffers up to this length are sent together


class BodyTooLong(TooLarge):
    """A body that is too long, and was not read to its end: the connection cannot be used for another request."""


def declared_length(value: bytes) -> int:
    """Length that a head says its body has; 0 when it does not say. Servers have checked that it is a number."""
    digits = value.strip().lstrip(b"0")
    return int(digits) if digits.isdigit() else 0


async def body_pieces(receive: Receive) -> AsyncIterator[bytes]:
    """Read a body as it comes.

    Raises
    ------
    ConnectionLost
        The client went away before the end.
    """
    more = True
    while more:
        piece, more = _piece(await receive())
        yield piece


async def read_body(receive: Receive, length: int, limits: Limits) -> bytes | bytearray:
    """Read a whole body.

    Parameters
    ----------
    length : int
        What the head of the request says, 0 when it does not.

    Raises
    ------
    BodyTooLong
        It is, or says that it is, longer than ``limits.request_body``.
    ConnectionLost
    """
    body: bytes | bytearray = bytearray()
    more = length <= limits.request_body
    while more:
        piece, more = _piece(await receive())
        if not more and not body:
            body = piece  # most requests come in one piece: no copy
        else:
            body += piece
        more = more and len(body) <= limits.request_body
    if max(length, len(body)) > limits.request_body:
        raise BodyTooLong(f"the body of a request may have {limits.request_body} bytes")
    return body


def _piece(message: Message) -> tuple[bytes, bool]:
    """The piece of a body in a message, and whether more follow."""
    if message["type"] == "http.disconnect":
        raise ConnectionLost("the client went away before its request was complete")
    return message.get("body", b""), message.get("more_body", False)


_EMPTIED = "ndstream.emptied"
"""What a server may put in the scope: an async function that returns when the kernel has all that was sent."""


class Outgoing:
    """Sends buffers in order, small ones together; long ones are never copied.

    Parameters
    ----------
    scope
        Of the request.
    send
    sized : bool
        Whether the head said how long the body is. If not, the server would join what it is given with its framing.

    Attributes
    ----------
    borrows : bool
        Whether `put` takes what is `Lent`.
    """

    def __init__(self, scope: Scope, send: Send, *, sized: bool) -> None:
        self._send = send
        self._small = bytearray()
        self._emptied: Callable[[], Awaitable[None]] | None = scope.get(_EMPTIED) if sized else None
        self.borrows = self._emptied is not None

    async def put(self, piece: Buffer | Lent) -> None:
        """Send a buffer, or keep it for the next time; what is lent is sent when this returns."""
        if isinstance(piece, Lent):
            assert self._emptied is not None
            await self.flush()
            await self._send({"type": "http.response.body", "body": piece.for_kernel, "more_body": True})
            await self._emptied()
            return
        if len(self._small) + len(piece) <= _JOINED:
            self._small += piece
            return
        await self.flush()
        if len(piece) <= _JOINED:
            self._small += piece
        else:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def flush(self) -> None:
        """Send what was kept."""
        if self._small:
            await self._send({"type": "http.response.body", "body": bytes(self._small), "more_body": True})
            self._small.clear()

    async def finish(self) -> None:
        """Send what was kept, and that this is the end."""
        await self._send({"type": "http.response.body", "body": bytes(self._small)})
