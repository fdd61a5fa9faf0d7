"""When the kernel wakes who receives a long body: by itself it does so for every segment.

On a machine whose processors have other work, such as decoding what was received before, being woken for every 64 KiB
costs as much as receiving does. Linux can be told how much must have come first (SO_RCVLOWAT).
"""

from __future__ import annotations

import socket
import sys


class Waking:
    """How much must have come on a connection before its receiver is woken.

    Parameters
    ----------
    connection : socket
        Plain TCP, and read by nobody else.
    """

    __slots__ = ("_connection", "_least")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._least = 1

    def set(self, least: int) -> None:
        """Have the receiver woken when `least` bytes have come, or the end; 1 is how every connection begins.

        Nobody may wait for fewer bytes than that: they are not given out.
        """
        if least == self._least:
            return
        self._least = least
        option = socket.SOL_SOCKET, socket.SO_RCVLOWAT
        if least > 1:
            # The kernel makes its buffer as large as what it is told to wait for. With room for as much again the
            # peer never has to stop before that has come. Where memory is short, the kernel makes less of it.
            self._connection.setsockopt(*option, 2 * least)
            least = max(min(least, self._connection.getsockopt(*option) // 2), 1)
        self._connection.setsockopt(*option, least)


def waking(connection: object) -> Waking | None:
    """A `Waking` for a connection; None where there is nothing to be told so."""
    return Waking(connection) if sys.platform == "linux" and type(connection) is socket.socket else None
