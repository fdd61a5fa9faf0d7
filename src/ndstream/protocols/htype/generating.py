"""Messages that look as if they came from a detector, to try out what receives them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.packets import STREAM2, Encoding
from ndstream.errors import InvalidRequest, TooLarge
from ndstream.protocols.htype.elements import type_name
from ndstream.protocols.htype.messages import BsreadMessage, Value
from ndstream.wire.compression import pack

Contents: TypeAlias = Literal["random", "pattern", "zeros"]
Compression: TypeAlias = Literal["none", "lz4", "bslz4"]
Detail: TypeAlias = Literal["none", "basic", "all"]

_STEP: Final = 127  # values of the pattern, as many as every type of numbers has
_EXPOSURE: Final = 10_000_000  # ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is generated.

    Attributes
    ----------
    htype : str
        One of `HTYPES`. ``dimage-1.0`` and ``stream2`` make a series: its start, images, its end.
    shape : tuple of int
        Of each array, slowest axis first.
    dtype : dtype
    contents : str
        ``"random"``: every value anew for each message. ``"pattern"``: a ramp that moves on by one element with each
        message. ``"zeros"``.
    compression : str
        ``"none"``, ``"lz4"`` or ``"bslz4"`` (bitshuffle and LZ4), where the htype has it.
    count : int, optional
        Messages that there will be, without start and end; this is what the start of a series says.
    detail : str
        How much a ``dheader-1.0`` tells.
    seed : int, optional
        The same one makes the same contents.
    """

    htype: str = "array-1.0"
    shape: tuple[int, ...] = (1024, 1024)
    dtype: np.dtype[Any]
    contents: Contents = "random"
    compression: Compression = "none"
    count: int | None = None
    detail: Detail = "basic"
    seed: int | None = None


