"""The hdfstream endpoints over HTTP, on bare ASGI: a small slice is answered in two messages and little else.

Source: SPEC.md, "Endpoints". ``/msgpack`` is here, ``/download`` in `ndstream.protocols.hdfstream.download`.
"""

from __future__ import annotations

import asyncio

from ndstream.core.ports import ANYBODY, Access, Receive, Scope, Send, Service
from ndstream.errors import ConnectionLost, InvalidRequest, NDStreamError, NotFound, UnsupportedMediaType
from ndstream.protocols.hdfstream import codec
from ndstream.protocols.hdfstream.download import Downloads
from ndstream.protocols.hdfstream.messages import ANNOUNCEMENT, MEDIA_TYPE, Request
from ndstream.protocols.hdfstream.service import Answer, HDFStream
from ndstream.wire.asgi import BodyTooLong, Outgoing, declared_length, read_body
from ndstream.wire.paths import virtual_path
from ndstream.wire.status import ERROR_HEADER, status_of

_CONTENT_TYPE = (b"content-type", MEDIA_TYPE.encode())
_ANNOUNCEMENT = ANNOUNCEMENT.encode()
_ALLOWED = (b"allow", b"GET, HEAD, POST")
_CLOSE = (b"connection", b"close")
_LONG_REQUEST = 1 << 16  # bytes; longer requests are decoded in a thread

# What is wrong with a file or a dataset is the same as if it were not there: stock clients know no more.
_STATUS = dict.fromkeys(("bounds", "dtype", "data", "corrupt", "replaced", "quarantined", "filter"), 404) | {
    "too-large": 400
}


def status_for(error: NDStreamError) -> int:
    """HTTP status of an error on ``/msgpack``."""
    return _STATUS.get(error.code) or status_of(error.code)


class Endpoints:
    """ASGI application of the protocol."""

    def __init__(self, service: Service) -> None:
        self._limits = service.limits
        self._hdfstream = HDFStream(service)
        self._downloads = Downloads(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"][len(scope.get("root_path", "")) :]
        if path.startswith("/msgpack") and path[8:9] in ("", "/"):
            await self._msgpack(path[8:], scope, receive, send)
        elif path.startswith("/download") and path[9:10] in ("", "/"):
            await self._downloads.serve(path[9:], scope, receive, send)
        else:
            await _refuse(send, NotFound(f"no endpoint {path}; there are /msgpack and /download"))

    async def _msgpack(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            await _refuse(send, InvalidRequest(f"method {method} is not allowed here"), 405, _ALLOWED)
            return
        access: Access = scope.get("ndstream.access", ANYBODY)
        try:
            vpath = virtual_path(path, self._limits)
            extended, request = await self._request(scope, receive)
            answer = await self._hdfstream.answer(vpath, request, access, extended=extended)
        except BodyTooLong as error:
            await _refuse(send, error, 413, _CLOSE)
            return
        except NDStreamError as error:
            if isinstance(error, ConnectionLost):
                raise
            await _refuse(send, error)
            return
        try:
            await _send(answer, scope, send)
        finally:
            await answer.aclose()

    async def _request(self, scope: Scope, receive: Receive) -> tuple[bool, Request]:
        """Read what is asked, and whether the client understands our extension."""
        content_type, length, extended = b"", 0, False
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                length = declared_length(value)
            elif name == _ANNOUNCEMENT:
                extended = value == b"1"
        if scope["method"] != "POST":
            query: bytes = scope["query_string"]
            if len(query) > _LONG_REQUEST:
                return extended, await asyncio.to_thread(codec.parse_query, query, self._limits)
            return extended, codec.parse_query(query, self._limits)
        if content_type != _CONTENT_TYPE[1]:
            raise UnsupportedMediaType(f"the body of a request must be {MEDIA_TYPE}")
        body = await read_body(receive, length, self._limits)
        if len(body) > _LONG_REQUEST:
            return extended, await asyncio.to_thread(codec.parse_body, body, self._limits)
        return extended, codec.parse_body(body, self._limits)


async def _refuse(send: Send, error: NDStreamError, status: int | None = None, *headers: tuple[bytes, bytes]) -> None:
    """Answer that it failed, and why."""
    body = codec.encode_error(error)
    head = [
        _CONTENT_TYPE,
        (b"content-length", b"%d" % len(body)),
        (ERROR_HEADER.encode(), error.code.encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status or status_for(error), "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer; a failure on the way is raised, for the server to cut the connection."""
    whole = answer.parts[0] if len(answer.parts) == 1 else None
    length = len(whole) if isinstance(whole, bytes) else answer.length
    headers = [_CONTENT_TYPE] if length is None else [_CONTENT_TYPE, (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return
    if isinstance(whole, bytes | memoryview):
        await send({"type": "http.response.body", "body": whole})
        return
    out = Outgoing(scope, send, sized=length is not None)
    for part in answer.parts:
        if isinstance(part, bytes | memoryview):
            await out.put(part)
        else:
            async for piece in part.pieces(borrows=out.borrows):
                await out.put(piece)
    await out.finish()
