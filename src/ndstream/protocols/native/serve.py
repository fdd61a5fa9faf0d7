"""The native endpoints over HTTP, on bare ASGI: a small selection is answered in two messages and little else.

Source: SPEC.md, "Endpoints".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

from ndstream.core.operations import Event
from ndstream.core.ports import ANYBODY, Access, Receive, Scope, Send, Service
from ndstream.errors import (
    ConnectionLost,
    Forbidden,
    InvalidRequest,
    NDStreamError,
    NotFound,
    ProtocolError,
    UnsupportedMediaType,
)
from ndstream.protocols.native import codec
from ndstream.protocols.native.events import Messages, ServerSent, follow
from ndstream.protocols.native.messages import (
    BLOCKS,
    CHUNKS,
    JSON,
    KEY_HEADER,
    LARGEST,
    MSGPACK,
    NPY,
    PROBLEM,
    RAW,
    Batch,
    Read,
    Reads,
)
from ndstream.protocols.native.service import PAGE, Answer, Native
from ndstream.protocols.native.spool import spooled
from ndstream.stores.spools import SpoolFiles
from ndstream.wire.asgi import BodyTooLong, Outgoing, body_pieces, declared_length, read_body
from ndstream.wire.ndblock import HEAD, header_length
from ndstream.wire.paths import virtual_path
from ndstream.wire.status import ERROR_HEADER, status_of

_FORMS = {
    "ndstream": BLOCKS,
    "chunks": CHUNKS,
    "npy": NPY,
    "raw": RAW,
    "msgpack": MSGPACK,
    "json": JSON,
}
_DATA_TYPES = (BLOCKS, CHUNKS, NPY, RAW, MSGPACK, JSON)
_ALIASES = {"application/msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK, "application/numpy": NPY}
_METHODS = {
    "": "GET, HEAD, OPTIONS",
    "tree": "GET, HEAD, OPTIONS",
    "node": "GET, HEAD, OPTIONS",
    "data": "GET, HEAD, POST, OPTIONS",
    "write": "POST, OPTIONS",
    "events": "GET, OPTIONS",
    "openapi.json": "GET, HEAD, OPTIONS",
}
_TAG = re.compile(r"[\w-]{1,200}\.\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}")  # up to `LARGEST`
_LONG_REQUEST = 1 << 16  # bytes; longer requests are decoded in a thread
_RETRY_AFTER = {"busy": b"1", "in-use": b"1", "worker": b"1"}
_RELEASE = "ndstream.release"
"""What a server may put in the scope: a function that gives the turn of this request to the next one."""
_STOPPING = "ndstream.stopping"
"""The same: an `asyncio.Event` that is set when the server stops, which what has no end of its own must not delay."""


class Asked:
    """A request, taken apart."""

    __slots__ = ("access", "headers", "method", "path", "query", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, path: str) -> None:
        self.scope = scope
        self.receive = receive
        self.path = path
        self.method: str = scope["method"]
        self.access: Access = scope.get("ndstream.access", ANYBODY)
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        query: bytes = scope["query_string"]
        self.query: Mapping[str, str] = _query(query) if query else {}

    def header(self, name: bytes) -> str:
        """Value of a header; "" when it is not there."""
        value = self.headers.get(name)
        return value.decode("latin-1").strip() if value is not None else ""

    def number(self, name: str, default: int) -> int:
        """Value of a parameter that counts something."""
        text = self.query.get(name)
        if text is None:
            return default
        return _number(text, name)

    @property
    def length(self) -> int:
        """Bytes that the head says the body has; 0 when it does not say."""
        return declared_length(self.headers.get(b"content-length", b""))

    @property
    def wants_json(self) -> bool:
        """Whether documents are to be JSON: unless msgpack is asked for."""
        return self.accepted((JSON, MSGPACK)) == JSON

    def accepted(self, offered: tuple[str, ...]) -> str:
        """Choose a media type: that of the parameter ``format``, else the best of what ``Accept`` says."""
        form = self.query.get("format")
        if form is not None:
            if _FORMS.get(form) not in offered:
                raise InvalidRequest(f"no format {form!r} here")
            return _FORMS[form]
        return _best(self.header(b"accept"), offered)

    @property
    def content_type(self) -> str:
        """Media type of the body."""
        named = self.header(b"content-type").partition(";")[0].strip().lower()
        return _ALIASES.get(named, named)


class Endpoints:
    """ASGI application of the protocol."""

    def __init__(self, service: Service, document: Callable[[], bytes]) -> None:
        self._limits = service.limits
        self._native = Native(service)
        self._document = document
        self._spools = SpoolFiles()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"][len(scope.get("root_path", "")) :]
        endpoint, _, rest = path.removeprefix("/").partition("/")
        method = scope["method"]
        answer: Answer | AsyncIterator[Event]
        try:
            asked = Asked(scope, receive, virtual_path(rest, self._limits))
            if endpoint not in _METHODS:
                raise NotFound(f"no endpoint {path}; there are {', '.join(sorted(_METHODS))[2:]}")
            if method == "OPTIONS":
                await _empty(send, 204, (b"allow", _METHODS[endpoint].encode()))
                return
            if method not in _METHODS[endpoint].split(", "):
                allowed = (b"allow", _METHODS[endpoint].encode())
                await _refuse(send, InvalidRequest(f"method {method} is not allowed here"), 405, allowed)
                return
            if endpoint == "openapi.json":
                answer = Answer(JSON, (self._document(),))
            elif endpoint == "events":
                answer = await _events(self._native, asked)
            else:
                answer = await self._answer(endpoint, asked)
        except BodyTooLong as error:
            await _refuse(send, error, 413, (b"connection", b"close"))
            return
        except ConnectionLost:
            raise
        except NDStreamError as error:
            await _refuse(send, error)
            return
        if not isinstance(answer, Answer):
            await follow(answer, ServerSent(receive, send), asked.scope.get(_STOPPING))
            return
        try:
            await _send(answer, asked, send)
        finally:
            await answer.aclose()

    async def _answer(self, endpoint: str, asked: Asked) -> Answer:
        native = self._native
        match endpoint:
            case "tree":
                depth = min(asked.number("depth", 0), 256)
                return await native.tree(asked.path, asked.access, depth=depth, json=asked.wants_json)
            case "node":
                return await native.node(
                    asked.path,
                    _name(asked),
                    asked.access,
                    depth=asked.number("depth", 0),
                    data=asked.number("data", 0),
                    after=asked.query.get("after"),
                    page=max(1, min(asked.number("limit", PAGE), PAGE)),
                    json=asked.wants_json,
                )
            case "data":
                reads = await self._reads(asked)
                match_tag = _tag(asked.header(b"if-match"))
                return await native.data(asked.path, reads, asked.access, asked.accepted(_DATA_TYPES), match=match_tag)
            case "write":
                return await self._write(asked)
            case _:
                return native.capabilities(asked.access, json=asked.wants_json)

    async def _reads(self, asked: Asked) -> tuple[Read, ...]:
        if asked.method != "POST":
            return (Read(name=_name(asked), select=asked.query.get("select") or None),)
        json = _is_json(asked)
        body = await read_body(asked.receive, asked.length, self._limits)
        if len(body) > _LONG_REQUEST:
            return (await asyncio.to_thread(codec.decode_request, body, Reads, json=json)).reads
        return codec.decode_request(body, Reads, json=json).reads

    async def _write(self, asked: Asked) -> Answer:
        self._native.check_writable(asked.path, asked.access)
        if asked.content_type == BLOCKS:
            body = await spooled(body_pieces(asked.receive), asked.length, self._limits.spool, self._spools)
            small = len(body) <= _LONG_REQUEST
            arguments = body, self._limits.document
            batch = _batch(*arguments) if small else await asyncio.to_thread(_batch, *arguments)
        else:
            json = _is_json(asked)
            whole = await read_body(asked.receive, asked.length, self._limits)
            small = len(whole) <= _LONG_REQUEST
            batch = _document(whole, json) if small else await asyncio.to_thread(_document, whole, json)
        if small:
            # What waits for the disk together is committed together: it should not wait for its turn before. It holds
            # little memory, and there are only so many connections.
            _give_turn_back(asked)
        return await self._native.commit(
            asked.path,
            batch,
            asked.access,
            match=_tag(asked.header(b"if-match")),
            key=asked.header(KEY_HEADER.encode()) or None,
            json=asked.wants_json,
        )


class Followers:
    """ASGI application of the protocol for WebSockets: the events of a file."""

    def __init__(self, service: Service) -> None:
        self._limits = service.limits
        self._native = Native(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket; what cannot be followed is refused as over HTTP."""
        path: str = scope["path"][len(scope.get("root_path", "")) :]
        endpoint, _, rest = path.removeprefix("/").partition("/")
        try:
            if endpoint != "events":
                raise NotFound(f"no WebSocket {path}; there is events")
            asked = Asked(scope, receive, virtual_path(rest, self._limits))
            _check_origin(asked)
            events = await _events(self._native, asked)
        except NDStreamError as error:
            await _refuse(send, error)
            return
        await follow(events, Messages(receive, send), asked.scope.get(_STOPPING))


