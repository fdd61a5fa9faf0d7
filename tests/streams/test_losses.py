"""Both ends in processes of their own, slow, killed or closed in the middle: every message is delivered or counted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.streams.test_stream import frame_of

from ndstream import BIND, PULL, Stream

Open = Callable[..., Stream]
ENDS = Path(__file__).with_name("ends.py")


class End:
    """One end of a stream in a process."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, ENDS, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self.line()

    def line(self) -> Any:
        """What it tells next; waits for it."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def lines(self) -> list[Any]:
        """All that it told until it ended."""
        assert self._process.stdout is not None
        told = [line for line in self._process.stdout if line.endswith("\n")]
        return [json.loads(line) for line in told]

    def kill(self) -> list[Any]:
        """Kill it; what it had told until then."""
        self._process.kill()
        return self.lines()

    def close(self) -> None:
        """Let it end, and wait for that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


@pytest.fixture
def end() -> Iterator[Callable[..., End]]:
    with ExitStack() as stack:

        def start(*arguments: object) -> End:
            started = End(*arguments)
            stack.callback(started.close)
            return started

        yield start


def test_a_bound_sender_that_closes_at_once_loses_nothing(end: Callable[..., End], opened: Open) -> None:
    """Acceptance 17, fault 9: 10,000 messages, a slow receiver, linger without end."""
    sender = end("send", "tcp://127.0.0.1:*", "--bind", "--last", 9_999)
    receiver = opened(sender.address, queue_size=10)
    received = []
    for _ in range(10_000):
        received.append(frame_of(receiver.receive()))
        if len(received) % 100 == 0:
            receiver.link.channel.wait(0)  # slower than the sender, which never waits
    assert received == list(range(10_000))
    counted = sender.line()
    assert (counted["messages_sent"], counted["undelivered"], counted["uncertain"]) == (10_000, 0, 0)
    assert receiver.statistics.missing == 0


def test_a_slow_receiver_gets_everything(end: Callable[..., End], opened: Open) -> None:
    receiver = end("receive", "tcp://127.0.0.1:*", "--bind", "--queue", 2, "--pause", 0.002, "--last", 199)
    sender = opened(receiver.address, mode=8, queue_size=2)
    for frame in range(200):
        header = {"htype": "raw-1.0", "frame": frame}
        assert sender.forward({"header": header, "data": [bytes(1 << 16)]})
    sender.disconnect()
    assert [receiver.line() for _ in range(200)] == list(range(200))
    assert receiver.line() == {"missing": 0}
    assert (sender.statistics.undelivered, sender.statistics.uncertain) == (0, 0)


@pytest.mark.parametrize("copy", [True, False])
def test_a_sender_that_closes_with_a_full_queue_counts_what_it_did_not_deliver(
    end: Callable[..., End], opened: Open, copy: bool
) -> None:
    arguments = ["--last", 99_999, "--size", 1 << 18, "--queue", 5, "--patience", 300, "--linger", 300]
    receiver = opened("tcp://127.0.0.1:*", BIND, PULL, queue_size=1)
    sender = end("send", receiver.address, *arguments, *([] if copy else ["--no-copy"]))
    counted = sender.line()  # it has given up and ended, since nobody took anything
    received = 0
    while receiver.link.channel.wait(1.0 if received else 60.0) and receiver.receive(block=False) is not None:
        received += 1
    assert counted["messages_dropped"] == {"full": 1}
    assert counted["messages_sent"] > received
    lacking = counted["messages_sent"] - received
    assert counted["undelivered"] <= lacking <= counted["undelivered"] + counted["uncertain"]
    if not copy:
        # What is sent from the memory of the caller is known one by one, but for the last.
        assert counted["uncertain"] <= 1
        assert counted["undelivered"] > 0


def test_a_receiver_that_is_killed_costs_what_it_had_and_no_more(end: Callable[..., End], opened: Open) -> None:
    first = end("receive", "tcp://127.0.0.1:*", "--bind")
    sender = opened(first.address, mode=8)
    for frame in range(50):
        sender.forward({"header": {"htype": "raw-1.0", "frame": frame}, "data": []})
    assert first.line() == 0
    early = [0, *first.kill()]
    for frame in range(50, 100):
        sender.forward({"header": {"htype": "raw-1.0", "frame": frame}, "data": []})
    second = end("receive", first.address, "--bind", "--last", 99)
    late: list[int] = []
    while not late or late[-1] != 99:
        late.append(second.line())
    # In order, none twice; what the killed one had taken and not told is one gap.
    assert early == list(range(len(early)))
    assert late == list(range(late[0], 100))
    assert late[0] >= len(early)
    assert second.line() == {"missing": 0}


def test_a_sender_that_is_killed_leaves_a_gap_that_is_counted(end: Callable[..., End], opened: Open) -> None:
    receiver = opened("tcp://127.0.0.1:*", BIND)
    first = end("send", receiver.address, "--last", 999_999_999)
    received = [frame_of(receiver.receive()) for _ in range(100)]
    first.kill()
    again = 10_000_000
    end("send", receiver.address, "--first", again, "--last", again + 9)
    # What the killed one had sent may come between what the other one sends.
    while again + 9 not in received or receiver.link.channel.wait(1.0):
        received.append(frame_of(receiver.receive()))
    before = [frame for frame in received if frame < again]
    assert before == list(range(len(before)))
    assert [frame for frame in received if frame >= again] == list(range(again, again + 10))
    assert (receiver.statistics.gaps, receiver.statistics.missing) == (1, again - len(before))
