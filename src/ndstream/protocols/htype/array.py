"""array-1.0: a header, then segments of one shape and type. Its predecessor chunk-1.0 is read and written, too.

Source: SPEC.md, "array-1.0".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.packets import Buffer, Codec, Decoding, Image, Position
from ndstream.errors import BadHeader, DecodeError, MessageError
from ndstream.protocols.htype.elements import checked_shape, element_type, type_name, view
from ndstream.protocols.htype.messages import as_bytes, part_of, segments_of, whole_number
from ndstream.wire.buffers import bytes_of
from ndstream.wire.multipart import encode_header

_NOT_ENCODED = (None, "", "none")
_ndarray = np.ndarray
_COMMON = {
    (name, order): element_type(name, order or "little")
    for name in ("float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
    for order in (None, "little", "big")
}


#: Keys of a header that say how the segments are to be read, or which message it is.
_LAYOUT = frozenset({"htype", "shape", "type", "frame", "endianness", "endianess", "encoding", "cmpr"})


class ArrayCodec(Codec):
    """Makes ``{"header": dict, "data": [array or None]}`` of a message, and back; remembers nothing."""

    counter = "frame"

    def __init__(self, options: Decoding) -> None:
        self._most = options.limits.message_array

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> dict[str, Any]:
        """Make an array of each segment, in the memory of the part, and None of an empty one.

        Raises
        ------
        BadHeader
            ``shape`` or ``type`` is missing or has no sense, and there are elements.
        DecodeError
            A segment does not have the size that these say; or it is encoded, which no document defines.
        """
        if len(frames) == 2 and (array := self._common(header, frames[1])) is not None:
            return {"header": header, "data": [array]}
        data: list[Any] = []
        part: Buffer = b""
        dtype: Any = None
        shape: Any = None
        try:
            for part in frames[1:]:
                if len(part):
                    if dtype is None:
                        shape, dtype = self._layout(header)
                    array = _ndarray(shape, dtype, part)
                    if array.nbytes != len(part) or array.shape != tuple(shape):  # longer; or numpy understood -1
                        raise ValueError
                    data.append(array)
                else:
                    data.append(None)
        except MessageError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise self._explain(shape, dtype, part) from error
        return {"header": header, "data": data}

    def _common(self, header: dict[str, Any], part: Buffer) -> NDArray[Any] | None:
        """Array of what most messages are, in few steps; None when a closer look is needed."""
        try:
            if "encoding" not in header and "endianess" not in header and len(part):
                shape, dtype = header["shape"], _COMMON[header["type"], header.get("endianness")]
                array = _ndarray(shape, dtype, part)
                if array.nbytes == len(part) and type(shape) is list and -1 not in shape:  # numpy would understand it
                    return array
        except (LookupError, TypeError, ValueError, OverflowError):
            pass  # the closer look will tell
        return None

    def _layout(self, header: dict[str, Any]) -> tuple[Any, np.dtype[Any]]:
        """Shape, not checked, and element type."""
        get = header.get
        if get("encoding") not in _NOT_ENCODED:
            raise DecodeError(f"arrays with the encoding {str(header['encoding'])[:80]!r} cannot be read")
        try:
            # The published document spells it in the second way once.
            order = get("endianness") or get("endianess") or "little"
            return header["shape"], element_type(header["type"], order)
        except TypeError as error:
            raise BadHeader("type and endianness are text") from error
        except KeyError as error:
            raise BadHeader(f"the header has no key {error}") from error

    def _explain(self, shape: Any, dtype: np.dtype[Any], part: Buffer) -> MessageError:
        try:
            view(part, checked_shape(shape, itemsize=dtype.itemsize, most=self._most), dtype)
        except MessageError as error:
            return error
        return BadHeader(f"no array has the shape {repr(shape)[:80]}")

    def encode(self, data: Any) -> list[Buffer]:
        """Make the parts; C-contiguous arrays are sent from their own memory.

        Parameters
        ----------
        data : dict
            ``header``, and in ``data`` arrays, bytes as they are, or None for an empty segment. What the header does
            not say about the arrays is added: ``shape``, ``type``, and ``endianness`` when it is big.

        Raises
        ------
        BadHeader
            The header says something else than the arrays; or they cannot be sent (objects, records).
        """
        header = dict(part_of(data, "header"))
        parts: list[Buffer] = [b""]
        for segment in segments_of(data):
            if isinstance(segment, np.ndarray):
                self._describe(header, segment)
                parts.append(bytes_of(segment))
            else:
                parts.append(as_bytes(segment))
        parts[0] = encode_header(header)
        return parts

    def _describe(self, header: dict[str, Any], array: NDArray[Any]) -> None:
        if "shape" not in header:
            header["shape"] = list(array.shape)
        if "type" not in header:
            header["type"] = type_name(array.dtype)
            if array.dtype.str[0] == ">" and "endianness" not in header:
                header["endianness"] = "big"
        shape, dtype = self._layout(header)
        said = checked_shape(shape, itemsize=dtype.itemsize, most=self._most)
        if said != array.shape or dtype != array.dtype:
            raise BadHeader(f"the header says {dtype}{list(said)}, the array is {array.dtype}{list(array.shape)}")

    def images(self, data: Any) -> dict[str, Image]:
        """Segments by their index, ``"0"``, ``"1"``, …, without the empty ones."""
        return {
            str(index): Image(payload=bytes_of(array), encoding="none", shape=array.shape, dtype=array.dtype)
            for index, array in enumerate(segments_of(data))
            if array is not None
        }

    def values(self, data: Any) -> dict[str, Any]:
        """Tell what the header says beside how the arrays are laid out."""
        return {key: value for key, value in data["header"].items() if key not in _LAYOUT}

    def position(self, data: Any) -> Position | None:
        """Say the number of the frame, if the header has one."""
        number = whole_number(data["header"].get("frame"))
        return None if number is None else Position(counter="frame", number=number)


class ChunkCodec(ArrayCodec):
    """chunk-1.0, deprecated: the shape has its fastest axis first, and the key of the encoding is ``cmpr``."""

    def _common(self, header: dict[str, Any], part: Buffer) -> None:
        return None

    def _layout(self, header: dict[str, Any]) -> tuple[Any, np.dtype[Any]]:
        shape, dtype = super()._layout(header | {"encoding": header.get("cmpr")})
        return (shape[::-1] if isinstance(shape, list) else shape), dtype

    def _describe(self, header: dict[str, Any], array: NDArray[Any]) -> None:
        header.setdefault("shape", list(array.shape[::-1]))
        super()._describe(header, array)
