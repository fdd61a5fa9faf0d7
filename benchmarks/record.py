"""Recording: large frames that came compressed, held against writing the same bytes to a plain file, made durable."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import ndstream
from benchmarks.served import Site
from benchmarks.table import Row, ratio_at_least
from ndstream.core.packets import Decoding
from ndstream.recording.recorder import Recorder
from ndstream.recording.sessions import record as record_stream
from ndstream.recording.targets import Folder
from ndstream.streams.aio import aconnect
from ndstream.wire.compression import pack
from ndstream.wire.multipart import Codecs

FRAMES = 24
READY = 8  # frames that are recorded before, as a recording lasts longer than its beginning
SIZE = 8 << 20  # bytes of a frame as it comes, about
ROUNDS = 5
BUDGET = ratio_at_least(0.8)


def record(site: Site) -> Iterator[Row]:
    """Record 8 MB frames: those that are there, and those that come through a socket; small ones, by count."""
    folder = site.directory / "record"
    folder.mkdir()
    messages = frames(FRAMES + READY)
    nbytes = sum(len(message[2]) for message in messages[READY:])
    speeds: dict[str, list[float]] = {"ours": [], "socket": [], "limit": []}
    for turn in range(ROUNDS + 1):
        for name in ("run.h5", "socket.h5"):
            (folder / name).unlink(missing_ok=True)
        taken = {
            "limit": plain(folder / "plain", messages[READY:]),
            "ours": asyncio.run(recorded(folder / "run.h5", messages)),
            "socket": asyncio.run(received(folder / "socket.h5", messages[READY:])),
        }
        for name, seconds in taken.items():
            speeds[name] += [nbytes / seconds / 1e9] if turn else []  # the first warms up
    ours, socket, limit = (float(np.median(speeds[name])) for name in ("ours", "socket", "limit"))
    yield Row("record 8 MB frames as they came", ours, "GB/s", limit, BUDGET)
    yield Row("record 8 MB frames, through a socket", socket, "GB/s", limit)


def frames(count: int) -> list[list[bytes]]:
    """Messages of an Eiger, each with about as many bytes as wanted: noise does not get shorter."""
    noise = np.random.default_rng(1).integers(0, 1 << 16, SIZE // 2, "u2").reshape(1 << 11, -1)
    codecs = Codecs()
    messages = []
    for number in range(count):
        image = pack(np.roll(noise, number, axis=1), "bslz4")
        data = {
            "header": {"htype": "dimage-1.0", "series": 1, "frame": number, "hash": ""},
            "part_2": {"htype": "dimage_d-1.0"},
            "part_3_raw": image,
            "part_4": {"htype": "dconfig-1.0", "start_time": number, "stop_time": number, "real_time": 1},
        }
        messages.append([bytes(part) for part in codecs.encode(data)])
    return messages


def make_memory_ready(folder: Path, messages: list[list[bytes]]) -> None:
    """Write and remove as much: whoever writes right after finds so much memory at hand.

    To get back memory that this machine has given to its host takes longer than to write to the disk.
    """
    scratch = folder / "scratch"
    with scratch.open("wb", buffering=0) as file:
        for message in messages:
            file.write(message[2])
    scratch.unlink()


def plain(path: Path, messages: list[list[bytes]]) -> float:
    """Write frames to a file that is made anew; returns seconds."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        make_memory_ready(path.parent, messages)
        begun = time.perf_counter()
        for message in messages:
            os.write(descriptor, message[2])
        os.fsync(descriptor)
        return time.perf_counter() - begun
    finally:
        os.close(descriptor)


async def recorded(path: Path, messages: list[list[bytes]]) -> float:
    """Decode and record messages that are there; returns seconds, without those in which processes start."""
    target = Folder(path.parent)
    codecs = Codecs(Decoding(compressed=True))
    recorder = Recorder(target, path.name)
    try:
        for message in messages[:READY]:
            recorder.add(codecs.decode(message))
        await recorder.commit()
        make_memory_ready(path.parent, messages[READY:])
        begun = time.perf_counter()
        for message in messages[READY:]:
            recorder.add(codecs.decode(message))
            await recorder.turn()
        await recorder.commit()
        return time.perf_counter() - begun
    finally:
        await target.aclose()


async def received(path: Path, messages: list[list[bytes]]) -> float:
    """The same, of messages that come through a socket from a thread of this process."""
    target = Folder(path.parent)
    recorder = Recorder(target, path.name)
    options = {"receive_timeout": 1000, "compressed": True, "copy": False}
    try:
        recorder.add_parts([b"begin"])
        await recorder.commit()
        async with aconnect("tcp://127.0.0.1:*", "bind", **options) as stream:  # type: ignore[arg-type]
            sender = threading.Thread(target=send, args=(stream.address, messages))
            begun = time.perf_counter()
            sender.start()
            await record_stream(stream, recorder, asyncio.Event(), len(messages) + 1)
            taken = time.perf_counter() - begun
            sender.join()
        return taken
    finally:
        await target.aclose()


def send(address: str, messages: list[list[bytes]]) -> None:
    """Send messages."""
    with ndstream.connect(address, mode=ndstream.PUSH, copy=False, linger=-1) as stream:
        for message in messages:
            stream.send_parts(message)
