"""Streams over real sockets, within one process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from tests.streams.conftest import LONG, Joined

import ndstream
from ndstream import BIND, CONNECT, PUB, PULL, PUSH, SUB, Stream
from ndstream.core.limits import Limits
from ndstream.errors import (
    BadHeader,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    EndpointFailed,
    InvalidRequest,
    TimedOut,
    UnknownHtype,
)
from ndstream.protocols.htype.generating import Generator, Plan

Open = Callable[..., Stream]
Join = Callable[..., Joined]


def numbered(frame: int, size: int = 4) -> dict[str, Any]:
    return {"header": {"htype": "array-1.0", "frame": frame}, "data": [np.full(size, frame, "<i4")]}


def frame_of(message: ndstream.Message | None) -> int:
    assert message is not None
    number: int = message.data["header"]["frame"]
    return number


def fill(sender: Stream, data: dict[str, Any], most: int = 10_000) -> int:
    """Send until nothing more is taken; how many were."""
    for number in range(most):
        try:
            assert sender.forward(data)
        except TimeoutError:
            return number
    raise AssertionError("it never was full")


# -- messages --


@pytest.mark.parametrize("copy", [True, False])
def test_arrays_arrive_writable_only_when_they_were_not_copied(joined: Join, copy: bool) -> None:
    sender, receiver = joined(copy=copy, receiver={"copy": copy})
    values = np.arange(60_000, dtype=">f8").reshape(2, 3, 10_000)
    sent = sender.forward({"header": {"htype": "array-1.0"}, "data": [values, None]})
    message = receiver.receive()
    assert message is not None
    received, empty = message.data["data"]
    np.testing.assert_array_equal(received, values)
    assert (received.dtype, received.flags.writeable, empty) == (values.dtype, not copy, None)
    assert sent.done or sent.tracker is not None
    if sent.tracker is not None:
        sent.tracker.wait(LONG / 1000)
        assert sent.done


MESSAGES: dict[str, list[bytes]] = {
    "raw without blobs": [b'{"htype":"raw-1.0"}'],
    "raw": [b'{"htype":"raw-1.0"}', b"a", b"", b"c"],
    "array": [b'{"htype":"array-1.0","shape":[2],"type":"int8"}', b"ab", b"", b"cd"],
    "header none": [b'{"htype":"dheader-1.0","series":1,"header_detail":"none"}'],
    "header with appendix": [b'{"htype":"dheader-1.0","series":1,"header_detail":"basic"}', b'{"nimages":2}', b"text"],
    "image": [b'{"htype":"dimage-1.0","series":1,"frame":2,"hash":"x"}', b'{"htype":"dimage_d-1.0"}', b"blob", b"{}"],
    "image with appendix": [
        b'{"htype":"dimage-1.0","series":1,"frame":2,"hash":"x"}',
        b'{"htype":"dimage_d-1.0"}',
        b"blob",
        b'{"htype":"dconfig-1.0"}',
        b'{"more":[1,2]}',
    ],
    "end": [b'{"htype":"dseries_end-1.0","series":1}'],
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_forwarded_with_all_its_parts(joined: Join, name: str) -> None:
    """Faults 7 and 8: as it came byte by byte, and by its data part by part."""
    first, second = joined()
    assert first.send_parts(MESSAGES[name])
    message = second.receive()
    assert message is not None
    assert first.forward(message)
    assert first.forward(message.data)
    whole, made = second.receive(), second.receive()
    assert whole is not None
    assert made is not None
    assert list(whole.frames) == MESSAGES[name]
    np.testing.assert_equal(made.data, message.data)
    assert len(made.frames) == len(MESSAGES[name])
    assert second.receive(block=False) is None


@pytest.mark.parametrize("compressed", [False, True])
def test_compressed_images_are_decoded_when_they_are_wanted(joined: Join, compressed: bool) -> None:
    sender, receiver = joined(compressed=compressed)
    plan = Plan(htype="dimage-1.0", shape=(8, 16), dtype=np.dtype("<u2"), compression="bslz4", seed=1)
    sender.forward(Generator(plan).item(0))
    message = receiver.receive()
    assert message is not None
    assert message.images["image"].encoding == "bslz4"
    assert bytes(message.data["part_3_raw"]) == bytes(message.frames[2])
    assert np.array_equal(message.arrays["image"], Generator(plan).array(0))


def test_no_part_goes_out_before_the_last(joined: Join) -> None:
    """Faults 4 and 5."""
    sender, receiver = joined()
    sender.send({"htype": "raw-1.0"}, send_more=True, as_json=True)
    with pytest.raises(InvalidRequest):
        sender.send(3.5)
    with pytest.raises(UnknownHtype):
        sender.forward({"header": {}})
    with pytest.raises(KeyError):
        sender.forward({"data": []})
    with pytest.raises(BadHeader):
        sender.forward({"header": {"htype": "array-1.0", "shape": [3], "type": "int8"}, "data": [np.zeros(4)]})
    sender.send({"htype": "raw-1.0", "frame": 1}, send_more=True, as_json=True)
    assert sender.send(b"blob")
    message = receiver.receive()
    assert message is not None
    assert message.data == {"header": {"htype": "raw-1.0", "frame": 1}, "data": [b"blob"]}
    assert receiver.receive(block=False) is None
    assert sender.statistics.messages_dropped == {"unfinished": 1}


def test_functions_encode_what_no_codec_knows(joined: Join) -> None:
    def send_mine(data: Any, *, send: Callable[..., None], block: bool) -> None:
        send(data["header"], as_json=True, send_more=True, block=block)
        for segment in data["data"]:
            send(segment)  # no matter what it says about more: all is one message

    sender, receiver = joined()
    receiver.handlers = {"my-1.0": lambda part: [part.next(as_json=True)["n"], part.next(), part.next()]}
    data = {"header": {"htype": "my-1.0", "n": 7}, "data": [b"a", "b"]}
    ndstream.send_handlers["my-1.0"] = send_mine
    try:
        assert sender.forward(data)
    finally:
        del ndstream.send_handlers["my-1.0"]
    assert sender.forward(data, handler=send_mine)
    with pytest.raises(UnknownHtype):
        sender.forward(data)
    for _ in range(2):
        message = receiver.receive()
        assert message is not None
        assert message.data == [7, b"a", b"b"]


def test_errors_cost_one_message_and_come_in_order(joined: Join) -> None:
    sender, receiver = joined()
    sender.send_parts([b"no json"])
    sender.forward(numbered(1))
    sender.send_parts([b'{"htype":"dimage-1.0"}'])
    sender.send_parts([b"\xff", b"raw"])
    sender.forward(numbered(2))
    with pytest.raises(BadHeader):
        receiver.receive()
    assert frame_of(receiver.receive()) == 1
    with pytest.raises(EOFError):
        receiver.receive()
    kept = receiver.receive_raw()
    assert kept is not None
    assert kept.data == {"header": b"\xff", "data": [b"raw"]}
    assert frame_of(receiver.receive()) == 2
    assert receiver.statistics.messages_failed == {"header": 1, "part": 1}
    assert receiver.statistics.messages_received == 3


def test_iterating_ends_when_nothing_comes_in_time(joined: Join) -> None:
    sender, receiver = joined(receiver={"receive_timeout": 500})
    for frame in range(5):
        sender.forward(numbered(frame))
    assert [frame_of(message) for message in receiver] == list(range(5))


# -- time --


def test_a_time_out_is_none_once_and_counted_as_nothing(opened: Open) -> None:
    """Fault 2, acceptance 16."""
    receiver = opened("tcp://127.0.0.1:*", BIND, receive_timeout=50)
    begin = time.monotonic()
    assert receiver.receive(handler=lambda part: {"header": part.next()}) is None
    assert time.monotonic() - begin >= 0.05
    assert receiver.statistics.messages_received == 0
    assert receiver.statistics.messages_failed == {}


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_a_time_out_of_0_does_not_wait(opened: Open, timeout: float) -> None:
    receiver = opened("tcp://127.0.0.1:*", BIND, receive_timeout=timeout)
    assert receiver.receive() is None
    sender = opened("tcp://127.0.0.1:*", BIND, PUSH, send_timeout=timeout)
    with pytest.raises(TimedOut):
        sender.send(b"")


@pytest.mark.parametrize("timeout", [None, -1])
def test_without_a_time_out_it_waits(opened: Open, timeout: int | None) -> None:
    receiver = opened("tcp://127.0.0.1:*", BIND, receive_timeout=timeout)
    address = receiver.address
    late = threading.Timer(0.2, lambda: _send_one(address))
    late.start()
    assert frame_of(receiver.receive()) == 7
    late.join()


def _send_one(address: str) -> None:
    with ndstream.connect(address, mode=PUSH, linger=LONG) as sender:
        sender.forward(numbered(7))


def test_not_blocking_returns_at_once_without_a_peer(opened: Open) -> None:
    """Fault 6."""
    sender = opened("tcp://127.0.0.1:*", BIND, PUSH, send_timeout=None)
    sent = sender.forward(numbered(1), block=False)
    assert not sent
    assert sender.statistics.messages_dropped == {"full": 1}
    assert opened("tcp://127.0.0.1:*", BIND).receive(block=False) is None


# -- slow peers --


def test_a_full_sender_times_out_and_sends_the_rest_later(joined: Join) -> None:
    sender, receiver = joined(queue_size=3, send_timeout=50, receiver={"queue_size": 3})
    assert sender.forward(numbered(0))
    assert frame_of(receiver.receive()) == 0
    big = numbered(1, 1 << 18)
    accepted = fill(sender, big)
    for _ in range(accepted):
        assert frame_of(receiver.receive()) == 1
    assert sender.forward(numbered(2))
    assert frame_of(receiver.receive()) == 2
    assert sender.statistics.messages_dropped == {"full": 1}


def test_the_oldest_go_and_the_newest_arrive(joined: Join) -> None:
    sender, receiver = joined(queue_size=4, policy="drop-oldest", receiver={"queue_size": 1})
    assert sender.forward(numbered(0))
    assert frame_of(receiver.receive()) == 0
    count = 200
    for frame in range(1, count):
        assert sender.forward(numbered(frame, 1 << 18))
    assert sender.flush(0) is False
    received: list[int] = []
    while not received or received[-1] < count - 1:
        received.append(frame_of(receiver.receive()))
        sender.flush(0)
    assert sender.flush()
    dropped = sender.statistics.messages_dropped["oldest"]
    assert dropped > 0
    assert len(received) + dropped == count - 1
    assert received == sorted(received)
    assert receiver.statistics.missing == dropped


def test_a_slow_subscriber_is_counted_and_does_not_stop_others(opened: Open) -> None:
    """Issue 4, point 3: drops of a PUB are counted."""
    sender = opened("tcp://127.0.0.1:*", BIND, PUB, queue_size=3)
    fast = opened(sender.address, mode=SUB, queue_size=1000)
    slow = opened(sender.address, mode=SUB, queue_size=1)
    _until_all_hear(sender, fast, slow)
    begin = fast.statistics.messages_received
    count = 300
    for frame in range(count):
        assert sender.forward(numbered(frame, 1 << 16))
        assert frame_of(fast.receive()) == frame
    assert fast.statistics.messages_received - begin == count
    assert sender.statistics.messages_dropped["slow"] > 0
    # The sender knows that somebody missed something, the receiver how much.
    late = [frame_of(slow.receive())]
    while late[-1] < count:
        if not slow.link.channel.wait(0):
            sender.forward(numbered(count))
        late.append(frame_of(slow.receive()))
    assert len(late) + slow.statistics.missing == count + 1 + slow.statistics.repeats


def _until_all_hear(sender: Stream, *receivers: Stream) -> None:
    """Send until each subscriber has got one, then until nothing of that is on the way."""
    waiting = set(receivers)
    while waiting:
        sender.forward({"header": {"htype": "raw-1.0", "hello": True}, "data": []})
        waiting -= {receiver for receiver in waiting if receiver.link.channel.wait(0.02)}
    sender.forward({"header": {"htype": "raw-1.0", "hello": False}, "data": []})
    for receiver in receivers:
        while (message := receiver.receive()) is not None and message.data["header"]["hello"]:
            pass


def test_topics_choose(opened: Open) -> None:
    sender = opened("tcp://127.0.0.1:*", BIND, PUB)
    receiver = opened(sender.address, mode=SUB, topics='{"htype": "array')
    other = {"header": {"htype": "raw-1.0"}, "data": []}
    while not receiver.link.channel.wait(0.02):
        sender.forward(other)
        sender.forward(numbered(1))
    assert frame_of(receiver.receive()) == 1


# -- opening and closing --


def test_closing_twice_and_before_opening_is_harmless(opened: Open) -> None:
    stream = Stream()
    stream.disconnect()
    receiver = opened("tcp://127.0.0.1:*", BIND)
    ndstream.disconnect(receiver)
    receiver.disconnect()
    assert not receiver.connected
    for use in (receiver.receive, lambda: receiver.address, stream.receive):
        with pytest.raises(ConnectionLost):
            use()


def test_a_stream_can_be_opened_again(opened: Open) -> None:
    receiver = Stream().connect("tcp://127.0.0.1:*", BIND, PULL, LONG)
    with receiver:
        receiver.connect("tcp://127.0.0.1:*", BIND, PULL, LONG, 100)
        sender = opened(receiver.address, CONNECT, PUSH)
        sender.forward(numbered(3))
        assert frame_of(receiver.receive()) == 3


@pytest.mark.parametrize(
    ("address", "conn_type"),
    [("nonsense", CONNECT), ("tcp://127.0.0.1", BIND), ("tcp://127.0.0.1:no", CONNECT), ("udp://127.0.0.1:1", BIND)],
)
def test_an_address_that_cannot_be_used_is_named(address: str, conn_type: str) -> None:
    with pytest.raises(RuntimeError, match=f"{conn_type} to '{address}'") as caught:
        ndstream.connect(address, conn_type)
    assert isinstance(caught.value, EndpointFailed)
    assert isinstance(caught.value, ConnectFailed)
    assert isinstance(caught.value.__cause__, zmq.ZMQError)


def test_an_address_that_is_taken_is_named(opened: Open) -> None:
    first = opened("tcp://127.0.0.1:*", BIND)
    with pytest.raises(EndpointFailed, match=re.escape(first.address)):
        ndstream.connect(first.address, BIND)


@pytest.mark.parametrize(
    "wrong",
    [{"conn_type": "unbind"}, {"mode": 3}, {"mode": "PULL"}, {"policy": "drop"}, {"queue_size": -1}, {"on_error": "x"}],
    ids=repr,
)
def test_what_is_no_option_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ndstream.connect("tcp://127.0.0.1:*", **{"conn_type": BIND, **wrong})


def test_modes_are_those_of_zmq_and_say_what_they_cannot(opened: Open) -> None:
    sender = opened("tcp://127.0.0.1:*", BIND, zmq.PUSH)
    receiver = opened(sender.address, CONNECT, zmq.PULL)
    with pytest.raises(InvalidRequest, match="PUSH sends"):
        sender.receive()
    with pytest.raises(InvalidRequest, match="PULL receives"):
        receiver.send(b"")
    assert [int(mode) for mode in (PUB, SUB, PUSH, PULL)] == [zmq.PUB, zmq.SUB, zmq.PUSH, zmq.PULL]


def test_a_shared_context_outlives_its_streams(tmp_path: Path) -> None:
    with zmq.Context() as context:
        sender = Stream().connect("inproc://here", BIND, PUSH, context=context)
        receiver = Stream().connect("inproc://here", receive_timeout=LONG, context=context)
        sender.forward(numbered(1))
        assert frame_of(receiver.receive()) == 1
        sender.disconnect()
        receiver.disconnect()
        assert not context.closed
        with ndstream.connect(f"ipc://{tmp_path}/socket", BIND, PUSH, context=context):
            assert (tmp_path / "socket").exists()


def test_another_thread_ends_what_waits(opened: Open) -> None:
    receiver = opened("tcp://127.0.0.1:*", BIND, receive_timeout=None)
    closing = threading.Timer(0.2, receiver.disconnect)
    closing.start()
    with pytest.raises(ConnectionLost):
        receiver.receive()
    closing.join()
    assert not receiver.connected


def test_a_handler_may_close_its_stream(joined: Join) -> None:
    sender, receiver = joined()
    sender.forward(numbered(1))

    def handler(part: ndstream.ReceiveHandler) -> str:
        receiver.disconnect()
        return "closed"

    message = receiver.receive(handler)
    assert message is not None
    assert message.data == "closed"
    assert not receiver.connected


# -- hostile peers --


def test_a_part_beyond_the_limit_is_cut_off_by_the_socket(opened: Open) -> None:
    receiver = opened("tcp://127.0.0.1:*", BIND, limits=Limits(message_part=1000))
    with ndstream.connect(receiver.address, mode=PUSH, linger=0) as hostile:
        hostile.send_parts([b'{"htype": "raw-1.0"}', bytes(2000)])
        honest = opened(receiver.address, mode=PUSH)
        honest.forward(numbered(1))
        assert frame_of(receiver.receive()) == 1
    assert receiver.statistics.messages_received == 1


def test_too_many_parts_are_an_error_and_the_stream_goes_on(joined: Join) -> None:
    sender, receiver = joined()
    sender.send_parts([b'{"htype": "raw-1.0"}', *[b""] * 100_000])
    sender.forward(numbered(2))
    with pytest.raises(DecodeError, match="message_parts"):
        receiver.receive()
    assert frame_of(receiver.receive()) == 2
