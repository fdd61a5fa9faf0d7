"""What is the same of synchronous and asynchronous streams: handlers, monitors, and what may be asked of which mode."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Unpack

from ndstream.errors import InvalidRequest
from ndstream.streams.handlers import Receive
from ndstream.streams.link import Link, not_connected
from ndstream.streams.messages import Totals
from ndstream.streams.settings import Choices, Settings
from ndstream.transports.zmq.monitor import Monitor


class BaseStream:
    """A stream, open or not.

    Attributes
    ----------
    statistics : Totals
        What was counted so far. What had been counted when a message came is in the message.
    """

    def __init__(self) -> None:
        self.statistics = Totals()
        self._link: Link | None = None
        self._handlers: MutableMapping[str, Receive] = {}
        self._monitors: list[Monitor] = []

    @property
    def address(self) -> str:
        """Address to connect to; of a stream that is bound, with the port that was found.

        Raises
        ------
        ConnectionLost
            The stream is not open.
        """
        return self.link.channel.address

    @property
    def connected(self) -> bool:
        """Whether the stream is open."""
        return self._link is not None and not self._link.closing

    @property
    def peers(self) -> int:
        """Peers that are connected; of a PUB opened with ``count_subscribers=True``, subscriptions.

        Raises
        ------
        ConnectionLost
            The stream is not open.
        NotAuthenticated
            The other end refuses, or is not the one whose key was given.
        """
        channel = self.link.channel
        channel.check()
        return channel.subscribers() if channel.counts_subscribers else len(channel.watch.peers)

    def wake(self) -> None:
        """End what the stream waits for, or will wait for next, as if the time were over; for signal handlers."""
        if self._link is not None:
            self._link.channel.wake()

    @property
    def receive_timeout(self) -> float | None:
        """Seconds that `receive` waits; None is without end.

        Raises
        ------
        ConnectionLost
            The stream is not open.
        """
        return self.link.settings.receive_timeout

    @property
    def handlers(self) -> MutableMapping[str, Receive]:
        """Functions that decode messages of this stream, by htype: ``stream.handlers["my-1.0"] = function``."""
        return self._handlers

    @handlers.setter
    def handlers(self, handlers: MutableMapping[str, Receive]) -> None:
        self._handlers = handlers
        if self._link is not None:
            self._link.intake.handlers = handlers

    def register_socket_monitor(self, monitor: Monitor) -> None:
        """Have a function called, in a thread, with every event of the connections, and now and then with None.

        It is called from now on, or as soon as the stream is open. Registering it again changes nothing. When it
        raises, that is logged, and it is called again the next time. It may `disconnect` the stream.
        """
        if monitor in self._monitors:
            return
        self._monitors.append(monitor)
        if self._link is not None:
            self._link.channel.listen(monitor)

    def remove_socket_monitor(self, monitor: Monitor) -> None:
        """Have it called no more; harmless when it is not registered."""
        if monitor in self._monitors:
            self._monitors.remove(monitor)
            if self._link is not None:
                self._link.channel.watch.remove(monitor)

    # -- for the two kinds of stream --

    def _open(self, address: str, conn_type: str, mode: int, **choices: Unpack[Choices]) -> None:
        settings = Settings.of(address, conn_type, mode, **choices)
        self._link = link = Link(settings, self._handlers, self.statistics)
        for monitor in self._monitors:
            link.channel.listen(monitor)

    @property
    def link(self) -> Link:
        """What does the work, for other modules of this package.

        Raises
        ------
        ConnectionLost
            The stream is not open.
        """
        if self._link is None:
            raise not_connected()
        return self._link

    def _receiver(self) -> Link:
        link = self.link
        if link.sends:
            raise InvalidRequest(f"a stream of mode {link.settings.mode.name} sends, and does not receive")
        return link

    def _sender(self) -> Link:
        link = self.link
        if not link.sends:
            raise InvalidRequest(f"a stream of mode {link.settings.mode.name} receives, and does not send")
        return link
