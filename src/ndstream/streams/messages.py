"""What a receiver hands out: messages, with what was counted until then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from numpy.typing import NDArray

from ndstream.core.gaps import Gaps
from ndstream.core.packets import Buffer, Image, Packet, Position
from ndstream.wire.compression import unpack


class Statistics(msgspec.Struct, frozen=True, gc=False):
    """What was received when a message came; it does not change any more.

    Attributes
    ----------
    bytes_received : int
        Lengths of all parts of this message.
    total_bytes_received, messages_received : int
        Of the stream until then, this message included, without messages that could not be decoded.
    """

    bytes_received: int = 0
    total_bytes_received: int = 0
    messages_received: int = 0


class Message(msgspec.Struct, frozen=True, eq=False):
    """A message that was received.

    Attributes
    ----------
    statistics : Statistics
    data : object
        What the codec or a handler made of it, mostly a dict with the key ``header``.
    packet : Packet
        The same with its parts, as they came.
    """

    statistics: Statistics
    data: Any
    packet: Packet

    @property
    def frames(self) -> Sequence[Buffer]:
        """Parts, as they came."""
        return self.packet.frames

    @property
    def header(self) -> dict[str, Any]:
        """Part 0, decoded."""
        return self.packet.header

    @property
    def htype(self) -> str:
        """What the message says that it is."""
        return self.packet.htype

    @property
    def images(self) -> dict[str, Image]:
        """Arrays by name, perhaps still compressed; see `ndstream.core.packets.Packet.images`.

        Raises
        ------
        MessageError
            What describes them makes no sense.
        """
        return self.packet.images

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by name, decompressed at each call; what was not compressed is a view of the parts.

        Of an Eiger image, whose ``data["part_3_raw"]`` is the payload as it came, the array is ``arrays["image"]``.

        Raises
        ------
        MessageError
            What describes them makes no sense, or they do not decode to what it describes.
        MissingExtra
            The package that decompresses them is not installed.
        """
        return {name: unpack(image) for name, image in self.packet.images.items()}

    @property
    def position(self) -> Position | None:
        """Where the message stands in its sequence; None when it does not say."""
        return self.packet.position


class Totals:
    """What a stream counted since it was opened; these figures go on changing.

    Attributes
    ----------
    messages_received, total_bytes_received : int
        Messages that were decoded, and the lengths of their parts.
    messages_failed, bytes_failed : dict of str to int
        Those that were not, by the code of the error (`ndstream.errors`).
    sequence : Gaps
        Account of the numbers that messages have: frames, pulses, images; with details of each series.
    messages_sent, bytes_sent : int
        Messages that were accepted to be sent.
    messages_dropped : dict of str to int
        Those that were not, or were forgotten, by cause: ``"full"``, the queue was full; ``"oldest"``, it had waited
        longest in a full queue; ``"unfinished"``, closing or a failure came before the last part; ``"slow"``, of a
        PUB: a peer had no room, and is left out from this message on until it has caught up. How much it misses until
        then only the peer can tell.
    undelivered : int
        Accepted messages that are known not to have been handed over when the stream was closed.
    uncertain : int
        Accepted messages, at most, of which that is not known.
    """

    __slots__ = (
        "bytes_failed",
        "bytes_sent",
        "messages_dropped",
        "messages_failed",
        "messages_received",
        "messages_sent",
        "sequence",
        "total_bytes_received",
        "uncertain",
        "undelivered",
    )

    def __init__(self) -> None:
        self.messages_received = self.total_bytes_received = 0
        self.messages_failed: dict[str, int] = {}
        self.bytes_failed: dict[str, int] = {}
        self.sequence = Gaps()
        self.messages_sent = self.bytes_sent = 0
        self.messages_dropped: dict[str, int] = {}
        self.undelivered = self.uncertain = 0

    def failed(self, cause: str, nbytes: int) -> None:
        """Count a message that could not be decoded."""
        self.messages_failed[cause] = self.messages_failed.get(cause, 0) + 1
        self.bytes_failed[cause] = self.bytes_failed.get(cause, 0) + nbytes

    def dropped(self, cause: str) -> None:
        """Count a message that was not sent."""
        self.messages_dropped[cause] = self.messages_dropped.get(cause, 0) + 1

    @property
    def gaps(self) -> int:
        """How often numbers were left out."""
        return self.sequence.gaps

    @property
    def missing(self) -> int:
        """Messages whose numbers did not come, until now."""
        return self.sequence.missing

    @property
    def repeats(self) -> int:
        """How often a number came again."""
        return self.sequence.repeats

    @property
    def reversals(self) -> int:
        """How often a number was lower than one before."""
        return self.sequence.reversals

    def as_dict(self) -> dict[str, Any]:
        """All figures by name, as they are now."""
        found = {name: getattr(self, name) for name in (*self.__slots__, *_COUNTED) if name != "sequence"}
        return {name: dict(value) if isinstance(value, dict) else value for name, value in found.items()}


_COUNTED = ("gaps", "missing", "repeats", "reversals")
