"""Live streams: receiving and decoding, against bare pyzmq that does the same JSON and array work in the same run.

Program: ``python -m benchmarks.live ADDRESS BYTES``; sends numbered arrays to whoever takes them, until it is ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Self

import msgspec
import numpy as np
import zmq

from benchmarks.crew import Crew
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Budget, Row, ratio_at_least

KB = 1 << 10
QUEUE = 1000
ROUNDS = 5
#: Bytes of a message to how many are received in a turn, what is asked of us, and of our asyncio twin.
CASES: dict[int, tuple[int, Budget, Budget]] = {
    1 * KB: (15_000, ratio_at_least(0.9), ratio_at_least(0.5)),
    100 * KB: (3_000, ratio_at_least(0.9), ratio_at_least(0.9)),
    8192 * KB: (200, ratio_at_least(0.9), ratio_at_least(0.9)),
}
Kind = Literal["ours", "ours in asyncio", "bare pyzmq", "bare pyzmq, json", "mflow"]


def live(site: Site) -> Iterator[Row]:
    """Receive messages of three sizes; the limit of the twin in asyncio is our synchronous stream."""
    kinds: tuple[Kind, ...] = ("ours", "ours in asyncio", "bare pyzmq", "bare pyzmq, json", "mflow")
    for size, (count, budget, twin) in CASES.items():
        name = f"{size // KB} KB" if size < 8192 * KB else "8 MB"
        rates = _rates(size, count, kinds)
        yield Row(f"live {name}, receive and decode", rates["ours"], "/s", rates["bare pyzmq"], budget)
        yield Row(
            f"live {name}, in asyncio, against our synchronous", rates["ours in asyncio"], "/s", rates["ours"], twin
        )
        yield Row(f"live {name}, ours against pyzmq with json.loads", rates["ours"], "/s", rates["bare pyzmq, json"])
        yield Row(f"live {name}, ours against psi-mflow", rates["ours"], "/s", rates["mflow"])


def _rates(size: int, count: int, kinds: tuple[Kind, ...]) -> dict[str, float]:
    """Messages a second; a receiver at a time, each with a sender of its own."""
    with Crews(kinds, size, count) as crews:
        return medians({kind: crews.turn(kind) for kind in kinds}, ROUNDS)


class Crews:
    """A process for each kind of receiver; only that which has its turn has a sender."""

    def __init__(self, kinds: tuple[Kind, ...], size: int, count: int) -> None:
        self._size, self._count = size, count
        self._crews = {kind: Crew([Receiver(kind, size, count)]) for kind in kinds}

    def turn(self, kind: Kind) -> Any:
        """Turn that returns messages a second."""

        def once() -> float:
            seconds: float = self._crews[kind].results()[0]
            return self._count / seconds

        return once

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for crew in self._crews.values():
            crew.close()


@dataclass
class Receiver:
    """Receives so many messages, and checks them."""

    kind: Kind
    size: int
    count: int

    def prepare(self) -> None:
        """Nothing stays open between turns: a sender without a receiver only waits, one with it would go on."""

    def run(self) -> float:
        """Receive; seconds from the first message to the last."""
        with sender(self.size) as address:
            match self.kind:
                case "ours":
                    return self._ours(address)
                case "ours in asyncio":
                    import uvloop

                    return float(uvloop.run(self._twin(address)))
                case "mflow":
                    return self._mflow(address)
                case _:
                    return self._bare(address, json.loads if self.kind.endswith("json") else msgspec.json.decode)

    @property
    def _copy(self) -> bool:
        """Copying is faster for short messages, for all contenders alike."""
        return self.size < 64 * KB

    def _ours(self, address: str) -> float:
        import ndstream

        with ndstream.connect(address, queue_size=QUEUE, copy=self._copy) as stream:
            receive = stream.receive
            message = receive()
            begin = time.perf_counter()
            for _ in range(self.count):
                message = receive()
            taken = time.perf_counter() - begin
            assert message is not None
            self._check(message.data["header"], message.data["data"][0])
            assert stream.statistics.missing == 0
        return taken

    async def _twin(self, address: str) -> float:
        import ndstream

        async with ndstream.aconnect(address, queue_size=QUEUE, copy=self._copy) as stream:
            message = await stream.receive()
            begin = time.perf_counter()
            for _ in range(self.count):
                message = await stream.receive()
            taken = time.perf_counter() - begin
            assert message is not None
            self._check(message.data["header"], message.data["data"][0])
        return taken

    def _bare(self, address: str, decode: Any) -> float:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            socket.rcvhwm = QUEUE
            socket.linger = 0
            socket.connect(address)
            copy = self._copy
            socket.recv_multipart()
            begin = time.perf_counter()
            for _ in range(self.count):
                parts: Any = socket.recv_multipart(0, copy)
                first, second = parts if copy else (parts[0].bytes, parts[1].buffer)
                header = decode(first)
                array = np.frombuffer(second, header["type"]).reshape(header["shape"])
            taken = time.perf_counter() - begin
            self._check(header, array)
        return taken

    def _mflow(self, address: str) -> float:
        mflow: Any = import_module("mflow")

        stream = mflow.connect(address, queue_size=QUEUE, copy=self._copy)
        stream.receive()
        begin = time.perf_counter()
        for _ in range(self.count):
            message = stream.receive()
        taken = time.perf_counter() - begin
        self._check(message.data["header"], message.data["data"][0])
        stream.disconnect()
        return taken

    def _check(self, header: Any, array: Any) -> None:
        if header["frame"] < self.count or array.nbytes != self.size or array[-1] != 7:
            raise ValueError("another message came")


@contextmanager
def sender(size: int) -> Iterator[str]:
    """Run the sender; gives its address."""
    command = [sys.executable, "-m", "benchmarks.live", str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def send(size: int) -> None:
    """Send for ever, as fast as pyzmq can."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.sndhwm = QUEUE
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    sys.stdout.write(f"tcp://127.0.0.1:{port}\n")
    sys.stdout.flush()
    payload = np.full(size // 2, 7, "<i2").data
    frame = 0
    while True:
        header = b'{"htype":"array-1.0","type":"int16","shape":[%d],"frame":%d}' % (size // 2, frame)
        socket.send(header, zmq.SNDMORE)
        socket.send(payload, 0, copy=size < 64 * KB)
        frame += 1


if __name__ == "__main__":
    send(int(sys.argv[1]))
