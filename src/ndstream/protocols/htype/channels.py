"""Channels of bsread: what a data header says about them, and their values, to and from bytes.

Source: SPEC.md, "bsread".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import Limits
from ndstream.core.packets import Buffer, Encoding, Image
from ndstream.errors import BadHeader, DecodeError
from ndstream.protocols.htype.elements import checked_shape, view
from ndstream.protocols.htype.messages import Channel, whole_number
from ndstream.wire.buffers import bytes_of
from ndstream.wire.compression import pack, unpack

_TYPES = {name: name for name in ("bool", "float32", "float64")}
_TYPES |= {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
#: Names of old senders; a long has 32 bits, as in EPICS.
_TYPES |= {"double": "float64", "float": "float32", "short": "int16", "ushort": "uint16"}
_TYPES |= {"integer": "int32", "long": "int32", "ulong": "uint32"}
_COMPRESSIONS: dict[str, Encoding] = {"none": "none", "lz4": "lz4", "bitshuffle_lz4": "bslz4"}
_BYTE = np.dtype("u1")
_LZ4_SIZES = (struct.Struct("<I"), struct.Struct(">I"))
_TOTAL = struct.Struct(">Q")

STAMPS = {"little": struct.Struct("<QQ"), "big": struct.Struct(">QQ")}
"""Timestamps, seconds and nanoseconds, by the byte order of their channel."""

Reader = Callable[[Buffer], Any]
"""Makes a value of its part; raises DecodeError."""


def read_channels(header: dict[str, Any], limits: Limits) -> tuple[Channel, ...]:
    """Make channels of a data header; those without sense have a `Channel.problem`.

    Raises
    ------
    BadHeader
        It is no data header, or a channel has no name.
    """
    listed = header.get("channels")
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise BadHeader("a data header has no list of channels")
    return tuple(_read_channel(channel, limits) for channel in listed)


def _read_channel(said: Any, limits: Limits) -> Channel:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise BadHeader("a channel in the data header has no name")
    channel = Channel(
        name=said["name"],
        type=_word(said.get("type"), "float64"),
        encoding=_word(said.get("encoding"), "little"),
        compression=_word(said.get("compression"), "none"),
        modulo=whole_number(said.get("modulo")) or 1,
        offset=whole_number(said.get("offset")) or 0,
    )
    try:
        size = _dtype(channel).itemsize if channel.type != "string" else 1
        shape = checked_shape(said.get("shape", [1]), itemsize=size, most=limits.message_array)[::-1]
        if channel.compression not in _COMPRESSIONS:
            raise BadHeader(f"the compression {channel.compression!r} is unknown")
    except (BadHeader, DecodeError) as error:
        return replace(channel, problem=str(error))
    return replace(channel, shape=shape)


def _word(said: Any, default: str) -> str:
    return str(said or default)[:80].lower()


def _dtype(channel: Channel) -> np.dtype[Any]:
    if channel.type not in _TYPES:
        raise BadHeader(f"the type {channel.type!r} is unknown")
    if channel.encoding not in STAMPS:
        raise BadHeader(f"the encoding is {channel.encoding!r}; it can be 'little' or 'big'")
    return np.dtype(_TYPES[channel.type]).newbyteorder("<" if channel.encoding == "little" else ">")


def reader(channel: Channel, limits: Limits, *, compressed: bool = False) -> Reader:
    """Make what reads the values of a channel.

    Parameters
    ----------
    compressed : bool
        Whether values that came compressed are read as an `Image`; text never is.
    """
    if channel.problem:
        return _refuse(channel.problem)
    if channel.type == "string":
        return lambda part: _text(decompressed(part, channel.compression, limits.message_array))
    dtype, shape = _dtype(channel), channel.shape
    if channel.compression != "none":
        if compressed:
            return lambda part: image(channel, part)
        return lambda part: _scalar(unpack(image(channel, part)))
    if shape == (1,):
        return lambda part: view(part, shape, dtype)[0]
    return lambda part: view(part, shape, dtype)


def _refuse(problem: str) -> Reader:
    def refuse(_: Buffer) -> Any:
        raise DecodeError(problem)

    return refuse


def _text(part: Buffer) -> str:
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"text that is no UTF-8: {error}") from error


def _scalar(array: NDArray[Any]) -> Any:
    return array[0] if array.shape == (1,) else array


def image(channel: Channel, part: Buffer) -> Image:
    """View of the value of a channel with numbers, as it came.

    Raises
    ------
    DecodeError
        The size in front of an LZ4 block, in whatever byte order, is not that of the array.
    """
    dtype, kind = _dtype(channel), _COMPRESSIONS[channel.compression]
    if kind == "lz4":
        nbytes = prod(channel.shape) * dtype.itemsize
        if nbytes not in _lz4_sizes(part):
            raise DecodeError(f"LZ4 data that does not begin with its size, {nbytes} bytes")
        part = memoryview(part)[4:]
    return Image(payload=part, encoding=kind, shape=channel.shape, dtype=dtype)


def _lz4_sizes(part: Buffer) -> list[int]:
    """Sizes that may be in front of an LZ4 block: bsread writes little-endian, but reads the order of the channel."""
    if len(part) < 4:
        raise DecodeError("LZ4 data without its size in front")
    return [size.unpack_from(part)[0] for size in _LZ4_SIZES]


def decompressed(part: Buffer, compression: str, most: int) -> Buffer:
    """Bytes of which only the compression is known: text, and data headers.

    Raises
    ------
    DecodeError
        They cannot be decompressed, or become more than `most` bytes.
    """
    if compression == "none":
        return part
    if compression == "lz4":
        # In the order in which a size is likely: the smaller one, as the other is it with its bytes turned round.
        sizes, payload, kind = sorted(_lz4_sizes(part)), memoryview(part)[4:], _COMPRESSIONS["lz4"]
    elif compression == "bitshuffle_lz4" and len(part) >= _TOTAL.size:
        sizes, payload, kind = [_TOTAL.unpack_from(part)[0]], memoryview(part), _COMPRESSIONS["bitshuffle_lz4"]
    else:
        raise DecodeError(f"the compression {compression[:80]!r} is unknown, or its data are not")
    problem = DecodeError(f"{sizes[0]} bytes, decompressed; {most} are allowed")
    for size in sizes:
        if size <= most:
            try:
                return bytes_of(unpack(Image(payload=payload, encoding=kind, shape=(size,), dtype=_BYTE)))
            except DecodeError as error:
                problem = error
    raise problem


def compressed(data: Buffer, compression: str) -> Buffer:
    """Compress bytes, as `decompressed` reads them."""
    return _framed(np.frombuffer(data, np.uint8), compression)


def _framed(array: NDArray[Any], compression: str) -> Buffer:
    if compression not in _COMPRESSIONS:
        raise BadHeader(f"the compression {compression!r} is unknown")
    try:
        payload = pack(array, _COMPRESSIONS[compression]).payload
        return _LZ4_SIZES[0].pack(array.nbytes) + payload if compression == "lz4" else payload
    except (ValueError, struct.error) as error:
        raise BadHeader(f"the value cannot be compressed: {error}") from error


def channel_of(name: str, value: Any) -> Channel:
    """Describe a channel by one of its values.

    Raises
    ------
    BadHeader
        bsread has no such type.
    """
    if value is None:
        return Channel(name=name)
    if isinstance(value, str):
        return Channel(name=name, type="string")
    array = value if isinstance(value, Image) else np.asarray(value)
    return Channel(
        name=name,
        type=array.dtype.name,
        shape=array.shape or (1,),
        encoding="big" if array.dtype.str[0] == ">" else "little",
        compression=_name(value) if isinstance(value, Image) else "none",
    )


def _name(value: Image) -> str:
    found = [name for name, kind in _COMPRESSIONS.items() if kind == value.encoding]
    if not found or value.element not in (0, value.dtype.itemsize):
        raise BadHeader(f"bsread has no compression like {value.encoding!r}")
    return found[0]


def sendable(channel: Channel) -> Channel:
    """Channel in the form in which it is sent: never LZ4 with big-endian, which readers understand differently."""
    return replace(channel, encoding="little") if channel.compression == "lz4" else channel


def describe(channel: Channel) -> dict[str, Any]:
    """What the data header says about a channel."""
    said: dict[str, Any] = {"name": channel.name, "type": channel.type, "shape": list(channel.shape[::-1])}
    said["encoding"] = channel.encoding
    if channel.compression != "none":
        said["compression"] = channel.compression
    if (channel.modulo, channel.offset) != (1, 0):
        said |= {"modulo": channel.modulo, "offset": channel.offset}
    return said


def write(channel: Channel, value: Any) -> Buffer:
    """Make the part of a value; that of an array which is sent as it is, is its memory.

    Raises
    ------
    BadHeader
        It is not what the channel says.
    """
    if channel.type == "string":
        if not isinstance(value, str):
            raise BadHeader(f"the channel {channel.name!r} has text, not {type(value).__name__}")
        return compressed(value.encode(), channel.compression)
    dtype = _dtype(channel)
    if isinstance(value, Image):
        if (value.shape, value.dtype, _name(value)) != (channel.shape, dtype, channel.compression):
            raise BadHeader(f"the channel {channel.name!r} is described differently")
        size = _LZ4_SIZES[0].pack(prod(value.shape) * dtype.itemsize)
        return size + bytes(value.payload) if channel.compression == "lz4" else value.payload
    array = _converted(channel, value, dtype)
    return _framed(array, channel.compression)


def _converted(channel: Channel, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    array = np.asarray(value)
    kept = array.dtype.newbyteorder("=") == dtype.newbyteorder("=")
    if not kept and not isinstance(value, np.ndarray | np.generic) and array.dtype.kind in "iufb":
        # Numbers of Python have no size: they may have that of the channel, if nothing is lost but digits.
        with np.errstate(all="ignore"):
            kept = dtype.kind == "f" or bool(np.array_equal(array.astype(dtype), array))
    shape = array.shape or (1,)
    if not kept or shape != channel.shape:
        said = f"{channel.type}{list(channel.shape)}"
        raise BadHeader(f"the channel {channel.name!r} is {said}, its value {array.dtype}{list(array.shape)}")
    converted: NDArray[Any] = array.astype(dtype, copy=False).reshape(shape)
    return converted
