"""Stream V1 of Dectris' Eiger detectors: dheader-1.0, dimage-1.0, dseries_end-1.0.

Source: SPEC.md, "Eiger stream V1".
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ndstream.core.packets import Buffer, Codec, Decoding, Image, Position
from ndstream.errors import BadHeader, DecodeError, MissingPart
from ndstream.protocols.htype import messages
from ndstream.protocols.htype.elements import checked_shape, element_type, type_name
from ndstream.protocols.htype.messages import DHEADER, DIMAGE, DSERIES_END, as_bytes, part_of, whole_number
from ndstream.wire.compression import pack
from ndstream.wire.multipart import decode_header, encode_header

#: What a dheader holds besides its header, by its detail.
_DETAILS: dict[str, tuple[str, ...]] = {
    "none": (),
    "basic": ("part_2",),
    "all": ("part_2", "part_3", "part_4_raw", "part_5", "part_6_raw", "part_7", "part_8_raw"),
}
_IMAGE = ("part_2", "part_3_raw", "part_4")
#: Tables of a dheader: where each one and its description are.
_TABLES = (
    ("flatfield", "part_3", "part_4_raw"),
    ("pixelmask", "part_5", "part_6_raw"),
    ("countrate_table", "part_7", "part_8_raw"),
)
_ENCODING = re.compile(r"(?:bs(8|16|32)-?(?=lz4))?(lz4)?([<>]?)")
#: Series whose number of pixels is remembered; more than one is under way only when there are several detectors.
_SERIES = 16


class EigerCodec(Codec):
    """Makes a dict of a message, keys as the original has them, and back.

    It remembers the pixels of the detector as a dheader tells them, since some senders mix up the order of the axes.
    """

    def __init__(self, options: Decoding) -> None:
        self._limits = options.limits
        self._pixels: dict[Hashable, tuple[int, int]] = {}

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> dict[str, Any]:
        """Name the parts; those that are JSON are decoded, the others handed out as they are.

        Raises
        ------
        BadHeader
            The header has no known ``header_detail``, or a part that describes another is no JSON object.
        MissingPart
        """
        data: dict[str, Any] = {"header": header}
        if header["htype"] == DSERIES_END:
            return data
        keys = self._keys(header)
        if len(frames) <= len(keys):
            raise MissingPart(f"a message of {len(frames)} parts, where {len(keys) + 1} belong")
        for key, part in zip(keys, frames[1:], strict=False):
            data[key] = part if key.endswith("_raw") else decode_header(part, self._limits)
        if len(frames) > len(keys) + 1:
            data["appendix"] = self._appendix(frames[len(keys) + 1])
        if header["htype"] == DHEADER and "part_2" in data:
            self._remember(header.get("series"), data["part_2"])
        return data

    def _keys(self, header: Mapping[str, Any]) -> tuple[str, ...]:
        if header["htype"] == DIMAGE:
            return _IMAGE
        detail = header.get("header_detail")
        if not isinstance(detail, str) or detail not in _DETAILS:
            raise BadHeader(f"header_detail is {repr(detail)[:80]}; it can be {', '.join(_DETAILS)}")
        return _DETAILS[detail]

    def _appendix(self, part: Buffer) -> Any:
        """Object or list of an appendix in JSON, else the part."""
        if bytes(part[:64]).lstrip()[:1] not in (b"{", b"["):
            return part
        try:
            # As an object, so that the limits of headers hold.
            return decode_header(b'{"appendix":' + bytes(part) + b"}", self._limits)["appendix"]
        except BadHeader:
            return part  # whatever it is, the image is good

    def _remember(self, series: Any, configuration: dict[str, Any]) -> None:
        x, y = (whole_number(configuration.get(f"{axis}_pixels_in_detector")) for axis in "xy")
        if x is not None and y is not None and (name := _series(series)) is not None:
            self._pixels.pop(name, None)
            self._pixels[name] = x, y
            if len(self._pixels) > _SERIES:
                del self._pixels[next(iter(self._pixels))]

    def encode(self, data: Any) -> list[Buffer]:
        """Make the parts; raw ones are sent from their own memory.

        Parameters
        ----------
        data : dict
            As `decode` returns it. ``header_detail`` may be missing. A raw part may also be an array, or an `Image`:
            then its description (``part_2`` of a dimage, ``part_3``, … of a dheader) is completed, and an array is
            compressed as ``encoding`` there says. An appendix may be text.

        Raises
        ------
        BadHeader
            A part is missing, of the wrong kind, or described wrongly.
        """
        header = dict(part_of(data, "header"))
        if header["htype"] == DSERIES_END:
            return [encode_header(header)]
        if header["htype"] == DHEADER and "header_detail" not in header:
            header["header_detail"] = "all" if "part_3" in data else "basic" if "part_2" in data else "none"
        keys = self._keys(header)
        parts: dict[str, Buffer] = {}
        for key in keys:
            if key.endswith("_raw"):
                described = keys[keys.index(key) - 1]
                parts[key], description = self._raw(data.get(key), part_of(data, described))
                parts[described] = encode_header(description)
            else:
                parts[key] = encode_header(part_of(data, key))
        appendix = [_appendix_part(data["appendix"])] if "appendix" in data else []
        return [encode_header(header), *parts.values(), *appendix]

    def _raw(self, value: Any, description: Mapping[str, Any]) -> tuple[Buffer, Mapping[str, Any]]:
        """Part made of a raw value, and its description, completed."""
        if not isinstance(value, np.ndarray | Image):
            if value is None:
                raise BadHeader("a raw part is missing")
            return as_bytes(value), description
        said = dict(description)
        image = value if isinstance(value, Image) else self._packed(value, said.get("encoding"))
        says: dict[str, Any] = {"shape": list(image.shape[::-1]), "type": type_name(image.dtype)}
        if "encoding" in said or said.get("htype") == "dimage_d-1.0" or image.encoding != "none":
            says |= {"encoding": _spell(image), "size": len(image.payload)}
            if "encoding" in said and _plan(said["encoding"]) == _plan(says["encoding"]):
                says["encoding"] = said["encoding"]  # there is more than one spelling
        for key in ("shape", "type", "encoding"):
            if says.get(key) != (list(said[key]) if isinstance(said.get(key), tuple) else said.get(key, says.get(key))):
                raise BadHeader(f"the description says {key} {said[key]!r}, the array has {says[key]!r}")
        return image.payload, said | says

    def _packed(self, array: NDArray[Any], encoding: Any) -> Image:
        width, kind, order = _plan("<" if encoding is None else encoding)
        wanted = array.astype(array.dtype.newbyteorder(">" if order == "big" else "<"), copy=False)
        try:
            return pack(wanted, kind, element=width)
        except ValueError as error:
            raise BadHeader(f"the array cannot be compressed: {error}") from error

    def images(self, data: Any) -> dict[str, Image]:
        """Find the arrays of a message: ``image``; of a dheader ``flatfield``, ``pixelmask``, ``countrate_table``.

        Raises
        ------
        BadHeader
            The description of one is not what it should be.
        DecodeError
            It is encoded in an unknown way, or too large.
        """
        if "part_3_raw" in data:
            return {"image": self._image(data["part_2"], data["part_3_raw"], _series(data["header"].get("series")))}
        return {name: self._image(data[key], data[raw], None) for name, key, raw in _TABLES if raw in data}

    def _image(self, description: dict[str, Any], payload: Buffer, series: Hashable) -> Image:
        encoding = description.get("encoding", "<")
        width, kind, order = _plan(encoding)
        name = description.get("type")
        if not isinstance(name, str):
            raise BadHeader("the description of an array has no type")
        dtype = element_type(name, order)
        shape = checked_shape(description.get("shape"), itemsize=dtype.itemsize, most=self._limits.message_array)
        # Width first, unless the detector is known to be the other way round.
        if len(shape) < 2 or shape[:2] == self._pixels.get(series) or shape[1::-1] != self._pixels.get(series):
            shape = shape[::-1]
        elif len(shape) > 2:
            shape = (*shape[:1:-1], *shape[:2])
        return Image(payload=payload, encoding=kind, shape=shape, dtype=dtype, element=width)

    def values(self, data: Any) -> dict[str, Any]:
        """Tell the configuration that a dheader has; of an image, its times."""
        told = data.get("part_4" if "part_3_raw" in data else "part_2", {})
        return {key: value for key, value in told.items() if key != "htype"}

    def position(self, data: Any) -> Position | None:
        """Say the series and, of an image, the number of its frame."""
        header = data["header"]
        series = _series(header.get("series"))
        event: Literal["item", "start", "end"] = "item"
        number = expected = None
        match header["htype"]:
            case messages.DIMAGE:
                number = whole_number(header.get("frame"))
                if number is None:
                    return None
            case messages.DHEADER:
                event, expected = "start", _expected(data.get("part_2", {}))
            case _:
                event = "end"
        return Position(counter="frame", number=number, series=series, event=event, expected=expected)


def _series(value: Any) -> Hashable:
    return value if isinstance(value, int | str) else None


def _expected(configuration: Mapping[str, Any]) -> int | None:
    """Frames of a series: those of each trigger, times the triggers."""
    images, triggers = whole_number(configuration.get("nimages")), whole_number(configuration.get("ntrigger", 1))
    return None if images is None or triggers is None or min(images, triggers) < 0 else images * triggers


def _plan(encoding: Any) -> tuple[int, Literal["none", "lz4", "bslz4"], str]:
    """Bytes of what is bit-shuffled, kind of payload and byte order, as an encoding says."""
    found = _ENCODING.fullmatch(encoding) if isinstance(encoding, str) else None
    if found is None:
        raise DecodeError(f"images with the encoding {repr(encoding)[:80]} cannot be read")
    bits, packed, order = found.groups()
    kind: Literal["none", "lz4", "bslz4"] = "bslz4" if bits else "lz4" if packed else "none"
    return int(bits or 0) // 8, kind, "big" if order == ">" else "little"


def _spell(image: Image) -> str:
    order = ">" if image.dtype.str[0] == ">" else "<"
    width = image.element or image.dtype.itemsize
    match image.encoding:
        case "none":
            return order
        case "lz4":
            return f"lz4{order}"
        case "bslz4" if width in (1, 2, 4):
            return f"bs{8 * width}-lz4{order}"
    raise BadHeader(f"a dimage cannot hold an image with the encoding {image.encoding!r} and elements of {width} bytes")


def _appendix_part(appendix: Any) -> Buffer:
    if isinstance(appendix, str):
        return appendix.encode()
    return encode_header(appendix) if isinstance(appendix, Mapping | list) else as_bytes(appendix)
