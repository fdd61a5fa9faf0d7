"""What becomes of a message that is to be sent: the rules of sending, for all programs alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

from ndstream.core.modes import Policy
from ndstream.core.packets import Buffer
from ndstream.errors import TooLarge
from ndstream.streams.messages import Totals

State: TypeAlias = Literal["sent", "queued", "dropped", "held"]


class Tracker(Protocol):
    """Tells when the memory of a message is no longer used."""

    @property
    def done(self) -> bool:
        """Whether it is not."""
        ...

    def wait(self, timeout: float | bool = -1) -> None:
        """Wait until it is not, at most `timeout` seconds; raises `zmq.NotDone` after that."""
        ...


class Sent:
    """What became of a message; true unless it was dropped.

    Attributes
    ----------
    state : str
        ``"sent"``: ZeroMQ has it. ``"queued"``: it waits in the queue of the stream. ``"held"``: more parts are to
        come. ``"dropped"``: it will not be sent, and is counted.
    tracker : object or None
        Of a message that was sent from the memory of the caller (``copy=False``, long parts): ``tracker.done`` and
        ``tracker.wait(seconds)`` tell when that memory may be changed. None when it may be changed now; while the
        message is queued it may not.
    """

    __slots__ = ("state", "tracker")

    def __init__(self, state: State, tracker: Tracker | None = None) -> None:
        self.state: State = state
        self.tracker = tracker

    def __bool__(self) -> bool:
        return self.state != "dropped"

    @property
    def done(self) -> bool:
        """Whether the memory of the message may be changed."""
        return self.state != "queued" and (self.tracker is None or self.tracker.done)

    def __repr__(self) -> str:
        return f"<Sent: {self.state}>"


SENT: Final = Sent("sent")
HELD: Final = Sent("held")
DROPPED: Final = Sent("dropped")


class Output(Protocol):
    """Where messages go: `ndstream.transports.zmq.channel.Channel`, or a list in a test."""

    def send(self, parts: Sequence[Buffer]) -> Any:
        """Send a whole message, or nothing: False when there is no room; True, or a `Tracker`."""
        ...

    def refuse_slow(self, refuse: bool) -> None:
        """Whether `send` refuses when a single one of several peers has no room; else that peer goes without."""
        ...


class Sending:
    """Puts messages out, or does with them what the policy says.

    Parameters
    ----------
    output : Output
    totals : Totals
    policy : str
    copies : bool
        Whether the caller may change its memory as soon as it was accepted.
    spreads : bool
        Whether each message is for all peers, so that it can be sent to some of them.
    most_messages : int
        In the queue of the policy ``"drop-oldest"``.
    most_bytes : int
        In that queue.
    """

    def __init__(
        self,
        output: Output,
        totals: Totals,
        policy: Policy,
        *,
        copies: bool,
        spreads: bool,
        most_messages: int,
        most_bytes: int,
    ) -> None:
        self._output = output
        self._totals = totals
        self._policy = policy
        self._copies = copies
        self._spreads = spreads
        self._most_messages = max(1, most_messages)
        self._most_bytes = most_bytes
        self._queue: deque[tuple[list[Buffer], Sent]] = deque()
        self._queued_bytes = 0
        self._open: list[Buffer] = []
        #: Length of the shortest message that was accepted.
        self.shortest = 0
        #: Messages that libzmq took a copy of: nobody tells when these were handed over.
        self.copied = 0

    # -- putting a message together --

    def add(self, make: Callable[[], Buffer], send_more: bool) -> list[Buffer] | None:
        """Add a part; the whole message when it is the last.

        When making the part fails, the parts before are forgotten: the next message begins anew.
        """
        try:
            part = make()
        except BaseException:
            self.forget()
            raise
        self._open.append(part)
        if send_more:
            return None
        parts, self._open = self._open, []
        return parts

    def forget(self) -> None:
        """Forget the parts of a message that was not finished."""
        if self._open:
            self._open = []
            self._totals.dropped("unfinished")

    # -- a whole message --

    def offer(self, parts: list[Buffer], block: bool = True) -> Sent | None:
        """Send a message now, or do with it what the policy says.

        Returns
        -------
        Sent or None
            None when it is to be offered again as soon as there is room.

        Raises
        ------
        TooLarge
            It is longer than the queue, in which it would have to wait.
        """
        if (not self._queue or self.pump()) and (taken := self._output.send(parts)):
            self._accepted(parts)
            return self._sent(taken)
        if self._policy == "drop-oldest":
            return self._put(parts)
        if self._policy == "block" and block:
            return None
        if self._spreads and self._policy == "drop-newest":
            self._totals.dropped("slow")
            return self._send_to_some(parts)
        self._totals.dropped("full")
        return DROPPED

    def _accepted(self, parts: Sequence[Buffer]) -> None:
        nbytes = 0
        for part in parts:
            nbytes += len(part)
        totals = self._totals
        totals.messages_sent += 1
        totals.bytes_sent += nbytes
        if nbytes < self.shortest or not self.shortest:
            self.shortest = nbytes

    def _send_to_some(self, parts: list[Buffer]) -> Sent:
        self._output.refuse_slow(False)
        try:
            taken = self._output.send(parts)
        finally:
            self._output.refuse_slow(True)
        self._accepted(parts)
        return self._sent(taken)

    def _sent(self, taken: Any) -> Sent:
        if taken is True:
            self.copied += 1
            return SENT
        return Sent("sent", taken)

    # -- the queue --

    def __len__(self) -> int:
        """Messages that wait in the queue."""
        return len(self._queue)

    def _put(self, parts: list[Buffer]) -> Sent:
        nbytes = sum(map(len, parts))
        if nbytes > self._most_bytes:
            self._totals.dropped("full")
            raise TooLarge(f"a message of {nbytes} bytes; stream_queue is {self._most_bytes}")
        while self._queue and (
            len(self._queue) >= self._most_messages or self._queued_bytes + nbytes > self._most_bytes
        ):
            self._drop_oldest()
        sent = Sent("queued")
        self._queue.append(([bytes(part) for part in parts] if self._copies else parts, sent))
        self._queued_bytes += nbytes
        self._accepted(parts)
        return sent

    def _drop_oldest(self) -> None:
        parts, sent = self._queue.popleft()
        self._queued_bytes -= sum(map(len, parts))
        sent.state = "dropped"
        self._totals.dropped("oldest")

    def pump(self) -> bool:
        """Send what waits in the queue; whether nothing is left."""
        while self._queue:
            parts, sent = self._queue[0]
            taken = self._output.send(parts)
            if taken is False:
                return False
            self._queue.popleft()
            self._queued_bytes -= sum(map(len, parts))
            sent.tracker = self._sent(taken).tracker
            sent.state = "sent"
        return True

    def give_up(self) -> int:
        """Forget what waits in the queue; how many messages."""
        count = len(self._queue)
        for _, sent in self._queue:
            sent.state = "dropped"
        self._queue.clear()
        self._queued_bytes = 0
        return count
