"""What a client asks of an hdfstream server, as flows.

Every method makes one request and reads its answer; see `ndstream.wire.flow`. Source: specification sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import from_numpy
from ndstream.core.limits import DEFAULT_LIMITS, KiB, Limits, MiB
from ndstream.core.model import Node
from ndstream.errors import NDStreamError, ProtocolError, TooLarge, UnsupportedDType
from ndstream.protocols.hdfstream.conversion import same_but_order, same_bytes
from ndstream.protocols.hdfstream.decode import (
    Document,
    decode_array,
    decode_document,
    decode_elements,
    decode_node,
)
from ndstream.protocols.hdfstream.descriptor import Descriptor
from ndstream.protocols.hdfstream.spelling import element_dtype
from ndstream.wire.flow import Flow, Head, Request, peek, read_some, send
from ndstream.wire.ndmsgpack import MARK, Prefix, read_array
from ndstream.wire.status import ERROR_HEADER, error_class

MSGPACK = "application/x-msgpack"
OURS = {"ndstream": "1"}
"""Tells a server of ours that the extra keys are welcome; any other server ignores it."""

_DOCUMENT = OURS | {"Content-Type": MSGPACK, "Accept-Encoding": "gzip, deflate"}
_SLICE = OURS | {"Content-Type": MSGPACK, "Accept-Encoding": "identity"}
_LONGEST_ERROR = 64 * KiB
_PIECE = 1 * MiB
_SMALL = 64 * KiB  # an answer that is copied once more rather than read in parts
_TEXTS = {
    401: "the user name or the password is wrong",
    429: "too many requests",
}


class _SmallArray(msgspec.Struct, frozen=True):
    """An array that is in memory as a whole; its bins are views."""

    nd: bool
    type: Any
    kind: str
    shape: tuple[int, ...]
    nbytes: int
    data: list[memoryview]


_decode_small = msgspec.msgpack.Decoder(_SmallArray).decode


@dataclass(frozen=True, slots=True)
class HDFStreamFlows:
    """The requests of the protocol.

    Parameters
    ----------
    server : str
        Name of the server in messages.
    limits : Limits
        How long a document may be.

    Notes
    -----
    All flows raise the error that the server names, or its status stands for (`ndstream.wire.status`), with a message
    that says server, path and cause; `ProtocolError` when the answer is not what the protocol allows; and `TooLarge`
    when a document is longer than ``limits.document``.
    """

    server: str
    limits: Limits = DEFAULT_LIMITS

    def root(self) -> Flow[Document]:
        """Describe the root, by GET: what a new connection begins with, to see whether it is let in."""
        yield from self._asked("", None, Request(method="GET", path="/msgpack/", headers=_DOCUMENT))
        body = yield from self._body("")
        with self._reading("", None):
            return decode_document(body)

    def document(self, path: str) -> Flow[Document]:
        """Describe the directory or the file at a virtual path."""
        yield from self._asked(path, None, self._post(path, b"\x80", _DOCUMENT))
        body = yield from self._body(path)
        with self._reading(path, None):
            return decode_document(body)

    def describe(self, path: str, name: str, *, max_depth: int, data_size_limit: int) -> Flow[Node]:
        """Describe an object of a file, with its members down to `max_depth` and data of at most `data_size_limit`."""
        body = msgspec.msgpack.encode({"object": name, "max_depth": max_depth, "data_size_limit": data_size_limit})
        yield from self._asked(path, name, self._post(path, body, _DOCUMENT))
        document = yield from self._body(path)
        with self._reading(path, name):
            return decode_node(decode_document(document))

    def slice(self, path: str, name: str, descriptor: Any) -> Flow[NDArray[Any]]:
        """Read a slice (specification section 4.2) into a new array, of the type it has on the wire.

        Raises
        ------
        InvalidSelection
            The descriptor is malformed; nothing is sent.
        """
        wanted = Descriptor.parse(descriptor)
        yield from self._asked(path, name, self._slice(path, name, wanted))
        if (yield from peek(len(MARK))) != MARK:
            body = yield from self._body(path)
            with self._reading(path, name):
                return _variable(body, wanted.shape, np.dtype("O"))
        made: list[NDArray[Any]] = []

        def destination(prefix: Prefix) -> memoryview:
            dtype = _wire_dtype(prefix, wanted.shape)
            made.append(np.empty(prefix.shape, dtype))
            return _bytes_of(made[0])

        with self._reading(path, name):
            yield from read_array(destination)
            yield from _end()
        return made[0]

    def slice_into(self, path: str, name: str, descriptor: Any, destination: NDArray[Any]) -> Flow[None]:
        """Read a slice into an array of the caller's, straight if its elements are as on the wire, else by value.

        Parameters
        ----------
        destination : ndarray, C-contiguous
            Of the shape of the slice; axes that belong to an element type come last. When its elements are neither
            as on the wire nor in reverse byte order, as much memory again is used for a while.

        Raises
        ------
        InvalidSelection
            The descriptor is malformed; nothing is sent.
        ProtocolError
            The answer has another shape.
        """
        head = yield from self._asked(path, name, self._slice(path, name, Descriptor.parse(descriptor)))
        if _is_small(head) or (yield from peek(len(MARK))) != MARK:
            # One read, in place of one for each part of the description.
            body = yield from self._body(path)
            with self._reading(path, name):
                _take(body, destination)
            return
        received = destination

        def choose(prefix: Prefix) -> memoryview:
            nonlocal received
            wire = _wire_dtype(prefix, destination.shape).base
            if not (same_bytes(wire, destination.dtype) or same_but_order(wire, destination.dtype)):
                received = np.empty(destination.shape, wire)
            return _bytes_of(received)

        with self._reading(path, name):
            prefix = yield from read_array(choose)
            yield from _end()
        if received is not destination:
            np.copyto(destination, received, casting="unsafe")
        elif same_but_order(element_dtype(prefix.type).base, destination.dtype):
            destination.byteswap(inplace=True)

    def download(self, path: str, start: int = 0, etag: str = "") -> Flow[None]:
        """Ask for the bytes of a file, or for a tar of a directory.

        Parameters
        ----------
        start : int
            First byte wanted. A server that cannot begin there, or whose file is no longer what `etag` names, sends
            all, with status 200 in place of 206.

        Notes
        -----
        The body is left to who drives the flow.
        """
        headers = OURS | {"Accept-Encoding": "identity"}
        if start and etag:
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        url = f"/download/{quote(path.strip('/'))}"
        head = yield from send(Request(method="GET", path=url, headers=headers))
        yield from self._check(head, path, None)

    def _check(self, head: Head, path: str, name: str | None) -> Flow[None]:
        """Raise the error that an answer stands for, with the text of the server, unless it is a success."""
        if 200 <= head.status < 300:
            return
        body = yield from read_some(_LONGEST_ERROR)
        raise self._error(head, body, path, name)

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> Request:
        return Request(method="POST", path=f"/msgpack/{quote(path.strip('/'))}", headers=headers, body=body)

    def _slice(self, path: str, name: str, descriptor: Descriptor) -> Request:
        encode = msgspec.msgpack.encode
        body = b"".join((b"\x82", encode("object"), encode(name), encode("slice"), descriptor.encode()))
        return self._post(path, body, _SLICE)

    def _asked(self, path: str, name: str | None, request: Request) -> Flow[Head]:
        head = yield from send(request)
        yield from self._check(head, path, name)
        if head.headers.get("content-type", "").partition(";")[0].strip() != MSGPACK:
            kind = head.headers.get("content-type", "without a type")
            raise ProtocolError(
                f"{self._where(path, name)}: the answer is {kind}, not {MSGPACK}: "
                "this is no hdfstream server, or its address lacks a part"
            )
        return head

    def _body(self, path: str) -> Flow[bytes]:
        """Read the whole of a document."""
        pieces = []
        length = 0
        while piece := (yield from read_some(_PIECE)):
            length += len(piece)
            if length > self.limits.document:
                most = self.limits.document
                raise TooLarge(f"{self._where(path, None)}: a description of more than {most} bytes (limit: document)")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def _reading(self, path: str, name: str | None) -> Iterator[None]:
        """Say of what is wrong with an answer which answer it is."""
        try:
            yield
        except (ProtocolError, UnsupportedDType) as error:
            raise type(error)(f"{self._where(path, name)}: {error}") from error

    def _error(self, head: Head, body: bytes, path: str, name: str | None) -> NDStreamError:
        text = _TEXTS.get(head.status) or _error_text(head, body)
        if 300 <= head.status < 400:
            text = f"the server points to {head.headers.get('location', 'elsewhere')}: use that address"
        kind = error_class(head.status, head.headers.get(ERROR_HEADER))
        return kind(f"{self._where(path, name)}: {text or 'no reason given'} (HTTP {head.status})")

    def _where(self, path: str, name: str | None) -> str:
        inside = "" if name is None else f"::{name}"
        return f"{self.server}: /{path.strip('/')}{inside}"


def _end() -> Flow[None]:
    """Nothing may follow; reading so far also proves that the answer ended as it should."""
    if (yield from read_some(1)):
        raise ProtocolError("something follows the array")


def _wire_dtype(prefix: Prefix | _SmallArray, shape: tuple[int, ...]) -> np.dtype[Any]:
    """Type of the elements that are coming, once it is sure that they are those that were asked for."""
    dtype = element_dtype(prefix.type)
    if dtype.hasobject:
        raise ProtocolError("elements of variable length came as if they were fixed")
    if shape not in (prefix.shape, prefix.shape + dtype.shape):
        raise ProtocolError(f"an array of shape {prefix.shape} came, not of {shape}")
    if prefix.nbytes != dtype.itemsize * prod(prefix.shape):
        raise ProtocolError(f"{prefix.nbytes} bytes do not make shape {prefix.shape} of {dtype}")
    return dtype


def _take(body: bytes, destination: NDArray[Any]) -> None:
    """Put the answer to a slice, complete in memory, into the destination."""
    if not body.startswith(MARK):
        destination[...] = _variable(body, destination.shape, destination.dtype)
        return
    try:
        small = _decode_small(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the array cannot be decoded: {error}") from None
    wire = _wire_dtype(small, destination.shape).base
    data = small.data[0] if len(small.data) == 1 else b"".join(small.data)
    if len(data) != small.nbytes:
        raise ProtocolError(f"{len(data)} bytes came of an array of {small.nbytes}")
    if same_bytes(wire, destination.dtype):
        destination.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    else:
        np.copyto(destination, np.frombuffer(data, wire).reshape(destination.shape), casting="unsafe")


def _variable(body: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Array from a document whose elements are not fixed, or that a server spelled in another way."""
    document = decode_document(body)
    if document.get("nd") is True:
        array = decode_array(document)
    else:
        told = dtype.metadata is not None or dtype.names is not None
        array = decode_elements(document).array(from_numpy(dtype) if told else None)
    if array.shape != shape:
        raise ProtocolError(f"an array of shape {array.shape} came, not of {shape}")
    return array


def _is_small(head: Head) -> bool:
    length = head.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= _SMALL


def _error_text(head: Head, body: bytes) -> str:
    """The reason in an error document; pages made for people are not repeated."""
    if head.headers.get("content-type", "").partition(";")[0].strip() != MSGPACK:
        return ""
    try:
        return str(decode_document(body).get("error", ""))
    except ProtocolError:
        return ""


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Memory of a C-contiguous array, as single bytes."""
    return array.reshape(-1).view(np.uint8).data
