"""Arrays in flight: what a message of a stream is once it is decoded, and what a codec is.

::

    frames ─ wire.multipart.Codecs.decode ─ Packet ─ …          data ─ Codecs.encode ─ frames

A message is a sequence of *frames*, the parts that travel together. Part 0 says what it is: a JSON object with the key
``htype``, or, alone, a CBOR map (`STREAM2`). The codec of that htype is found in the group ``ndstream.codecs`` of
`ndstream.core.registry`; what is found there is a `CodecFactory`, and a stream makes one codec of it, for all the
htypes that it is registered by. So a codec may remember what one stream told it before, and nothing else.

What a message holds is its `Packet.data`, in the form that users of the original tools know: a dict with ``header``
and more (protocols/htype/SPEC.md, "What a message becomes"). Large parts are never copied: arrays are views of the
frames, writable if these are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import msgspec
import numpy as np

from ndstream.core.counters import Counters
from ndstream.core.limits import DEFAULT_LIMITS, Limits

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview has one axis and format "B"."""

Encoding: TypeAlias = Literal["none", "lz4", "lz4-hdf5", "bslz4", "bszstd"]
"""How the payload of an `Image` is made."""

STREAM2 = "stream2"
"""Name of the codec of messages whose first byte begins a CBOR map: they have no htype of their own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """An array of a message, as it came: perhaps still compressed.

    `ndstream.wire.compression.unpack` makes the array of it.

    Attributes
    ----------
    payload : buffer
        View of the part; framing in front of it belongs to it.
    encoding : str
        How the payload is made: ``"none"``; ``"lz4"``, one raw LZ4 block; ``"lz4-hdf5"``, ``"bslz4"`` and
        ``"bszstd"``, as the HDF5 filters LZ4 and bitshuffle store a chunk.
    shape : tuple of int
        Slowest axis first, whatever the order on the wire.
    dtype : dtype
        With its byte order.
    element : int, bytes
        Size of what was bit-shuffled; that of the dtype, if not said otherwise.
    """

    payload: Buffer
    encoding: Encoding
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    element: int = 0


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message stands in its sequence, for `ndstream.core.gaps.Gaps`.

    `counter` names what is counted (``frame``, ``pulse_id``, ``image_id``), `series` what it is counted in; `number`
    is None for a message that begins or ends a series. `expected` is the number of messages that the series is going
    to have, where it says so.
    """

    counter: str
    number: int | None = None
    series: Hashable = None
    event: Literal["item", "start", "end"] = "item"
    expected: int | None = None


class Packet(msgspec.Struct, eq=False):
    """A decoded message.

    Attributes
    ----------
    data : object
        What it holds: a dict with the key ``header``, or an object with that attribute.
    frames : sequence of buffers
        The message as it came.
    codec : Codec
        What decoded it.
    """

    data: Any
    frames: Sequence[Buffer]
    codec: Codec

    @property
    def header(self) -> dict[str, Any]:
        """Part 0, decoded; of a message in CBOR, what it says about itself."""
        header: dict[str, Any] = self.data["header"] if isinstance(self.data, dict) else self.data.header
        return header

    @property
    def htype(self) -> str:
        """By which its codec was found."""
        htype: str = self.header["htype"]
        return htype

    @property
    def images(self) -> dict[str, Image]:
        """Arrays of the message by name, as they came; made anew at each call, without copying.

        Raises
        ------
        MessageError
            What describes them makes no sense.
        """
        return self.codec.images(self.data)

    @property
    def values(self) -> dict[str, Any]:
        """What the message says beside its arrays, by name: how a series is taken, or when an image was.

        Scalars of numpy, numbers, text, times, and lists and maps of such.
        """
        return self.codec.values(self.data)

    @property
    def position(self) -> Position | None:
        """Where the message stands in its sequence; None when it does not say, or not in a way that can be used."""
        return self.codec.position(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the messages of one stream are decoded.

    Attributes
    ----------
    limits : Limits
        Those called ``message_…`` hold.
    counters : Counters
        Where codecs count what they could not decode in messages that are good otherwise.
    compressed : bool
        Whether arrays that came compressed stay so: then there is an `Image` where an array would be.
    """

    limits: Limits = DEFAULT_LIMITS
    counters: Counters = field(default_factory=Counters)
    compressed: bool = False


class Codec(Protocol):
    """What decodes and encodes the messages of one or more htypes, for one stream.

    Its methods are functions of their arguments, opening nothing and waiting for nothing, but for what `decode` may
    remember of earlier messages of the stream. Codecs that subclass this may leave out all but these two.

    Attributes
    ----------
    counter : str or None
        Key of the header that numbers the messages, when it alone says where they stand: `position` need not be asked.
    """

    counter: ClassVar[str | None] = None

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> Any:
        """Make the data of a message.

        Parameters
        ----------
        header : dict
            Part 0, decoded; it belongs to the message from now on. Of CBOR only ``{"htype": STREAM2}``.
        frames : sequence of buffers
            All parts, the first included; their number and sizes are within the limits.

        Raises
        ------
        MessageError
            It cannot be decoded; the parts are added by whoever called.
        """
        ...

    def encode(self, data: Any) -> list[Buffer]:
        """Make the parts of a message; large ones are views of the memory of what is in `data`.

        Raises
        ------
        MessageError
            It would be no message of its htype. Nothing was sent.
        """
        ...

    def images(self, data: Any) -> dict[str, Image]:
        """Arrays in what `decode` returned; see `Packet.images`."""
        return {}

    def values(self, data: Any) -> dict[str, Any]:
        """What `decode` returned says beside its arrays; see `Packet.values`. Never raises."""
        return {}

    def position(self, data: Any) -> Position | None:
        """Where what `decode` returned stands in its sequence; see `Packet.position`. Never raises."""
        return None


CodecFactory: TypeAlias = Callable[[Decoding], Codec]
"""What an entry point of the group ``ndstream.codecs`` leads to; the name of the entry point is the htype."""
