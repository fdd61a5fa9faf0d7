"""What happens to the connections of a socket: events, counts of peers, handshakes that failed.

libzmq tells events through a socket of its own, the *monitor socket*. Whoever owns the stream looks into it now and
then (`Watch.drain`); as soon as somebody registers a callback, a `SocketEventListener` does, in a thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import zmq
from zmq.utils.monitor import recv_monitor_message

_log = logging.getLogger(__name__)

SocketEvent: TypeAlias = Mapping[str, Any]
"""``event``, a `zmq.Event`; ``value``, whose sense depends on it; ``endpoint``, bytes."""

Monitor: TypeAlias = Callable[[SocketEvent | None], object]
"""Called with each event, and with None now and then when there is none."""

HEARTBEAT = 100
"""Milliseconds without an event after which a `Monitor` is called with None."""

# What says nothing about a connection is left out, as nobody may ever look: attempts to connect go on for ever.
_EVENTS = (
    zmq.EVENT_LISTENING
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_ACCEPTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_MONITOR_STOPPED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_MECHANISM = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_ENOUGH = 2  # handshakes in a row that fail without a reason; a single one may be a peer that just ended


def open_monitor(socket: zmq.Socket[Any], events: int = _EVENTS) -> zmq.Socket[bytes]:
    """Open the monitor socket of a socket; there is one at a time. Whoever called closes it."""
    address = f"inproc://ndstream.monitor-{id(socket):x}-{threading.get_ident():x}-{time.monotonic_ns():x}"
    socket.monitor(address, events)
    monitor: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
    monitor.linger = 0
    monitor.rcvhwm = 0  # a full queue would stop the thread of libzmq that moves the data
    monitor.connect(address)
    return monitor


class Peers:
    """Connections of a socket, counted by their events; the count is never negative, whenever one begins to count."""

    __slots__ = ("_known", "most")

    def __init__(self) -> None:
        self._known: dict[int, SocketEvent] = {}
        self.most = 0

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[SocketEvent]:
        """Events by which the present ones came."""
        return iter(list(self._known.values()))

    def __call__(self, event: SocketEvent) -> None:
        """Take notice of an event."""
        kind = event["event"]
        if kind in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED):
            self._known[event["value"]] = event
            self.most = max(self.most, len(self._known))
        elif kind == zmq.EVENT_DISCONNECTED:
            self._known.pop(event["value"], None)
        elif kind in (zmq.EVENT_CLOSED, zmq.EVENT_MONITOR_STOPPED):
            self._known.clear()


class Handshakes:
    """Whether peers accept each other.

    Attributes
    ----------
    failure : str or None
        Why this end, which connects, cannot get in; None again as soon as it can.
    succeeded, refused : int
        Handshakes, and those that failed.
    """

    __slots__ = ("_in_a_row", "failure", "refused", "succeeded")

    def __init__(self) -> None:
        self.failure: str | None = None
        self.succeeded = 0
        self.refused = 0
        self._in_a_row = 0

    def __call__(self, event: SocketEvent) -> None:
        """Take notice of an event."""
        kind = event["event"]
        if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.failure, self._in_a_row = None, 0
            self.succeeded += 1
            return
        if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            reason = "the server does not allow this key"
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            reason = (
                "one end is encrypted, the other is not"
                if event["value"] == _MECHANISM
                else "the two ends do not understand each other; perhaps a key is wrong"
            )
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            reason = "refused: the key of the server is another one, or one end is encrypted and the other is not"
        else:
            return
        self.refused += 1
        self._in_a_row += 1
        # A reason that is known stays; whether one is told depends on who of the two hangs up first.
        if kind != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL or (self._in_a_row >= _ENOUGH and self.failure is None):
            self.failure = reason


class ConnectionCountMonitor:
    """A `Monitor` that tells the number of peers: 0 at once, then after each event and at each heartbeat."""

    def __init__(self, callback: Callable[[int], object]) -> None:
        self._callback = callback
        self._peers = Peers()
        callback(0)

    def __call__(self, event: SocketEvent | None) -> None:
        """Count, and tell."""
        if event is not None:
            self._peers(event)
        self._callback(len(self._peers))


def no_clients_timeout_notifier(action: Callable[[], object], timeout: float) -> Monitor:
    """Make a `Monitor` that acts when nobody is connected.

    Parameters
    ----------
    action : callable
        Called without arguments in the thread of the monitor, after `timeout` without peers and again each `timeout`
        after that. It may disconnect the stream.
    timeout : float, seconds
    """
    since = time.monotonic()

    def counted(peers: int) -> None:
        nonlocal since
        now = time.monotonic()
        if peers:
            since = now
        elif now - since > timeout:
            since = now
            action()

    return ConnectionCountMonitor(counted)


class SocketEventListener:
    """A thread that reads a monitor socket and calls back.

    Parameters
    ----------
    callbacks : iterable of Monitor
        Called in the thread. One that raises is logged, and called again the next time.
    events : int
        Mask of the events that they are told.
    receive_timeout : int, milliseconds
        Without an event for so long they are called with None.
    """

    def __init__(
        self,
        callbacks: Iterable[Monitor],
        events: int = zmq.EVENT_ALL,
        receive_timeout: int = HEARTBEAT,
    ) -> None:
        self.callbacks = list(callbacks)
        self._events = events
        self._timeout = receive_timeout
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._monitor: zmq.Socket[bytes] | None = None

    def start(self, monitor: zmq.Socket[bytes]) -> None:
        """Begin with a monitor socket (`open_monitor`); it belongs to the thread from now on."""
        self._monitor = monitor
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, args=(monitor,), name="ndstream-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and close the monitor socket; from a callback too. Harmless when it has ended."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if thread is threading.current_thread():
            assert self._monitor is not None
            self._monitor.close()  # the loop sees it, when the callback has returned
        else:
            os.eventfd_write(self._wake, 1)
            thread.join()
        os.close(self._wake)

    def _run(self, monitor: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(monitor, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        try:
            while not monitor.closed:
                ready = dict(poller.poll(self._timeout))
                if monitor in ready:
                    event = recv_monitor_message(monitor)
                    if event["event"] & self._events:
                        self._tell(event)
                    if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                        return
                elif ready:
                    return
                else:
                    self._tell(None)
        except zmq.ContextTerminated:
            return  # with the context the socket ends, and all that there is to tell
        finally:
            monitor.close()

    def _tell(self, event: SocketEvent | None) -> None:
        for callback in tuple(self.callbacks):
            _call(callback, event)


def _call(callback: Monitor, event: SocketEvent | None) -> None:
    try:
        callback(event)
    except Exception:  # noqa: BLE001 - whatever it is, neither the stream nor other callbacks are to suffer
        _log.exception("a socket monitor failed; it is called again")


class Watch:
    """Knows peers and handshakes of one socket, and passes its events on.

    Parameters
    ----------
    socket : zmq.Socket
        Not connected or bound yet, so that nothing is missed.
    changed : callable
        Called in the thread of a listener when handshakes begin to fail.
    """

    def __init__(self, socket: zmq.Socket[Any], changed: Callable[[], object]) -> None:
        self.peers = Peers()
        self.handshakes = Handshakes()
        self._changed = changed
        self.monitor: zmq.Socket[bytes] | None = open_monitor(socket)
        self._listener: SocketEventListener | None = None

    def drain(self) -> None:
        """Take notice of what happened, unless a thread does."""
        while self.monitor is not None and self.monitor.poll(0):
            self._note(recv_monitor_message(self.monitor))

    def add(self, callback: Monitor) -> None:
        """Have it called from now on, in a thread; once, however often it is added.

        Of the peers that are there it is told at once.
        """
        if self._listener is not None and callback in self._listener.callbacks:
            return
        self.drain()
        for event in self.peers:
            _call(callback, event)
        if self._listener is None:
            self._listener = SocketEventListener([self._note, callback])
            monitor, self.monitor = self.monitor, None
            assert monitor is not None
            self._listener.start(monitor)
        else:
            self._listener.callbacks.append(callback)

    def remove(self, callback: Monitor) -> None:
        """Have it called no more; harmless when it is not."""
        if self._listener is not None and callback in self._listener.callbacks:
            self._listener.callbacks.remove(callback)

    def close(self) -> None:
        """End the thread and close the monitor socket."""
        if self._listener is not None:
            self._listener.stop()
        elif self.monitor is not None:
            self.monitor.close()
            self.monitor = None

    def _note(self, event: SocketEvent | None) -> None:
        if event is None:
            return
        self.peers(event)
        failure: str | Literal[False] | None = self.handshakes.failure
        self.handshakes(event)
        if self.handshakes.failure != failure and self._listener is not None:
            self._changed()
