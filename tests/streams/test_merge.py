"""Several streams as one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.streams.test_stream import frame_of, numbered

from ndstream import BIND, PUSH, Merge, Message, Stream, utils
from ndstream.errors import BadHeader, ConnectionLost
from ndstream.streams.merge import InOrder

Open = Callable[..., Stream]


@pytest.fixture
def two(opened: Open) -> tuple[list[Stream], list[Stream]]:
    senders = [opened("tcp://127.0.0.1:*", BIND, PUSH) for _ in range(2)]
    return senders, [opened(sender.address) for sender in senders]


def send(sender: Stream, *frames: int) -> None:
    for frame in frames:
        assert sender.forward(numbered(frame))


def arrived(streams: list[Stream]) -> None:
    for stream in streams:
        assert stream.link.channel.wait(60)


def test_streams_take_turns(two: tuple[list[Stream], list[Stream]]) -> None:
    senders, receivers = two
    send(senders[0], 0, 1, 2)
    send(senders[1], 10, 11, 12)
    arrived(receivers)
    merged = utils.Merge(*receivers)
    received = [frame_of(merged.receive()) for _ in range(6)]
    assert sorted(received) == [0, 1, 2, 10, 11, 12]
    assert received[:2] == [0, 10]
    assert [frame for frame in received if frame < 10] == [0, 1, 2]
    assert merged.statistics.messages_received == 6
    assert merged.receive(block=False) is None


def test_a_stream_that_is_silent_is_left_out(two: tuple[list[Stream], list[Stream]]) -> None:
    senders, receivers = two
    merged = Merge(*receivers)
    send(senders[1], 1, 2)
    assert [frame_of(merged.receive()), frame_of(merged.receive())] == [1, 2]


def test_each_merge_has_a_place_of_its_own(two: tuple[list[Stream], list[Stream]]) -> None:
    """Fault 12."""
    senders, receivers = two
    for sender in senders:
        send(sender, 0, 1)
    arrived(receivers)
    first, second = Merge(*receivers), Merge(*receivers)
    message = first.receive()
    again = second.receive()
    assert message is not None
    assert again is not None
    assert receivers[0].statistics.messages_received == 2


def test_merging_in_the_order_of_numbers(two: tuple[list[Stream], list[Stream]]) -> None:
    senders, receivers = two
    send(senders[0], 0, 3, 4)
    send(senders[1], 1, 2, 5)
    merged = Merge(*receivers, receive_strategy=InOrder, receive_timeout=300)
    arrived(receivers)
    assert [frame_of(message) for message in merged] == [0, 1, 2, 3, 4, 5]


def test_in_order_waits_for_every_stream_but_not_for_ever(two: tuple[list[Stream], list[Stream]]) -> None:
    senders, receivers = two
    merged = Merge(*receivers, receive_strategy=InOrder, receive_timeout=200)
    send(senders[0], 5)
    arrived(receivers[:1])
    assert merged.receive(block=False) is None
    assert frame_of(merged.receive()) == 5
    assert merged.receive() is None


def test_numbers_of_your_own(two: tuple[list[Stream], list[Stream]]) -> None:
    def value(message: Message) -> int:
        return int(np.ravel(message.data["data"][0])[0])

    senders, receivers = two
    for sender, values in zip(senders, ([9, 30], [8, 10]), strict=True):
        for number in values:
            sender.forward({"header": {"htype": "array-1.0"}, "data": [np.array([number])]})
    arrived(receivers)
    merged = Merge(*receivers, receive_strategy=lambda: InOrder(value), receive_timeout=300)
    assert [value(message) for message in merged] == [8, 9, 10, 30]


def test_what_fails_in_one_costs_nothing_of_the_others(two: tuple[list[Stream], list[Stream]]) -> None:
    senders, receivers = two
    senders[0].send_parts([b"no json"])
    send(senders[1], 1)
    arrived(receivers)
    merged = Merge(*receivers)
    with pytest.raises(BadHeader):
        merged.receive()
    assert frame_of(merged.receive()) == 1


def test_closing_closes_all(two: tuple[list[Stream], list[Stream]]) -> None:
    _, receivers = two
    with Merge(*receivers) as merged:
        assert receivers[0].connected
    assert not any(stream.connected for stream in receivers)
    with pytest.raises(ConnectionLost):
        merged.receive()