async def _events(native: Native, asked: Asked) -> AsyncIterator[Event]:
    """Open the events that a request is about, and give its turn to others.

    Who follows waits most of the time, and should not keep the same user's requests waiting.
    """
    last = asked.header(b"last-event-id") or asked.query.get("since")
    since = None if last is None else last if _TAG.fullmatch(last) else _number(last, "the number of a commit")
    events = await native.events(asked.path, asked.access, since)
    _give_turn_back(asked)
    return events


def _give_turn_back(asked: Asked) -> None:
    release = asked.scope.get(_RELEASE)
    if release is not None:
        release()


def _check_origin(asked: Asked) -> None:
    """Refuse pages of other sites: browsers send passwords with their sockets, and ask nobody whether they may."""
    origin = asked.header(b"origin")
    if origin and origin.partition("://")[2].lower() != asked.header(b"host").lower():
        raise Forbidden(f"a page of {origin} cannot follow what is here")


def _document(body: bytes | bytearray, json: bool) -> Batch:
    """Take a batch out of a body that is a document."""
    batch = codec.decode_request(body, Batch, json=json)
    return Batch(operations=codec.attach(batch.operations, memoryview(b""), json=json), create=batch.create)


def _batch(body: memoryview, most: int) -> Batch:
    """Take a batch out of a body in block form."""
    try:
        if len(body) < HEAD.size:
            raise InvalidRequest("the body ends before its header")
        end = HEAD.size + header_length(bytes(body[: HEAD.size]), most)
    except ProtocolError as error:
        raise InvalidRequest(f"the body is {error}") from error
    if len(body) < end:
        raise InvalidRequest("the body ends before its header does")
    batch = codec.decode_request(body[HEAD.size : end], Batch, json=False)
    return Batch(operations=codec.attach(batch.operations, body[end:]), create=batch.create)


