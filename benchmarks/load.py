"""A generator of small requests that is no bottleneck itself: prebuilt bytes out, answers counted, nothing decoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import uvloop
from numpy.typing import NDArray


def answer_length(head: bytes) -> int:
    """Bytes of an answer with its head; 0 as long as the head is not complete.

    Raises
    ------
    ValueError
        It is no success, or does not say how long it is.
    """
    end = head.find(b"\r\n\r\n")
    if end < 0:
        return 0
    lines = head[:end].lower().split(b"\r\n")
    if not lines[0].startswith(b"http/1.1 200"):
        raise ValueError(f"the server answers {head[:400]!r}")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    return end + 4 + length


def frame_length(head: bytes) -> int:
    """Bytes of a frame with its head; 0 as long as the head is not complete."""
    return 4 + int.from_bytes(head[:4], "big") if len(head) >= 4 else 0


@dataclass
class Load:
    """Requests over kept-alive connections, each sent when the answer to the one before is complete.

    The answers of a connection are all as long as the first one.
    """

    port: int
    requests: Sequence[bytes]
    connections: int
    each: int
    length_of: Callable[[bytes], int] = answer_length

    def prepare(self) -> None:
        """Do it once."""
        self.run()

    def run(self) -> NDArray[np.float64]:
        """Send ``connections * each`` requests; seconds that each answer took."""
        return uvloop.run(self._run())

    def _client(self) -> _Client:
        return _Client(self.requests, self.each, self.length_of)

    async def _run(self) -> NDArray[np.float64]:
        loop = asyncio.get_running_loop()
        clients = []
        for _ in range(self.connections):
            _, client = await loop.create_connection(self._client, "127.0.0.1", self.port)
            clients.append(client)
        for client in clients:
            client.ask()
        taken = [await client.done for client in clients]
        for client in clients:
            client.close()
        return np.concatenate(taken)


class _Client(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], each: int, length_of: Callable[[bytes], int]) -> None:
        self.done: asyncio.Future[NDArray[np.float64]] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._left = each
        self._length_of = length_of
        self._taken: list[float] = []
        self._received = 0
        self._length = 0
        self._head = b""
        self._begin = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server ended the connection"))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def ask(self) -> None:
        assert self._transport is not None
        self._begin = time.perf_counter()
        self._transport.write(self._requests[self._left % len(self._requests)])

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if not self._length:
            self._head += data
            self._length = self._length_of(self._head)
        if not self._length or self._received < self._length:
            return
        self._taken.append(time.perf_counter() - self._begin)
        self._received = 0
        self._left -= 1
        if self._left:
            self.ask()
        else:
            self.done.set_result(np.array(self._taken))
