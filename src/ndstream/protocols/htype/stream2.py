"""Stream V2 of Dectris: one part, a map in CBOR that says in ``type`` whether it is a start, an image or an end.

Source: SPEC.md, "Stream V2".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.packets import Buffer, Codec, Decoding, Encoding, Image, Position
from ndstream.errors import BadHeader, DecodeError
from ndstream.protocols.htype.elements import checked_shape, view
from ndstream.protocols.htype.messages import part_of, whole_number
from ndstream.wire import cbor
from ndstream.wire.buffers import bytes_of
from ndstream.wire.compression import unpack

_DATE, _ROWS, _COLUMNS, _COMPRESSED = 0, 40, 1040, 56500
#: Element types by the tag of their arrays (RFC 8746), without those that numpy lacks.
_TYPED = {
    64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip
_TAGS = {np.dtype(code): tag for tag, code in reversed(_TYPED.items())}
_DTYPES = {tag: np.dtype(code) for tag, code in _TYPED.items()}
#: "lz4" is HDF5's framing here, while it is a bare block in V1.
_ALGORITHMS: dict[str, Encoding] = {"bslz4": "bslz4", "lz4": "lz4-hdf5", "bszstd": "bszstd"}
_IMAGE_NAMES = ("htype", "type", "image_id", "series_id", "series_unique_id")
_TOO_FINE = re.compile(r"\.\d{7}")


class _Compressed(msgspec.Struct, frozen=True):
    """What stands for a byte string: elements of `nbytes` bytes in all."""

    payload: Buffer
    encoding: Encoding
    element: int
    nbytes: int

    def image(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Image:
        return Image(payload=self.payload, encoding=self.encoding, shape=shape, dtype=dtype, element=self.element)


class Stream2Codec(Codec):
    """Makes ``{"header": dict, "data": {channel: array}}`` of a message, and back; remembers nothing.

    ``data`` is empty unless it is an image; ``header`` has all the rest, with arrays where there are some.
    """

    def __init__(self, options: Decoding) -> None:
        self._limits = options.limits
        self._keep = options.compressed
        self._room = 0  # bytes that arrays of the present message may still become

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> dict[str, Any]:
        """Decode the map; arrays that were not compressed are in the memory of the part.

        Raises
        ------
        BadHeader
            ``type`` is missing, or the data of an image is no map.
        DecodeError
            It is no CBOR, goes beyond a limit, or an array is not what its tags say.
        """
        limits = self._limits
        self._room = limits.message_array
        found = cbor.decode(frames[0], items=limits.message_header, depth=limits.message_depth, untag=self._untag)
        if not isinstance(found, dict) or not isinstance(found.get("type"), str):
            raise BadHeader("a message in CBOR has no type")
        data = found.pop("data", {}) if found["type"] == "image" else {}
        if not isinstance(data, dict):
            raise BadHeader("the data of an image is no map of channels")
        found.pop("htype", None)
        return {"header": header | self._finished(found), "data": self._finished(data)}

    def _finished(self, value: Any) -> Any:
        """Value with images decompressed, unless they are asked for."""
        match value:
            case dict():
                return {key: self._finished(item) for key, item in value.items()}
            case list():
                return [self._finished(item) for item in value]
            case Image():
                return value if self._keep else unpack(value)
            case _Compressed(nbytes=nbytes):
                image = value.image(np.dtype("u1"), (nbytes,))
                return image if self._keep else unpack(image).tobytes()
        return value

    def _untag(self, number: int, value: Any) -> Any:
        if number in _DTYPES:
            return self._typed(_DTYPES[number], value)
        if number in (_ROWS, _COLUMNS):
            return self._shaped(value, column_major=number == _COLUMNS)
        if number == _COMPRESSED:
            return self._compressed(value)
        return _date(value) if number == _DATE else cbor.Tag(number, value)

    def _typed(self, dtype: np.dtype[Any], value: Any) -> NDArray[Any] | Image:
        if isinstance(value, _Compressed):
            if value.nbytes % dtype.itemsize:
                raise DecodeError(f"{value.nbytes} bytes are no whole number of {dtype.name}")
            return value.image(dtype, (value.nbytes // dtype.itemsize,))
        if not isinstance(value, memoryview | bytes) or len(value) % dtype.itemsize:
            raise DecodeError(f"what is tagged as an array of {dtype.name} is none")
        return view(value, (len(value) // dtype.itemsize,), dtype)

    def _compressed(self, value: Any) -> _Compressed:
        match value:
            case [str(algorithm), int(element), memoryview() | bytes() as payload] if algorithm in _ALGORITHMS:
                nbytes = int.from_bytes(payload[:8], "big")
                self._room -= nbytes  # together, since few bytes of Zstandard become as many as one likes
                if self._room < 0 or element < 0:
                    raise DecodeError(f"{nbytes} bytes, decompressed, are more than message_array allows in a message")
                # Without a size of the element, each byte is one; LZ4 alone has none.
                return _Compressed(payload, _ALGORITHMS[algorithm], element or 1, nbytes)
        raise DecodeError(f"compressed in an unknown way: {repr(value)[:80]}")

    def _shaped(self, value: Any, *, column_major: bool) -> NDArray[Any] | Image:
        match value:
            case [list() as shape, np.ndarray() | Image() as flat] if len(flat.shape) == 1:
                pass
            case [list() as shape, list() as numbers] if all(type(number) in (int, float) for number in numbers):
                flat = np.array(numbers)
                if flat.dtype.kind == "O":
                    raise DecodeError("an array of numbers beyond 64 bits")
            case _:
                raise DecodeError("what is tagged as an array with a shape is none")
        sides = checked_shape(shape, itemsize=flat.dtype.itemsize, most=self._limits.message_array)
        if prod(sides) != flat.shape[0]:
            raise DecodeError(f"{flat.shape[0]} elements for the shape {list(sides)}")
        if isinstance(flat, Image):
            if not column_major:
                return replace(flat, shape=sides)
            flat = unpack(flat)  # an image has no other order
        return flat.reshape(sides, order="F" if column_major else "C")

    def encode(self, data: Any) -> list[Buffer]:
        """Make the one part; arrays are copied into it.

        Parameters
        ----------
        data : dict
            As `decode` returns it. Arrays of one axis are written without a shape, an `Image` as it is.

        Raises
        ------
        BadHeader
            The header has no ``type``, or something in it has no form in CBOR.
        """
        header = part_of(data, "header")
        message = {"type": part_of(header, "type", str)}
        message |= {key: value for key, value in header.items() if key not in ("htype", "type")}
        if message["type"] == "image":
            message["data"] = part_of(data, "data")
        return [b"".join(cbor.encode(message, _tagged))]

    def images(self, data: Any) -> dict[str, Image]:
        """Find the arrays of a message, by channel; those of a start by key, and by channel after a slash.

        They are as they came only if it was asked for compressed ones.
        """
        return dict(_arrays(data["data"], "")) | dict(_arrays(data["header"], ""))

    def values(self, data: Any) -> dict[str, Any]:
        """Tell what the map has, but for its arrays; of an image without what `position` tells."""
        header: dict[str, Any] = data["header"]
        left_out = ("htype", "type") if header.get("type") != "image" else _IMAGE_NAMES
        return {key: value for key, value in header.items() if key not in left_out}

    def position(self, data: Any) -> Position | None:
        """Say the series, by what is unique in its name, and of an image its number."""
        header = data["header"]
        series = header.get("series_unique_id") or header.get("series_id")
        if not isinstance(series, int | str):
            series = None
        number = expected = None
        event: Literal["item", "start", "end"] = "item"
        match header["type"]:
            case "image":
                number = whole_number(header.get("image_id"))
                if number is None:
                    return None
            case "start":
                event, expected = "start", whole_number(header.get("number_of_images"))
            case "end":
                event = "end"
            case _:
                return None
        return Position(counter="image_id", number=number, series=series, event=event, expected=expected)


def _arrays(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Image]]:
    for key, value in values.items():
        if isinstance(value, Image):
            yield f"{prefix}{key}", value
        elif isinstance(value, np.ndarray):
            image = Image(payload=bytes_of(value), encoding="none", shape=value.shape, dtype=value.dtype)
            yield f"{prefix}{key}", image
        elif isinstance(value, dict) and not prefix:
            yield from _arrays(value, f"{key}/")


def _date(value: Any) -> Any:
    """Time of a date string; one finer than microseconds, or without sense, stays text with its tag."""
    if isinstance(value, str) and not _TOO_FINE.search(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass  # the tag tells that it should have been one
    return cbor.Tag(_DATE, value)


def _tagged(value: Any) -> Any:
    """What CBOR has for a value of ours."""
    match value:
        case datetime():
            return cbor.Tag(_DATE, value.isoformat())
        case np.ndarray():
            flat = cbor.Tag(_tag(value.dtype), bytes_of(value))
        case Image():
            flat = cbor.Tag(_tag(value.dtype), _packed(value))
        case np.generic() if value.dtype.kind in "biuf":
            return value.item()
        case _:
            raise BadHeader(f"CBOR has no form for {repr(value)[:80]}")
    return flat if len(value.shape) == 1 else cbor.Tag(_ROWS, [list(value.shape), flat])


def _tag(dtype: np.dtype[Any]) -> int:
    tag = _TAGS.get(dtype)
    if tag is None:
        raise BadHeader(f"CBOR has no arrays of {dtype}")
    return tag


def _packed(image: Image) -> Any:
    if image.encoding == "none":
        return image.payload
    for algorithm, encoding in _ALGORITHMS.items():
        if encoding == image.encoding:
            width = 0 if algorithm == "lz4" else image.element or image.dtype.itemsize
            return cbor.Tag(_COMPRESSED, [algorithm, width, image.payload])
    raise BadHeader(f"Stream V2 has no compression like {image.encoding!r}")
