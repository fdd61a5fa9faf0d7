"""Several streams as one: in turn, or in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from ndstream.streams.handlers import Receive
from ndstream.streams.link import NOTHING, Deadline, not_connected
from ndstream.streams.messages import Message, Statistics
from ndstream.streams.settings import seconds
from ndstream.streams.stream import Stream
from ndstream.transports.zmq.channel import wait_any

Take: TypeAlias = Callable[[int], Any]
"""Takes the next message of the stream with this index; `NOTHING` when there is none now."""


class Strategy(Protocol):
    """Decides which message is next. It belongs to one `Merge`."""

    def choose(self, count: int, take: Take, last: bool) -> Any:
        """Choose the next message.

        Parameters
        ----------
        count : int
            Number of streams.
        take : callable
        last : bool
            Nothing more came in time: what was kept back is to be given now.

        Returns
        -------
        Message or None
            `NOTHING` when there is none, or one has to be waited for.
        """
        ...


class RoundRobin:
    """The streams in turn, those without a message left out."""

    def __init__(self) -> None:
        self._position = 0

    def choose(self, count: int, take: Take, last: bool) -> Any:
        """Choose from the stream after the one before; see `Strategy.choose`."""
        for _ in range(count):
            index = self._position % count
            self._position = index + 1
            message = take(index)
            if message is not NOTHING:
                return message
        return NOTHING


def number_of(message: Message) -> int | None:
    """Number of a message: of its frame, pulse or image."""
    position = message.position
    return None if position is None else position.number


class InOrder:
    """The message with the lowest number first, of those that come in order in each stream.

    It waits until there is one of every stream; one that sends nothing for the time-out is not waited for. A message
    without a number is given at once.

    Parameters
    ----------
    number : callable, optional
        Finds the number of a message; None for one that has none.
    """

    def __init__(self, number: Callable[[Message], int | None] = number_of) -> None:
        self._number = number
        self._heads: dict[int, tuple[int, Message]] = {}

    def choose(self, count: int, take: Take, last: bool) -> Any:
        """Choose the lowest number; see `Strategy.choose`."""
        for index in range(count):
            if index in self._heads:
                continue
            message = take(index)
            if message is NOTHING:
                continue
            number = None if message is None else self._number(message)
            if number is None:
                return message
            self._heads[index] = number, message
        if not self._heads or (len(self._heads) < count and not last):
            return NOTHING
        lowest = min(self._heads, key=lambda index: self._heads[index][0])
        return self._heads.pop(lowest)[1]


class Merge:
    """Receives from several streams as from one.

    Parameters
    ----------
    *streams : Stream
        Open, and receiving; they are closed with this one.
    receive_strategy : callable, optional
        Makes the `Strategy`: `RoundRobin`, the default, or `InOrder`, or ``lambda: InOrder(my_number)``.
    receive_timeout : float, milliseconds, optional
        As that of a stream; the default is the shortest of the streams'.

    Notes
    -----
    For one thread at a time.
    """

    def __init__(
        self,
        *streams: Stream,
        receive_strategy: Callable[[], Strategy] = RoundRobin,
        receive_timeout: float | None = None,
    ) -> None:
        self._streams: Sequence[Stream] = streams
        self._strategy = receive_strategy()
        self._last = 0
        timeouts = [stream.receive_timeout for stream in streams]
        known = [timeout for timeout in timeouts if timeout is not None]
        self._timeout = seconds(receive_timeout) if receive_timeout is not None else min(known, default=None)

    @property
    def statistics(self) -> Statistics:
        """Totals of all streams, and the length of the last message."""
        totals = [stream.statistics for stream in self._streams]
        return Statistics(
            self._last,
            sum(total.total_bytes_received for total in totals),
            sum(total.messages_received for total in totals),
        )

    def receive(self, handler: Receive | None = None, block: bool = True) -> Message | None:
        """Receive the next message; see `ndstream.Stream.receive`.

        Returns
        -------
        Message or None
            None when nothing arrived in time in any of the streams.

        Raises
        ------
        MessageError, NotAuthenticated, ConnectionLost
            As of a stream; messages of the others are not lost.
        """
        links = [stream.link for stream in self._streams]

        def take(index: int) -> Any:
            if links[index].closing:
                raise not_connected()
            return links[index].take(handler, block)

        deadline = Deadline(self._timeout)
        while True:
            message = self._strategy.choose(len(links), take, last=False)
            if message is NOTHING and block and not wait_any([link.channel for link in links], deadline.left()):
                message = self._strategy.choose(len(links), take, last=True)
                message = None if message is NOTHING else message
            if message is not NOTHING or not block:
                break
        if message is NOTHING or message is None:
            return None
        self._last = message.statistics.bytes_received
        found: Message = message
        return found

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive()) is not None:
            yield message

    def disconnect(self) -> None:
        """Close all streams."""
        for stream in self._streams:
            stream.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
