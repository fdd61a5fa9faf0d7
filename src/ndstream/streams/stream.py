"""The synchronous stream, and `connect`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.modes import CONNECT, Mode, Policy
from ndstream.core.packets import Buffer
from ndstream.errors import InvalidRequest
from ndstream.streams.base import BaseStream
from ndstream.streams.handlers import Receive, Send, part_of, raw
from ndstream.streams.intake import OnError, OnGap
from ndstream.streams.link import NOTHING, Deadline, Link, not_connected
from ndstream.streams.messages import Message
from ndstream.streams.sending import HELD, Sent
from ndstream.streams.settings import Additions, Topics, seconds
from ndstream.transports.zmq.channel import Context
from ndstream.transports.zmq.keys import Key
from ndstream.transports.zmq.monitor import no_clients_timeout_notifier


class Stream(BaseStream):
    """Receives or sends messages.

    `ndstream.connect` opens one. It is a context manager, and iterating over it gives messages until none comes
    within `receive_timeout`.

    Notes
    -----
    A stream belongs to one thread at a time; only `disconnect` may be called from any, and ends what another thread
    waits for. After a fork the child opens streams of its own.
    """

    # -- opening and closing --

    def connect(
        self,
        address: str,
        conn_type: str = CONNECT,
        mode: int = Mode.PULL,
        receive_timeout: float | None = None,
        queue_size: int = 100,
        linger: int = 1000,
        context: Context | None = None,
        copy: bool = True,
        send_timeout: float | None = None,
        **additions: Unpack[Additions],
    ) -> Self:
        """Open a stream; see `ndstream.connect`.

        Parameters
        ----------
        context : zmq.Context, optional
            Shared with other sockets; it is not ended with the stream, and closing does not wait.
        **additions
            What `ndstream.connect` takes beside: ``topics``, ``policy``, ``on_error`` and so on.
        """
        self.disconnect()
        self._open(
            address,
            conn_type,
            mode,
            receive_timeout=receive_timeout,
            queue_size=queue_size,
            linger=linger,
            context=context,
            copy=copy,
            send_timeout=send_timeout,
            **additions,
        )
        return self

    def disconnect(self, linger: int | None = None) -> None:
        """Close; harmless when the stream is not open. Any thread may call this.

        Parameters
        ----------
        linger : int, milliseconds, optional
            How long to wait for what was accepted and not yet sent, in place of what `connect` was told; -1 waits for
            ever. What could not be handed over by then is counted in ``statistics.undelivered`` or ``.uncertain``.
        """
        link = self._link
        if link is None or link.closing:
            return
        link.closing = True
        link.channel.wake()
        with link.lock:
            self._link = None
            link.close(link.settings.linger if linger is None else linger, link.channel.wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    # -- receiving --

    def receive(self, handler: Receive | None = None, block: bool = True) -> Message | None:
        """Receive a message.

        Parameters
        ----------
        handler : callable, optional
            Decodes it, whatever its htype: called with a `ReceiveHandler`, returns the data.
        block : bool
            Wait for one, `receive_timeout` at most; else take what is there.

        Returns
        -------
        Message or None
            None when nothing arrived in time; with ``on_error="none"`` also when it could not be decoded.

        Raises
        ------
        BadHeader, UnknownHtype, MissingPart, DecodeError
            It cannot be decoded, and `on_error` is ``"raise"``. The error has its ``parts``; the stream goes on.
        NotAuthenticated
            The other end refuses, or is not the one whose key was given.
        ConnectionLost
            The stream is not open, or was closed by another thread.
        InvalidRequest
            It sends.
        """
        link = self._link
        if link is None or link.sends:
            link = self._receiver()
        with link.lock:
            if link.closing:
                raise not_connected()
            if block:
                begin = time.monotonic()
                found: Any = link.take(handler, True, link.patient)
                if found is NOTHING:
                    found = link.wait(handler, Deadline(link.settings.receive_timeout, begin))
                    if found is NOTHING and link.closing:
                        raise not_connected()
            else:
                found = link.take(handler, False)
                if found is NOTHING:
                    link.channel.check()
            return None if found is NOTHING else found

    def receive_raw(self, block: bool = True) -> Message | None:
        """Receive a message of any htype, its parts as they are.

        Returns
        -------
        Message or None
            Its data is ``{"header", "data": [bytes, …]}``; a header that is no JSON stays bytes.
        """
        return self.receive(raw, block)

    def __iter__(self) -> Iterator[Message]:
        while self.connected:
            message = self.receive()
            if message is None:
                return
            yield message

    # -- sending --

    def send(self, message: Any, send_more: bool = False, block: bool = True, as_json: bool = False) -> Sent:
        """Send one part.

        Parts are held until the last of a message, which is then sent whole; when one cannot be made, or the message
        cannot be sent, all of it is forgotten, and the next one begins anew.

        Parameters
        ----------
        message : bytes-like or str, anything that JSON knows when `as_json`
        send_more : bool
            More parts of this message will follow.
        block : bool
            Wait for room, `send_timeout` at most; else the message is dropped when there is none.
        as_json : bool

        Returns
        -------
        Sent
            True unless the message was dropped.

        Raises
        ------
        TimedOut
            There was no room in time; nothing was sent.
        NotAuthenticated, ConnectionLost, BadHeader
        InvalidRequest
            The stream receives, or the part is no bytes.
        """
        link = self._sender()
        with link.lock:
            parts = link.sending.add(lambda: part_of(message, as_json), send_more)
            return HELD if parts is None else self._send(link, parts, block)

    def send_parts(self, parts: Iterable[Any], block: bool = True) -> Sent:
        """Send a message that is made already, whole.

        Parameters
        ----------
        parts : iterable of bytes-like or str
            At least one.
        block : bool
            As in `send`.

        Returns
        -------
        Sent

        Raises
        ------
        TimedOut, NotAuthenticated, ConnectionLost, InvalidRequest
        """
        made = [part_of(part) for part in parts]
        if not made:
            raise InvalidRequest("a message has at least one part")
        link = self._sender()
        with link.lock:
            return self._send(link, made, block)

    def forward(self, message_data: Any, handler: Send | None = None, block: bool = True) -> Sent:
        """Send a message by its data, or as it was received.

        Parameters
        ----------
        message_data : dict or Message
            The data of a message, with the key ``header``: encoded by its htype. A `Message` is sent byte by byte as
            it came.
        handler : callable, optional
            Encodes the data; see `ndstream.streams.handlers.Send`.
        block : bool
            As in `send`.

        Returns
        -------
        Sent

        Raises
        ------
        UnknownHtype
            There is no htype, or none that is known. This is a `KeyError`.
        MessageError
            The data do not make a message; nothing was sent.
        TimedOut, NotAuthenticated, ConnectionLost, InvalidRequest
        """
        link = self._sender()
        with link.lock:
            return self._send(link, link.encode(message_data, handler, block), block)

    def _send(self, link: Link, parts: list[Buffer], block: bool) -> Sent:
        if link.closing:
            raise not_connected()
        if (sent := link.offer(parts, block)) is not None:
            return sent
        deadline = Deadline(link.settings.send_timeout)
        while link.channel.wait(deadline.left()):
            if (sent := link.offer(parts, block)) is not None:
                return sent
        raise link.too_slow()

    def flush(self, timeout: float | None = None) -> bool:
        """Send what waits in the queue of the policy ``"drop-oldest"``.

        Parameters
        ----------
        timeout : float, milliseconds, optional
            How long to wait at most.

        Returns
        -------
        bool
            Whether nothing is left there.
        """
        link = self._sender()
        with link.lock:
            deadline = Deadline(seconds(timeout))
            while not link.sending.pump():
                if not link.channel.wait(deadline.left()):
                    return False
            return True


def connect(
    address: str,
    conn_type: str = CONNECT,
    mode: int = Mode.PULL,
    *,
    receive_timeout: float | None = None,
    queue_size: int = 100,
    linger: int = 1000,
    no_client_action: Callable[[], object] | None = None,
    no_client_timeout: float = 10,
    copy: bool = True,
    send_timeout: float | None = None,
    context: Context | None = None,
    topics: Topics = "",
    policy: Policy | None = None,
    on_error: OnError = "raise",
    on_gap: OnGap | None = None,
    compressed: bool = False,
    key: str | os.PathLike[str] | None = None,
    server_key: Key | None = None,
    allowed_keys: Iterable[Key] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Stream:
    """Open a message stream over ZeroMQ.

    Parameters
    ----------
    address : str
        ``tcp://host:port``, ``ipc://path`` or ``inproc://name``. Bound to port ``*`` or 0 it takes a free one, which
        is in `Stream.address`.
    conn_type : "connect" or "bind"
    mode : PULL, SUB, PUSH or PUB
        What this end does: the first two receive, the others send.
    receive_timeout, send_timeout : float, milliseconds, optional
        How long `receive` and `send` wait; None and -1 wait for ever, 0 does not wait.
    queue_size : int, messages
        That wait at this end for each peer, when it is slow; 0 is without limit.
    linger : int, milliseconds
        How long closing waits for what was accepted and not yet sent; -1 waits for ever.
    no_client_action : callable, optional
        Called in another thread when nobody was connected for `no_client_timeout`, and again each such time.
    no_client_timeout : float, seconds
    copy : bool
        Whether messages are copied when they come, and arrays are read-only; else arrays are writable, in the memory
        of ZeroMQ. When sending: whether the memory may be changed at once; else long parts are sent from where they
        are, and `Sent.tracker` tells when they were.
    context : zmq.Context, optional
        Shared with other sockets; needed for ``inproc``.
    topics : str, bytes or several
        Beginnings of the messages that a SUB takes; all, by default.
    policy : "block", "drop-newest" or "drop-oldest", optional
        What a sender does when the queue is full. ``"block"``, the default of PUSH, waits. ``"drop-newest"``, the
        default of PUB, drops the message; a PUB leaves out the peers that have no room until they have caught up.
        ``"drop-oldest"`` has a queue of its own, of `queue_size` messages and ``limits.stream_queue`` bytes, and drops
        what has waited longest there; it is emptied whenever something is sent, by `Stream.flush`, and at the end.
        What is dropped is counted.
    on_error : "raise", "skip", "none" or callable
        What `receive` does with a message that cannot be decoded; it is counted in any case. ``"raise"``: raise what
        is wrong. ``"skip"``: wait for the next. ``"none"``: return None. A callable is called with the error, then the
        next is waited for.
    on_gap : callable, optional
        Called with a `ndstream.core.gaps.Irregularity` when the number of a message (frame, pulse, image) is not the
        one that was to come. The message is received all the same.
    compressed : bool
        Whether arrays that come compressed stay so.
    key : path, optional
        File with the secret key of this end (``ndstream keygen``): messages are encrypted.
    server_key : str, bytes or path, optional
        Public key of the other end, which has to prove that it has the secret one.
    allowed_keys : iterable, optional
        Public keys, or directories of them, of those who may connect to this end, which has a `key`.
    limits : Limits, optional
        Those called ``message_…`` and ``stream_…`` hold; a peer that sends longer parts is cut off.

    Returns
    -------
    Stream

    Raises
    ------
    EndpointFailed
        The address cannot be used. This is a `RuntimeError`.
    InvalidRequest, ConfigError, MissingExtra

    Examples
    --------
    >>> import ndstream
    >>> with ndstream.connect("tcp://127.0.0.1:9999") as stream:  # doctest: +SKIP
    ...     for message in stream:
    ...         print(message.data["header"], message.statistics.messages_received)
    """
    stream = Stream()
    if no_client_action is not None:
        stream.register_socket_monitor(no_clients_timeout_notifier(no_client_action, no_client_timeout))
    return stream.connect(
        address,
        conn_type,
        mode,
        receive_timeout,
        queue_size,
        linger,
        context,
        copy,
        send_timeout,
        topics=topics,
        policy=policy,
        on_error=on_error,
        on_gap=on_gap,
        compressed=compressed,
        key=key,
        server_key=server_key,
        allowed_keys=allowed_keys,
        limits=limits,
    )


def disconnect(stream: Stream) -> None:
    """Close a stream; see `Stream.disconnect`."""
    stream.disconnect()