def _query(query: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32))
    except ValueError as error:
        raise InvalidRequest(f"the query cannot be read: {error}") from error


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"{what} must be a number up to {LARGEST}, not {text[:32]!r}")
    return int(text)


def _name(asked: Asked) -> str:
    return asked.query.get("name") or "/"


def _is_json(asked: Asked) -> bool:
    kind = asked.content_type
    if kind not in (JSON, MSGPACK):
        raise UnsupportedMediaType(f"a body must be {JSON} or {MSGPACK}, not {kind or 'without a type'}")
    return kind == JSON


def _best(accept: str, offered: tuple[str, ...]) -> str:
    """Best of the offered media types for an Accept header; the first for one that takes anything."""
    if not accept or accept == "*/*":
        return offered[0]
    best, best_quality = "", 0.0
    for part in accept.split(","):
        named, *parameters = (item.strip().lower() for item in part.split(";"))
        quality = _quality(parameters)
        family = named.partition("/")[0] + "/"
        named = _ALIASES.get(named, named)
        fits = [
            kind for kind in offered if named in (kind, "*/*") or (named == family + "*" and kind.startswith(family))
        ]
        if fits and quality > best_quality:
            best, best_quality = fits[0], quality
    if not best:
        raise UnsupportedMediaType(f"none of the accepted media types can be given; there are {', '.join(offered)}")
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _tag(header: str) -> str | None:
    """Entity tag, without quotes, of If-Match."""
    return header.removeprefix("W/").strip('"') if header else None


def _has_it(asked: Asked, tag: str) -> bool:
    """Whether If-None-Match names the answer."""
    header = asked.header(b"if-none-match")
    if not header or not tag:
        return False
    return header == "*" or any(each.strip().removeprefix("W/").strip('"') == tag for each in header.split(","))


async def _refuse(send: Send, error: NDStreamError, status: int | None = None, *headers: tuple[bytes, bytes]) -> None:
    """Answer that it failed, and why."""
    if isinstance(error, UnsupportedMediaType) and str(error).startswith("none of the accepted"):
        status = 406
    status = status or status_of(error.code)
    body = codec.encode_problem(error, status)
    head = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", b"%d" % len(body)),
        (ERROR_HEADER.encode(), error.code.encode()),
        *headers,
    ]
    if error.code in _RETRY_AFTER:
        head.append((b"retry-after", _RETRY_AFTER[error.code]))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _empty(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})


async def _send(answer: Answer, asked: Asked, send: Send) -> None:
    """Send an answer; a failure on the way is raised, for the server to cut the connection."""
    tag = [(b"etag", b'"%b"' % answer.tag.encode())] if answer.tag else []
    if asked.method in ("GET", "HEAD") and _has_it(asked, answer.tag):
        await _empty(send, 304, *tag, *answer.headers)
        return
    length = answer.length
    headers: list[tuple[bytes, bytes]] = [(b"content-type", answer.media_type.encode()), *tag, *answer.headers]
    if asked.query.get("format") is None:
        headers.append((b"vary", b"accept"))
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if asked.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return
    if len(answer.parts) == 1 and isinstance(whole := answer.parts[0], bytes | memoryview):
        await send({"type": "http.response.body", "body": whole})
        return
    out = Outgoing(asked.scope, send, sized=length is not None)
    for part in answer.parts:
        if isinstance(part, bytes | memoryview):
            await out.put(part)
            continue
        async with aclosing(_pieces(part, borrows=out.borrows)) as pieces:
            async for piece in pieces:
                await out.put(piece)
    await out.finish()


async def _pieces(part: Any, *, borrows: bool) -> Any:
    async for piece in part.pieces(borrows=borrows):
        yield piece
