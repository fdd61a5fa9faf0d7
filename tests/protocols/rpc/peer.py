"""A client as the specification describes one, made of a socket and an independent reader of msgpack."""

from __future__ import annotations

import json
import socket
import struct
from types import TracebackType
from typing import Any, Self

import msgpack
import numpy as np
from numpy.typing import NDArray

FEATURES = ["ids", "binary", "selection", "list", "attrs", "create", "resize", "stream", "flush", "batch", "events"]


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def packed(**request: Any) -> bytes:
    made: bytes = msgpack.packb(request, default=as_map)
    return made


def as_map(array: Any) -> Any:
    """Array as msgpack-numpy spells it."""
    kind: Any = array.dtype.descr if array.dtype.names else array.dtype.str
    shape, data = list(array.shape), array.tobytes()
    return {b"nd": True, b"type": kind, b"kind": b"V" if array.dtype.names else b"", b"shape": shape, b"data": data}


def from_map(value: Any) -> Any:
    if not isinstance(value, dict) or b"nd" not in value:
        return value
    return np.frombuffer(value[b"data"], dtype_of(value[b"type"])).reshape(value[b"shape"])


def extended(header: dict[str, Any], *bodies: bytes, flags: int = 0) -> bytes:
    """Payload of an extended frame."""
    packed_header = msgpack.packb(header | ({"bodies": [len(body) for body in bodies]} if bodies else {}))
    made: bytes = b"\xc1\x01" + struct.pack(">HI", flags, len(packed_header)) + packed_header
    for body in bodies:
        made += bytes(-len(made) % 8) + body
    return made


def taken_apart(payload: bytes) -> tuple[dict[str, Any], bool]:
    """Map of an extended frame with arrays in it, and whether more frames follow."""
    assert payload[:2] == b"\xc1\x01"
    flags, length = struct.unpack(">HI", payload[2:8])
    header = msgpack.unpackb(payload[8 : 8 + length])
    at, bodies = 8 + length, []
    for size in header.pop("bodies", []):
        at += -at % 8
        bodies.append(payload[at : at + size])
        at += size
    assert at == len(payload)

    def restored(value: Any) -> Any:
        if isinstance(value, dict) and "$nd" in value:
            if isinstance(value["$nd"], list):
                return np.array(value["$nd"]).reshape(value["shape"])
            return np.frombuffer(bodies[value["$nd"]], value["dtype"]).reshape(value["shape"])
        return {key: restored(item) for key, item in value.items()} if isinstance(value, dict) else value

    return {key: restored(value) for key, value in header.items()}, bool(flags & 1)


def dtype_of(kind: Any) -> np.dtype[Any]:
    if isinstance(kind, list):
        kind = [(name, dtype_of(base), *map(tuple, shape)) for name, base, *shape in kind]
    found: np.dtype[Any] = np.dtype(kind)
    return found


class Peer:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, payload: bytes) -> None:
        self.socket.sendall(frame(payload))

    def receive(self) -> bytes:
        """Next payload; empty when the server has closed."""
        head = self._exactly(4)
        return self._exactly(int.from_bytes(head, "big")) if head else b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return b""
            if not piece:
                return b""
            data += piece
        return data

    def reply(self) -> dict[str, Any]:
        """Next reply, in whatever form it comes."""
        payload = self.receive()
        assert payload, "the server closed the connection"
        if payload[:1] == b"\xc1":
            return taken_apart(payload)[0]
        if payload[:1] == b"{":
            found: dict[str, Any] = json.loads(payload)
            return found
        unpacked = msgpack.unpackb(payload, strict_map_key=False)
        return {key: from_map(value) for key, value in unpacked.items()}

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask in msgpack."""
        self.send(packed(**request))
        return self.reply()

    def ask_json(self, **request: Any) -> dict[str, Any]:
        self.send(json.dumps(request).encode())
        return self.reply()

    def hello(self, **more: Any) -> dict[str, Any]:
        return self.ask(command="hello", **({"protocol": "ndstream-rpc", "version": 1, "features": FEATURES} | more))

    def data(self, path: str, **more: Any) -> NDArray[Any]:
        """Data of a dataset."""
        reply = self.ask(command="read", path=path, **more)
        assert reply["status"] == "success", reply
        return np.asarray(reply["data"])
