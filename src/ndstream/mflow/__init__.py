"""The names of mflow, for programs that were written for it: ``from ndstream import mflow`` in place of its import.

What `ndstream.connect` does better and would surprise such programs is as in the original here: positional arguments in
its order, time-outs of 0 that wait for ever, and None from `Stream.receive` for messages that cannot be decoded; these
are counted all the same (``stream.statistics``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, Unpack

from ndstream.core.modes import BIND, CONNECT, PUB, PULL, PUSH, SUB
from ndstream.mflow import utils
from ndstream.streams.handlers import ReceiveHandler, receive_handlers, send_handlers
from ndstream.streams.messages import Message, Statistics
from ndstream.streams.settings import Additions
from ndstream.streams.stream import Stream as _Stream
from ndstream.transports.zmq.channel import Context
from ndstream.transports.zmq.monitor import no_clients_timeout_notifier

__all__ = [
    "BIND",
    "CONNECT",
    "PUB",
    "PULL",
    "PUSH",
    "SUB",
    "Message",
    "ReceiveHandler",
    "Statistics",
    "Stream",
    "connect",
    "disconnect",
    "receive_handlers",
    "send_handlers",
    "utils",
]


class Stream(_Stream):
    """A stream with the defaults of the original; see `ndstream.Stream`."""

    def connect(
        self,
        address: str,
        conn_type: str = CONNECT,
        mode: int = PULL,
        receive_timeout: float | None = None,
        queue_size: int = 100,
        linger: int = 1000,
        context: Context | None = None,
        copy: bool = True,
        send_timeout: float | None = None,
        **additions: Unpack[Additions],
    ) -> Self:
        """Open the stream; see `ndstream.connect`. Time-outs of 0 are without end, as None."""
        additions.setdefault("on_error", "none")
        return super().connect(
            address,
            conn_type,
            mode,
            receive_timeout or None,
            queue_size,
            linger,
            context,
            copy,
            send_timeout or None,
            **additions,
        )


def connect(
    address: str,
    conn_type: str = CONNECT,
    mode: int = PULL,
    queue_size: int = 100,
    receive_timeout: float | None = None,
    linger: int = 1000,
    no_client_action: Callable[[], object] | None = None,
    no_client_timeout: float = 10,
    copy: bool = True,
    send_timeout: float | None = None,
) -> Stream:
    """Open a stream with the defaults of the original; see `ndstream.connect`."""
    stream = Stream()
    if no_client_action is not None:
        stream.register_socket_monitor(no_clients_timeout_notifier(no_client_action, no_client_timeout))
    return stream.connect(
        address,
        conn_type,
        mode,
        receive_timeout=receive_timeout,
        queue_size=queue_size,
        linger=linger,
        copy=copy,
        send_timeout=send_timeout,
    )


def disconnect(stream: Stream) -> None:
    """Close a stream."""
    stream.disconnect()