class Generator:
    """Makes the data of messages, as `ndstream.Stream.forward` takes them.

    Parameters
    ----------
    plan : Plan
    limits : Limits
        ``message_array`` holds.

    Raises
    ------
    InvalidRequest
        There is no such htype, or it has no such compression.
    TooLarge
        The arrays are larger than the limit.

    Notes
    -----
    Arrays of contents ``"pattern"`` and ``"zeros"`` are views of one array, and must not be changed.
    """

    def __init__(self, plan: Plan, limits: Limits = DEFAULT_LIMITS) -> None:
        if plan.htype not in HTYPES:
            raise InvalidRequest(f"messages of the htype {plan.htype!r} cannot be generated")
        if plan.dtype.kind not in "biuf":
            raise InvalidRequest(f"arrays of {plan.dtype} cannot be generated")
        nbytes = prod(plan.shape) * plan.dtype.itemsize
        if nbytes > limits.message_array:
            raise TooLarge(f"arrays of {nbytes} bytes; message_array is {limits.message_array}")
        self._make, compressions = HTYPES[plan.htype]
        if plan.compression not in compressions:
            raise InvalidRequest(f"{plan.htype} has no compression {plan.compression!r}")
        self.plan = plan
        self._encoding: Encoding = compressions[plan.compression]
        self._random = np.random.Generator(np.random.SFC64(plan.seed))
        self._elements = prod(plan.shape)
        values = np.arange(_STEP).astype(plan.dtype) if plan.contents == "pattern" else np.zeros(1, plan.dtype)
        self._base = np.resize(values, self._elements + _STEP)

    def opening(self) -> list[Any]:
        """Messages before the first: the start of a series."""
        return {"dimage-1.0": [_dheader(self, 1)], STREAM2: [_start(self)]}.get(self.plan.htype, [])

    def item(self, number: int) -> Any:
        """Make message `number`, from 0."""
        return self._make(self, number)

    def closing(self) -> list[Any]:
        """Messages after the last: the end of a series."""
        return {"dimage-1.0": [_dseries_end(self, 1)], STREAM2: [_end()]}.get(self.plan.htype, [])

    def array(self, number: int) -> NDArray[Any]:
        """Array of message `number`."""
        plan = self.plan
        if plan.contents == "random":
            return self._any()
        at = -number % _STEP
        return self._base[at : at + self._elements].reshape(plan.shape)

    def _any(self) -> NDArray[Any]:
        plan = self.plan
        match plan.dtype.kind:
            case "f":
                return self._random.random(plan.shape, np.float64).astype(plan.dtype)
            case "b":
                return self._random.integers(0, 2, plan.shape, np.uint8).astype(plan.dtype)
            case _:
                nbytes = self._elements * plan.dtype.itemsize
                words = self._random.integers(0, 1 << 64, -(-nbytes // 8), np.uint64)
                return words.view(np.uint8)[:nbytes].view(plan.dtype).reshape(plan.shape)

    def value(self, number: int) -> Any:
        """Array of a message, compressed if that is wanted."""
        array = self.array(number)
        return array if self._encoding == "none" else pack(array, self._encoding)


def _array(generator: Generator, number: int) -> dict[str, Any]:
    return {"header": {"htype": "array-1.0", "frame": number}, "data": [generator.array(number)]}


def _raw(generator: Generator, number: int) -> dict[str, Any]:
    plan = generator.plan
    header = {"htype": "raw-1.0", "type": type_name(plan.dtype), "shape": list(plan.shape), "frame": number}
    return {"header": header, "data": [generator.array(number).reshape(-1).view(np.uint8).data]}


def _bsread(generator: Generator, number: int) -> BsreadMessage:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return BsreadMessage(
        data={"image": Value(generator.value(number)), "number": Value(np.int64(number))},
        pulse_id=number,
        global_timestamp=seconds,
        global_timestamp_offset=nanoseconds,
        header={
            "htype": generator.plan.htype,
            "dh_compression": {"bslz4": "bitshuffle_lz4"}.get(generator.plan.compression, generator.plan.compression),
        },
    )


def _dheader(generator: Generator, number: int) -> dict[str, Any]:
    plan = generator.plan
    data: dict[str, Any] = {"header": {"htype": "dheader-1.0", "series": number, "header_detail": plan.detail}}
    if plan.detail == "none":
        return data
    shape = _image_shape(plan)
    data["part_2"] = {
        "x_pixels_in_detector": shape[1],
        "y_pixels_in_detector": shape[0],
        "bit_depth_image": plan.dtype.itemsize * 8,
        "compression": plan.compression,
        "description": "generated by ndstream",
        "frame_time": _EXPOSURE / 1e9,
    }
    if plan.count is not None:
        data["part_2"] |= {"nimages": plan.count, "ntrigger": 1}
    if plan.detail == "all":
        data |= {
            "part_3": {"htype": "dflatfield-1.0"},
            "part_4_raw": np.ones(shape, np.float32),
            "part_5": {"htype": "dpixelmask-1.0"},
            "part_6_raw": np.zeros(shape, np.uint32),
            "part_7": {"htype": "dcountrate_table-1.0"},
            "part_8_raw": np.repeat(np.linspace(0, 1e6, 100, dtype=np.float32)[:, None], 2, axis=1),
        }
    return data


def _dimage(generator: Generator, number: int) -> dict[str, Any]:
    _image_shape(generator.plan)
    image = pack(generator.array(number), generator._encoding)
    begin = number * _EXPOSURE
    return {
        "header": {
            "htype": "dimage-1.0",
            "series": 1,
            "frame": number,
            "hash": hashlib.md5(image.payload, usedforsecurity=False).hexdigest(),
        },
        "part_2": {"htype": "dimage_d-1.0"},
        "part_3_raw": image,
        "part_4": {
            "htype": "dconfig-1.0",
            "start_time": begin,
            "stop_time": begin + _EXPOSURE,
            "real_time": _EXPOSURE,
        },
    }


def _dseries_end(generator: Generator, number: int) -> dict[str, Any]:
    return {"header": {"htype": "dseries_end-1.0", "series": number}}


_SERIES: Final = {"htype": STREAM2, "series_id": 1, "series_unique_id": "generated"}


def _start(generator: Generator) -> dict[str, Any]:
    plan = generator.plan
    shape = _image_shape(plan)
    header = {**_SERIES, "type": "start", "image_dtype": plan.dtype.name, "channels": ["threshold_1"]}
    header |= {"image_size_x": shape[1], "image_size_y": shape[0], "frame_time": _EXPOSURE / 1e9}
    return {"header": header if plan.count is None else {**header, "number_of_images": plan.count}}


def _stream2_image(generator: Generator, number: int) -> dict[str, Any]:
    _image_shape(generator.plan)
    begin = number * _EXPOSURE
    header = {**_SERIES, "type": "image", "image_id": number, "real_time": [_EXPOSURE, 1_000_000_000]}
    header |= {"start_time": [begin, 1_000_000_000], "stop_time": [begin + _EXPOSURE, 1_000_000_000]}
    return {"header": header, "data": {"threshold_1": generator.value(number)}}


def _end() -> dict[str, Any]:
    return {"header": {**_SERIES, "type": "end"}}


def _image_shape(plan: Plan) -> tuple[int, ...]:
    if len(plan.shape) != 2:
        raise InvalidRequest(f"an image of {plan.htype} has two axes, not {len(plan.shape)}")
    return plan.shape


_PLAIN: Mapping[str, Encoding] = {"none": "none"}
_PACKED: Mapping[str, Encoding] = {"none": "none", "lz4": "lz4", "bslz4": "bslz4"}
_FRAMED: Mapping[str, Encoding] = {"none": "none", "lz4": "lz4-hdf5", "bslz4": "bslz4"}

HTYPES: Final[Mapping[str, tuple[Callable[[Generator, int], Any], Mapping[str, Encoding]]]] = {
    "array-1.0": (_array, _PLAIN),
    "raw-1.0": (_raw, _PLAIN),
    "bsr_m-1.0": (_bsread, _PACKED),
    "bsr_m-1.1": (_bsread, _PACKED),
    "dheader-1.0": (_dheader, _PLAIN),
    "dimage-1.0": (_dimage, _PACKED),
    "dseries_end-1.0": (_dseries_end, _PLAIN),
    STREAM2: (_stream2_image, _FRAMED),
}
"""What makes messages of each htype, and the compressions that it has."""
