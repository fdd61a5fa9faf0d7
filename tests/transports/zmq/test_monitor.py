"""What is told of connections: counts, heartbeats, callbacks that fail, actions that close the stream."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import pytest
import zmq

import ndstream
from ndstream import BIND, PUSH, utils
from ndstream.transports.zmq.monitor import Peers, open_monitor

LONG = 60


def event(kind: int, value: int = 0) -> dict[str, Any]:
    return {"event": kind, "value": value, "endpoint": b""}


def until(told: queue.Queue[int], wanted: int) -> list[int]:
    """Counts up to the one that is wanted, each change once."""
    seen: list[int] = []
    while not seen or seen[-1] != wanted:
        count = told.get(timeout=LONG)
        if not seen or seen[-1] != count:
            seen.append(count)
    return seen


def test_counts_go_up_and_down_with_the_peers() -> None:
    """Acceptance 20: 0, 1, 0."""
    told: queue.Queue[int] = queue.Queue()
    with ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH) as sender:
        sender.register_socket_monitor(utils.ConnectionCountMonitor(told.put))
        assert told.get(timeout=LONG) == 0
        with ndstream.connect(sender.address):
            assert until(told, 1)[-1] == 1
        assert until(told, 0)[-1] == 0
        with ndstream.connect(sender.address):
            until(told, 1)
    assert until(told, 0)[-1] == 0


def test_a_monitor_that_comes_late_knows_who_is_there() -> None:
    """In the original the count became negative."""
    told: queue.Queue[int] = queue.Queue()
    with ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH) as sender:
        with ndstream.connect(sender.address, receive_timeout=LONG * 1000) as receiver:
            sender.send(b"{}")
            receiver.receive_raw()
            sender.register_socket_monitor(utils.ConnectionCountMonitor(told.put))
            assert min(until(told, 1)) == 0
        assert until(told, 0)[-1] == 0
    assert min(told.queue, default=0) >= 0


@pytest.mark.parametrize("first", [zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_MONITOR_STOPPED])
def test_a_count_is_never_negative(first: int) -> None:
    peers = Peers()
    peers(event(first, 7))
    assert len(peers) == 0
    peers(event(zmq.EVENT_ACCEPTED, 8))
    peers(event(zmq.EVENT_DISCONNECTED, 7))
    assert (len(peers), peers.most) == (1, 1)


def test_the_end_that_connects_counts_too() -> None:
    told: queue.Queue[int] = queue.Queue()
    with ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH) as sender:
        receiver = ndstream.Stream()
        receiver.register_socket_monitor(utils.ConnectionCountMonitor(told.put))
        with receiver.connect(sender.address):
            until(told, 1)


def test_a_monitor_that_fails_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls: queue.Queue[object] = queue.Queue()

    def failing(told: object) -> None:
        calls.put(told)
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR), ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH) as sender:
        sender.register_socket_monitor(failing)
        sender.register_socket_monitor(failing)  # changes nothing
        while calls.get(timeout=LONG) is not None:
            pass
        assert calls.get(timeout=LONG) is None
        sender.remove_socket_monitor(failing)
        sender.remove_socket_monitor(failing)
    assert "a socket monitor failed" in caplog.text


def test_the_stream_can_be_closed_by_the_action() -> None:
    """Fault 11: the action runs in the thread of the monitor, and the socket is closed when it is done."""
    closed = threading.Event()

    def act() -> None:
        stream.disconnect()
        closed.set()

    stream = ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH, no_client_action=act, no_client_timeout=0.1)
    address = stream.address
    assert closed.wait(LONG)
    assert not stream.connected
    ndstream.connect(address, BIND, PUSH).disconnect()  # the address is free again


def test_the_action_comes_again_and_not_while_somebody_is_there() -> None:
    calls: queue.Queue[bool] = queue.Queue()
    counts: queue.Queue[int] = queue.Queue()
    stream = ndstream.connect(
        "tcp://127.0.0.1:*", BIND, PUSH, no_client_action=lambda: calls.put(True), no_client_timeout=0.15
    )
    with stream:
        stream.register_socket_monitor(utils.ConnectionCountMonitor(counts.put))
        calls.get(timeout=LONG)
        calls.get(timeout=LONG)
        with ndstream.connect(stream.address):
            until(counts, 1)
            while not calls.empty():
                calls.get()
            for _ in range(4):
                counts.get(timeout=LONG)  # heartbeats
            assert calls.empty()


def test_a_listener_works_for_any_socket() -> None:
    told: queue.Queue[Any] = queue.Queue()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        listener = utils.SocketEventListener([told.put], zmq.EVENT_LISTENING, receive_timeout=10)
        listener.start(open_monitor(socket))
        socket.bind("tcp://127.0.0.1:*")
        while (found := told.get(timeout=LONG)) is None:
            pass
        assert found["event"] == zmq.EVENT_LISTENING
        listener.stop()
        listener.stop()
