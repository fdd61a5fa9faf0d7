"""bsr_m-1.0 and bsr_m-1.1: values of many channels that belong to one pulse.

Source: SPEC.md, "bsread".
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ndstream.core.limits import Limits
from ndstream.core.packets import Buffer, Codec, Decoding, Image, Position
from ndstream.errors import BadHeader, DecodeError, MissingPart
from ndstream.protocols.htype.channels import (
    STAMPS,
    Reader,
    channel_of,
    compressed,
    decompressed,
    describe,
    image,
    read_channels,
    reader,
    sendable,
    write,
)
from ndstream.protocols.htype.messages import BsreadMessage, Channel, Value, whole_number
from ndstream.wire.multipart import decode_header, encode_header

_log = logging.getLogger(__name__)
#: Data headers that are remembered; more than one is in use when several senders push to one receiver.
_LAYOUTS = 16
#: Channels that are counted by name; further ones, which only hostile senders have, share one total.
_NAMED = 10_000


class _Layout:
    """A data header, ready to read the messages that have it."""

    __slots__ = ("channels", "readers")

    def __init__(self, channels: tuple[Channel, ...], limits: Limits, *, compact: bool) -> None:
        self.channels = channels
        self.readers: list[tuple[str, Reader, struct.Struct]] = []
        for channel in channels:
            stamps = STAMPS.get(channel.encoding, STAMPS["little"])
            self.readers.append((channel.name, reader(channel, limits, compressed=compact), stamps))


class BsreadCodec(Codec):
    """Makes a `BsreadMessage` of a message, and back; remembers the last data headers of the stream by their hash.

    Values that cannot be decoded are None, and counted as ``undecodable_values`` by channel.
    """

    def __init__(self, options: Decoding) -> None:
        self._options = options
        self._layouts: dict[tuple[str, str, int], _Layout] = {}
        self._channels_before: tuple[Channel, ...] | None = None
        self._named: set[str] = set()
        self._sent: tuple[tuple[bytes, str], tuple[Buffer, str]] | None = None

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> BsreadMessage:
        """Decode the values of all channels; arrays are in the memory of the parts unless they were compressed.

        Raises
        ------
        BadHeader
            ``pulse_id`` or ``global_timestamp`` is missing or has no sense, or the data header is none.
        DecodeError
            The data header cannot be decompressed.
        MissingPart
            There are fewer values than channels.
        """
        pulse_id, (seconds, nanoseconds) = whole_number(header.get("pulse_id")), _global(header)
        if pulse_id is None:
            raise BadHeader("the header has no whole number as pulse_id")
        if len(frames) < 2:
            raise MissingPart("a message without a data header")
        layout = self._layout(header, frames[1])
        if len(frames) < 2 + 2 * len(layout.readers):
            raise MissingPart(
                f"{len(frames) - 2} parts for the values of {len(layout.readers)} channels; 2 belong to each"
            )
        data: dict[str, Value] = {}
        at = 2
        for name, read, stamps in layout.readers:
            part, stamp = frames[at], frames[at + 1]
            at += 2
            try:
                if len(stamp):
                    times = stamps.unpack(stamp)
                elif not len(part):
                    data[name] = Value()
                    continue
                else:
                    times = None, None
                data[name] = Value(None, *times)
                data[name].value = read(part)
            except (DecodeError, struct.error) as error:
                data.setdefault(name, Value())
                self._count(name, error)
        changed = layout.channels != self._channels_before
        self._channels_before = layout.channels
        return BsreadMessage(
            data=data,
            pulse_id=pulse_id,
            global_timestamp=seconds,
            global_timestamp_offset=nanoseconds,
            hash=header.get("hash"),
            format_changed=changed,
            header=header,
            channels=layout.channels,
            frames=frames,
        )

    def _layout(self, header: dict[str, Any], part: Buffer) -> _Layout:
        compression, hashed = str(header.get("dh_compression") or "none").lower(), header.get("hash")
        key = (hashed, compression, len(part)) if isinstance(hashed, str) else None
        if key is not None and key in self._layouts:
            return self._layouts[key]
        limits = self._options.limits
        channels = read_channels(decode_header(decompressed(part, compression, limits.message_header), limits), limits)
        layout = _Layout(channels, limits, compact=self._options.compressed)
        # Only now that it was understood: a bad one must not be found again by its hash.
        if key is not None:
            self._layouts[key] = layout
            if len(self._layouts) > _LAYOUTS:
                del self._layouts[next(iter(self._layouts))]
        return layout

    def _count(self, name: str, error: Exception) -> None:
        if name not in self._named and len(self._named) < _NAMED:
            self._named.add(name)
            _log.warning("values of the channel %s cannot be decoded: %s", name, error)
        self._options.counters.add("undecodable_values", label=name if name in self._named else "")

    def encode(self, data: Any) -> list[Buffer]:
        """Make the parts: those as which the message came, or new ones.

        Parameters
        ----------
        data : BsreadMessage
            ``dh_compression`` in its header is how the data header is compressed. Channels that its `channels` do not
            describe are described by their values. LZ4 is sent little-endian only.

        Raises
        ------
        BadHeader
            A value is not what its channel says, or of a type that bsread does not have.
        """
        if not isinstance(data, BsreadMessage):
            raise BadHeader(f"a message of bsread is a BsreadMessage, not {type(data).__name__}")
        if data.frames:
            return list(data.frames)
        channels = self._channels(data)
        values: list[Buffer] = []
        now = data.global_timestamp, data.global_timestamp_offset
        for channel in channels:
            value = data.data.get(channel.name, Value())
            if value.value is None:
                values += [b"", b""]
            else:
                times = (value.timestamp, value.timestamp_offset or 0) if value.timestamp is not None else now
                values += [write(channel, value.value), _stamp(channel, *times)]
        described = {
            "htype": str(data.header["htype"]).replace("bsr_m", "bsr_d"),
            "channels": [*map(describe, channels)],
        }
        compression = str(data.header.get("dh_compression") or "none")
        part, hashed = self._hashed(encode_header(described), compression)
        header = data.header | {
            "pulse_id": data.pulse_id,
            "hash": hashed,
            "global_timestamp": {"sec": data.global_timestamp, "ns": data.global_timestamp_offset},
        }
        return [encode_header(header), part, *values]

    def _channels(self, data: BsreadMessage) -> list[Channel]:
        known = {channel.name for channel in data.channels}
        found = [channel_of(name, value.value) for name, value in data.data.items() if name not in known]
        return [sendable(channel) for channel in (*data.channels, *found)]

    def _hashed(self, described: bytes, compression: str) -> tuple[Buffer, str]:
        """Data header as sent, and its hash; made again only when it changes."""
        if self._sent is None or self._sent[0] != (described, compression):
            part = compressed(described, compression)
            hashed = hashlib.md5(part, usedforsecurity=False).hexdigest()
            self._sent = (described, compression), (part, hashed)
        return self._sent[1]

    def images(self, data: Any) -> dict[str, Image]:
        """Values that are arrays, by channel, as they came; scalars, text and what is missing are left out."""
        parts = data.frames[2::2] or [None] * len(data.channels)
        found: dict[str, Image] = {}
        for channel, part in zip(data.channels, parts, strict=False):
            value = data.data[channel.name].value if channel.name in data.data else None
            if isinstance(value, Image):
                found[channel.name] = value
            elif isinstance(value, np.ndarray) and part is not None:
                found[channel.name] = image(channel, part)
        return found

    def values(self, data: Any) -> dict[str, Any]:
        """Tell the values that are no arrays, by channel, and under ``timestamps`` when each was taken, in ns."""
        told: dict[str, Any] = {"global_timestamp": _nanoseconds(data.global_timestamp, data.global_timestamp_offset)}
        for name, value in data.data.items():
            if value.value is not None and not isinstance(value.value, np.ndarray | Image):
                told[name] = value.value
        stamped = {name: value for name, value in data.data.items() if value.timestamp is not None}
        told["timestamps"] = {
            name: _nanoseconds(value.timestamp, value.timestamp_offset) for name, value in stamped.items()
        }
        return told

    def position(self, data: Any) -> Position | None:
        """Say the pulse."""
        return Position(counter="pulse_id", number=data.pulse_id)


def _global(header: dict[str, Any]) -> tuple[int, int]:
    """Seconds and nanoseconds of the global timestamp; older senders call the seconds ``epoch``."""
    said = header.get("global_timestamp")
    if isinstance(said, dict):
        seconds, nanoseconds = whole_number(said.get("sec", said.get("epoch"))), whole_number(said.get("ns"))
        if seconds is not None and nanoseconds is not None:
            return seconds, nanoseconds
    raise BadHeader("the header has no global_timestamp with whole numbers as sec and ns")


def _nanoseconds(seconds: int | None, nanoseconds: int | None) -> int:
    return (seconds or 0) * 1_000_000_000 + (nanoseconds or 0)


def _stamp(channel: Channel, seconds: int, nanoseconds: int) -> bytes:
    try:
        return STAMPS[channel.encoding].pack(seconds, nanoseconds)
    except (struct.error, KeyError) as error:
        raise BadHeader(f"the channel {channel.name!r} has a wrong timestamp or encoding: {error}") from error
