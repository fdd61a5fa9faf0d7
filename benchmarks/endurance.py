"""Message streams at length: a million messages dumped and replayed, and all tools together for some minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from hashlib import blake2b

import h5py
import numpy as np
import zmq

from benchmarks.machine import memory
from benchmarks.served import Site
from benchmarks.table import Row, at_least, at_most
from ndstream.testing.fixtures import local_servers

MESSAGES = 1_000_000
QUEUE = 1000
MINUTES = 3
RATE = 100  # messages a second
DATA, NUMBERS = "entry_0001/data/data", "entry_0001/data/frame_number"
MiB = 1 << 20
MOST_GROWN = 32  # MiB


# -- a million messages --


def million(site: Site) -> Iterator[Row]:
    """Dump messages into a folder, replay them from there, and compare what comes with what was sent."""
    folder = site.directory / "million"
    context = zmq.Context()
    with context, context.socket(zmq.PUSH) as sender, context.socket(zmq.PULL) as receiver:
        sender.sndhwm = receiver.rcvhwm = QUEUE
        sent = sender.bind_to_random_port("tcp://127.0.0.1")
        back = receiver.bind_to_random_port("tcp://127.0.0.1")
        begin = time.perf_counter()
        with _tool("dump", f"tcp://127.0.0.1:{sent}", folder, "--count", MESSAGES, "--queue", QUEUE) as dump:
            expected = _digest(_send(sender))
            _end(dump)
        yield Row("dump of 1,000,000 messages", MESSAGES / (time.perf_counter() - begin), "/s")
        begin = time.perf_counter()
        with _tool("replay", folder, f"tcp://127.0.0.1:{back}", "--connect", "--queue", QUEUE) as replay:
            found = _digest(receiver.recv_multipart() for _ in range(MESSAGES))
            _end(replay)
        yield Row("replay of 1,000,000 messages", MESSAGES / (time.perf_counter() - begin), "/s")
        more = int(receiver.poll(100))
    yield Row("dump and replay: streams that came back otherwise", int(found != expected) + more, "", None, at_most(0))


def _parts(number: int) -> list[bytes]:
    header = b'{"htype": "raw-1.0", "frame": %d}' % number
    return [header, number.to_bytes(8, "big") * (number % 16)] if number % 4 == 0 else [header]


def _send(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    for number in range(MESSAGES):
        parts = _parts(number)
        socket.send_multipart(parts)
        yield parts


def _digest(messages: Iterable[list[bytes]]) -> bytes:
    """One sum over all parts and where they end."""
    made = blake2b()
    for parts in messages:
        for part in parts:
            made.update(len(part).to_bytes(8, "big") + part)
        made.update(b"end")
    return made.digest()


# -- some minutes --


def soak(site: Site) -> Iterator[Row]:
    """Generate, split, record on a server, count and follow for some minutes: nothing is lost, no memory grows."""
    count = MINUTES * 60 * RATE
    whole = count + 2  # the start and the end of the series
    folder = site.directory / "soak"
    folder.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(local_servers())(folder, writable={"/": []})
        kind = "--htype", "dimage-1.0", "--shape", "256,256", "--compression", "bslz4", "--rate", RATE
        generate = stack.enter_context(_tool("generate", "tcp://127.0.0.1:*", *kind, "--count", count, "--wait", 1))
        outputs = ["tcp://127.0.0.1:*,policy=block"] * 2
        split = stack.enter_context(_tool("split", _address(generate), *outputs, "--count", whole))
        first, second = _address(split), _address(split)
        tools = {
            "generate": generate,
            "split": split,
            "record": stack.enter_context(_tool("record", first, f"{server.url}/run.h5", "--count", whole)),
            "stats": stack.enter_context(_tool("stats", second, "--json", "--interval", 10, "--count", whole)),
        }
        follower = Follower(server.url, count)
        grown = _grown({name: tool.pid for name, tool in tools.items()} | {"serve": server.process.pid}, generate)
        said = {name: _end(tool) for name, tool in tools.items()}
        follower.join(60)
    counted = json.loads(said["stats"].splitlines()[-1])["summary"]
    with h5py.File(folder / "run.h5") as file:
        recorded = int(file[DATA].shape[0])
    yield Row("soak: images", recorded, "", None, at_least(count))
    irregular = sum(counted[name] for name in ("gaps", "missing", "repeats", "reversals"))
    yield Row("soak: numbers that were missing, or not in order", irregular, "", None, at_most(0))
    yield Row("soak: messages that were not counted", whole - counted["messages_received"], "", None, at_most(0))
    unseen = follower.missed + count - follower.next
    yield Row("soak: images that the follower did not see", unseen, "", None, at_most(0))
    yield Row("soak: memory that grew, of any process", grown / MiB, "MiB", None, at_most(MOST_GROWN))


class Follower(threading.Thread):
    """Follows the numbers of the images while they are recorded, from some image on.

    Attributes
    ----------
    missed : int
        Images between those that it saw, or that came in another order.
    next : int
        Number of the image that is to come.
    """

    def __init__(self, url: str, count: int) -> None:
        super().__init__(daemon=True)
        self.missed = self.next = 0
        self._url = url
        self._count = count
        self.start()

    def run(self) -> None:
        """Look at the numbers that come."""
        import ndstream
        from ndstream.errors import NDStreamError

        ndstream.disable_progress(True)
        while True:
            try:
                dataset = ndstream.open(self._url, "run.h5")[NUMBERS]
                break
            except (NDStreamError, KeyError):
                time.sleep(0.05)
        with closing(dataset.follow()) as coming:
            while self.next < self._count:
                numbers = next(coming)
                expected = self.next or int(numbers[0])
                self.next = int(numbers[-1]) + 1
                self.missed += int(np.count_nonzero(numbers != np.arange(expected, expected + len(numbers))))


def _grown(processes: dict[str, int], until: subprocess.Popen[str]) -> int:
    """Bytes by which the memory of a process was larger in the last third of the time than in the first, at most."""
    seen: dict[str, list[int]] = {name: [] for name in processes}
    while until.poll() is None:
        for name, pid in processes.items():
            seen[name].append(memory(pid))
        time.sleep(0.5)
    third = min(map(len, seen.values())) // 3
    return max(max(found[-third:]) - max(found[:third]) for found in seen.values())


# -- tools in processes --


@contextmanager
def _tool(*command: object) -> Iterator[subprocess.Popen[str]]:
    arguments = [sys.executable, "-u", "-m", "ndstream", *map(str, command)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """Where a tool sends, as it says."""
    assert process.stdout is not None
    said = "ndstream: sending at "
    line = next(line for line in process.stdout if line.startswith(said))
    return line.removeprefix(said).split()[0]


def _end(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a tool; what it said."""
    said, _ = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {said}")
    return said
