"""One end of a stream: a ZeroMQ socket that receives or sends whole messages, and never half of one.

Receiving and sending never wait; `Channel.wait` does, for synchronous programs, and `ready` tells asynchronous ones.

Threads and processes: a channel is used by one thread at a time, only `Channel.wake` may be called from another. A
forked child must not use the channels of its parent; it opens its own.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, TypeAlias

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ndstream.core.modes import Mode
from ndstream.core.packets import Buffer
from ndstream.errors import ConnectionLost, EndpointFailed, InvalidRequest, NotAuthenticated
from ndstream.transports.zmq.keys import ZAP_DOMAIN, Curve
from ndstream.transports.zmq.monitor import Monitor, Watch

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

ZERO_COPY = 1 << 16
"""Length from which parts are sent from the memory of the caller, when that is asked for; copying less is faster."""
BATCH = 8192
"""Bytes that libzmq takes out of its queue at once, before the system has taken them."""

PATIENCE = 0.1
"""Seconds after which a receiver that waits looks whether it was refused, woken or is out of time."""

_NOW: Final = int(zmq.NOBLOCK)
_MORE_NOW: Final = int(zmq.NOBLOCK | zmq.SNDMORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a channel is opened.

    Attributes
    ----------
    address : str
        Endpoint of ZeroMQ: ``tcp://host:port``, ``ipc://path``, ``inproc://name``.
    mode : Mode
    bind : bool
        Whether others connect to this end.
    queue_size : int, messages
        High-water mark, for each peer; 0 is without limit.
    linger : int, milliseconds
        How long closing waits for what is to be sent; -1 is for ever.
    copy : bool
        Whether parts are copied when they come and go; else long ones are views of the memory of ZeroMQ, and are sent
        from the memory of the caller.
    longest_part : int, bytes
        A peer that sends more is cut off.
    topics : tuple of bytes
        Beginnings of the messages that a SUB takes.
    tell_slow : bool
        Whether a PUB refuses a message for which a peer has no room; else that peer goes without.
    count_subscribers : bool
        Whether a PUB is told of subscriptions, for `Channel.subscribers`.
    curve : Curve or None
    context : zmq.Context or None
        To be shared; None makes one of its own, which ends with the channel.
    """

    address: str
    mode: Mode
    bind: bool
    queue_size: int
    linger: int
    copy: bool
    longest_part: int
    topics: tuple[bytes, ...] = (b"",)
    tell_slow: bool = True
    count_subscribers: bool = False
    curve: Curve | None = None
    context: Context | None = None


