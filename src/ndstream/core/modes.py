"""How the end of a message stream is opened: what it does, and who waits for whom."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal, TypeAlias


class Mode(IntEnum):
    """What one end of a stream does; the numbers are those of ZeroMQ.

    PUSH gives each message to one of its PULL peers, PUB to every SUB peer that wants it.
    """

    PUB = 1
    SUB = 2
    PULL = 7
    PUSH = 8

    @property
    def sends(self) -> bool:
        """Whether messages leave here."""
        return self in (Mode.PUB, Mode.PUSH)


PUB: Final = Mode.PUB
SUB: Final = Mode.SUB
PUSH: Final = Mode.PUSH
PULL: Final = Mode.PULL

CONNECT: Final = "connect"
BIND: Final = "bind"

Policy: TypeAlias = Literal["block", "drop-newest", "drop-oldest"]
"""What a sender does when its peers are slow and the queue is full."""