class Channel:
    """A socket in use.

    Raises
    ------
    EndpointFailed
        The address cannot be used.
    InvalidRequest
        The options contradict each other.
    """

    def __init__(self, options: Options) -> None:
        if options.context is not None and options.curve is not None and options.curve.allowed is not None:
            raise InvalidRequest("allowed_keys need a context of the stream's own")
        self.options = options
        self._context: Context = options.context or zmq.Context()
        self._own_context = options.context is None
        self._authenticator: ThreadAuthenticator | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._event = zmq.POLLOUT if options.mode.sends else zmq.POLLIN
        self._pending: deque[zmq.MessageTracker] = deque()
        self._watch: Watch | None = None
        self._subscribers = 0
        self.counts_subscribers = options.count_subscribers and options.mode is Mode.PUB
        self._socket = self._context.socket(
            zmq.SocketType.XPUB if self.counts_subscribers else zmq.SocketType(options.mode)
        )
        try:
            self._configure()
            self._watch = Watch(self._socket, self.wake)
            self._attach()
        except BaseException:
            self.close(0)
            raise
        #: Address that peers connect to; with the port that was found where none was named.
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT) if options.bind else options.address
        self._poller = zmq.Poller()
        self._poller.register(self._socket, self._event)
        self._poller.register(self._wake, zmq.POLLIN)
        if self._watch.monitor is not None:
            self._poller.register(self._watch.monitor, zmq.POLLIN)
        self._copy = options.copy
        #: First part of the last message. Were it freed before the others, glibc would often have the memory of those
        #: at the end of its heap when they are freed, and give it back to the system: a sixth of the rate of 8 MB.
        self._head: zmq.Frame | None = None
        self._receive = self._socket.recv
        self._send = self._socket.send

    def _configure(self) -> None:
        options, socket = self.options, self._socket
        # Before the socket is connected or bound: later is too late for most of these.
        socket.sndhwm = socket.rcvhwm = options.queue_size
        socket.linger = options.linger
        socket.rcvtimeo = int(PATIENCE * 1000)
        socket.maxmsgsize = options.longest_part
        socket.copy_threshold = ZERO_COPY
        socket.ipv6 = "[" in options.address
        if options.mode is Mode.SUB:
            for topic in options.topics:
                socket.setsockopt(zmq.SUBSCRIBE, topic)
        if options.mode is Mode.PUB:
            self.refuse_slow(options.tell_slow)
            if options.count_subscribers:
                socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        if options.curve is not None:
            options.curve.apply(socket)
            if options.curve.allowed is not None:
                self._authenticate(options.curve.allowed)

    def _authenticate(self, allowed: frozenset[bytes]) -> None:
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(ZAP_DOMAIN, _Allowed(allowed))

    def _attach(self) -> None:
        address = self.options.address
        try:
            if self.options.bind:
                self._socket.bind(address)
            else:
                self._socket.connect(address)
        except (zmq.ZMQError, TypeError, ValueError) as error:
            verb = "bind" if self.options.bind else "connect"
            raise EndpointFailed(f"cannot {verb} to {address!r}: {error}") from error

    # -- messages --

    def receive(self, patient: bool = False) -> list[Buffer] | None:
        """Take the next message; None when there is none now, or none within `PATIENCE`."""
        receive = self._receive
        try:
            # As a frame, since asking one whether more follow is faster than asking the socket.
            frame = receive(0 if patient else _NOW, False)
        except zmq.Again:
            return None
        except zmq.ZMQError as error:
            raise _lost(error) from error
        if not frame.more:
            return [frame.bytes]
        copy = self._copy
        self._head = frame
        second = receive(_NOW, False)
        parts: list[Buffer] = [frame.bytes, second.bytes if copy else second.buffer]
        while second.more:
            second = receive(_NOW, False)
            parts.append(second.bytes if copy else second.buffer)
        return parts

    def send(self, parts: Sequence[Buffer]) -> zmq.MessageTracker | bool:
        """Send a whole message, or nothing of it.

        Returns
        -------
        bool or MessageTracker
            False when there is no room now. True, or what tells when the memory of the parts is no longer used.
        """
        if self.counts_subscribers:
            self.subscribers()  # what they tell would pile up
        if not self.options.copy and any(len(part) >= ZERO_COPY for part in parts):
            return self._send_views(parts) or (self._made_room() and self._send_views(parts))
        return self._send_copies(parts) or (self._made_room() and self._send_copies(parts))

    def _made_room(self) -> bool:
        """Let libzmq see what its peers have taken, which it does only now and then; always true."""
        self._socket.getsockopt(zmq.EVENTS)
        return True

    def _send_copies(self, parts: Sequence[Buffer]) -> bool:
        send, last = self._send, len(parts) - 1
        number = 0
        try:
            for number, part in enumerate(parts):
                send(part, _MORE_NOW if number < last else _NOW)
        except zmq.Again:
            self._abandon(parts, number)
            return False
        except zmq.ZMQError as error:
            raise _lost(error) from error
        return True

    def _send_views(self, parts: Sequence[Buffer]) -> zmq.MessageTracker | bool:
        last = len(parts) - 1
        trackers = []
        number = 0
        try:
            for number, part in enumerate(parts):
                long = len(part) >= ZERO_COPY
                tracker = self._send(part, _MORE_NOW if number < last else _NOW, copy=not long, track=long)
                if tracker is not None:
                    trackers.append(tracker)
        except zmq.Again:
            self._abandon(parts, number)
            return False
        except zmq.ZMQError as error:
            raise _lost(error) from error
        tracker = zmq.MessageTracker(*trackers)
        while self._pending and self._pending[0].done:
            self._pending.popleft()
        self._pending.append(tracker)
        return tracker

    def _abandon(self, parts: Sequence[Buffer], number: int) -> None:
        """Let libzmq forget a message of which it took only some parts, as the peer went away in the middle."""
        if number == 0:
            return
        # libzmq took back the parts before, and drops what follows up to the end of the message.
        last = len(parts) - 1
        try:
            for index in range(number + 1, len(parts)):
                self._send(parts[index], _MORE_NOW if index < last else _NOW)
        except zmq.ZMQError as error:
            raise _lost(error) from error

    def refuse_slow(self, refuse: bool) -> None:
        """Let a PUB refuse messages for which a peer has no room, or leave that peer out."""
        self._socket.setsockopt(zmq.XPUB_NODROP, int(refuse))

    # -- waiting --

    def ready(self) -> bool:
        """Whether a message can be received, or sent, now.

        Raises
        ------
        NotAuthenticated
            This end, which connects, is refused.
        """
        if int(self._socket.getsockopt(zmq.EVENTS)) & self._event:
            return True
        self.check()
        return False

    def wait(self, timeout: float | None) -> bool:
        """Wait until a message can be received, or sent.

        Parameters
        ----------
        timeout : float, seconds, optional

        Returns
        -------
        bool
            False when the time is over, or `wake` was called.

        Raises
        ------
        NotAuthenticated
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                ready = dict(self._poller.poll(_milliseconds(deadline)))
            except zmq.ZMQError as error:
                raise _lost(error) from error
            if self._socket in ready:
                return True
            if self._wake in ready:
                self.awake()
                self.check()
                return False
            self.check()
            if not ready:
                return False

    def wake(self) -> None:
        """End a `wait` of another thread, or the next one."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def descriptors(self) -> list[int]:
        """Descriptors of which one is readable when `ready` is to be asked again; ask first, then wait."""
        found = [int(self._socket.getsockopt(zmq.FD)), self._wake]
        if self.watch.monitor is not None:
            found.append(int(self.watch.monitor.getsockopt(zmq.FD)))
        return found

    def awake(self) -> bool:
        """Take notice of a `wake`; whether there was one."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return False
        return True

    # -- connections --

    @property
    def watch(self) -> Watch:
        """Peers, handshakes and events."""
        assert self._watch is not None
        return self._watch

    def listen(self, callback: Monitor) -> None:
        """Have a callback told of events, in a thread."""
        if self.watch.monitor is not None:
            self._poller.unregister(self.watch.monitor)
        self.watch.add(callback)

    def check(self) -> None:
        """Take notice of what happened to the connections.

        Raises
        ------
        NotAuthenticated
            This end, which connects, is refused.
        """
        watch = self.watch
        watch.drain()
        if watch.handshakes.failure is not None and not self.options.bind:
            raise NotAuthenticated(f"{self.options.address}: {watch.handshakes.failure}")

    def subscribers(self) -> int:
        """Number of subscriptions to a PUB that counts them: only who has subscribed gets what is sent then."""
        while True:
            try:
                told = self._receive(_NOW)
            except zmq.Again:
                return self._subscribers
            except zmq.ZMQError as error:
                raise _lost(error) from error
            self._subscribers += 1 if told[:1] == b"\x01" else -1 if told[:1] == b"\x00" else 0

    # -- the end --

    def settle(self, seconds: float | None) -> int:
        """Wait until the memory of what was sent without copying is free; number of messages for which it is not."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._pending:
            left = -1.0 if deadline is None else deadline - time.monotonic()
            try:
                if deadline is not None and left <= 0 and not self._pending[0].done:
                    break
                self._pending[0].wait(left)
            except zmq.NotDone:
                break
            self._pending.popleft()
        return sum(not tracker.done for tracker in self._pending)

    def close(self, linger: int) -> bool:
        """Close, and wait until what was sent is handed over to the system, unless the context is shared.

        Parameters
        ----------
        linger : int, milliseconds
            After which the rest is forgotten; -1 waits for ever.

        Returns
        -------
        bool
            Whether all was handed over; False when that is not known.
        """
        if self._wake < 0:
            return True
        begin = time.monotonic()
        # Never unbind or disconnect before: that throws queued messages away.
        if not self._socket.closed:
            if self._watch is not None:
                self._socket.disable_monitor()
                self._watch.close()
            self._socket.close(linger)
        if self._authenticator is not None:
            self._authenticator.stop()
        if self._own_context:
            self._context.term()
        os.close(self._wake)
        self._wake = -1
        if not self._own_context:
            return linger < 0
        return linger < 0 or (time.monotonic() - begin) * 1000 < linger


@dataclass(frozen=True, slots=True)
class _Allowed:
    keys: frozenset[bytes]

    def callback(self, domain: str, key: bytes) -> bool:
        """Say whether a client may connect; the key comes in Z85."""
        return key in self.keys


def _milliseconds(deadline: float | None) -> int | None:
    return None if deadline is None else max(0, ceil((deadline - time.monotonic()) * 1000))


def _lost(error: zmq.ZMQError) -> Exception:
    return ConnectionLost(f"the stream cannot be used any more: {error}")


def wait_any(channels: Sequence[Channel], timeout: float | None) -> bool:
    """Wait until a message can be received from one of several; False when the time is over or one was woken."""
    poller = zmq.Poller()
    for channel in channels:
        poller.register(channel._socket, zmq.POLLIN)
        poller.register(channel._wake, zmq.POLLIN)
        if channel.watch.monitor is not None:
            poller.register(channel.watch.monitor, zmq.POLLIN)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        ready: dict[Any, int] = dict(poller.poll(_milliseconds(deadline)))
        for channel in channels:
            channel.check()
        if any(channel._socket in ready for channel in channels):
            return True
        if not ready or any(channel._wake in ready for channel in channels):
            return False
