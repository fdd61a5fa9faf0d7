"""Messages of every kind, as their senders make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.packets import Buffer, Image, Packet
from ndstream.protocols.htype.messages import BsreadMessage, Value
from ndstream.wire.compression import pack
from ndstream.wire.multipart import Codecs

Parts = list[bytes]

SHAPE = (64, 96)


def frame(number: int, dtype: Any = "<u2", shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    """Make an image that compresses well, and is like no other."""
    image = np.random.default_rng(number).poisson(2, shape).astype(dtype)
    image.flat[0] = number % 251
    return image


def encode(data: Any) -> Parts:
    """Make the parts of a message."""
    return [bytes(part) for part in Codecs().encode(data)]


def decode(parts: Sequence[Buffer], codecs: Codecs | None = None) -> Packet:
    """Make a packet of the parts of a message."""
    from ndstream.core.packets import Decoding

    return (codecs or Codecs(Decoding(compressed=True))).decode(list(parts))


def array(number: int | None, image: NDArray[Any], **header: Any) -> Parts:
    """Make an array-1.0."""
    numbered = {} if number is None else {"frame": number}
    return encode({"header": {"htype": "array-1.0", **numbered, **header}, "data": [image]})


def eiger_header(series: int, images: int, **configuration: Any) -> Parts:
    """Make a dheader-1.0 with all tables."""
    told: dict[str, Any] = {
        "nimages": images,
        "ntrigger": 1,
        "x_pixels_in_detector": SHAPE[1],
        "y_pixels_in_detector": SHAPE[0],
    }
    told |= {"wavelength": 0.9, "description": "Dectris", "thresholds": [1.5, 2.5], **configuration}
    flat, mask = frame(1, "<f4"), frame(2, "<u4")
    return encode(
        {
            "header": {"htype": "dheader-1.0", "series": series, "header_detail": "all"},
            "part_2": told,
            "part_3": {"htype": "dflatfield-1.0"},
            "part_4_raw": flat,
            "part_5": {"htype": "dpixelmask-1.0"},
            "part_6_raw": mask,
            "part_7": {"htype": "dcountrate_table-1.0"},
            "part_8_raw": frame(3, "<f4", (2, 50)),
            "appendix": {"run": 7},
        }
    )


def eiger_image(series: int, number: int, encoding: str = "bs16-lz4<", dtype: Any = "<u2") -> Parts:
    """Make a dimage-1.0."""
    return encode(
        {
            "header": {"htype": "dimage-1.0", "series": series, "frame": number, "hash": f"{number:032x}"},
            "part_2": {"htype": "dimage_d-1.0", "encoding": encoding},
            "part_3_raw": frame(number, dtype),
            "part_4": {"htype": "dconfig-1.0", "start_time": number * 1000, "stop_time": number * 1000 + 900,
                       "real_time": 900},
        }
    )  # fmt: skip


def eiger_end(series: int) -> Parts:
    """Make a dseries_end-1.0."""
    return encode({"header": {"htype": "dseries_end-1.0", "series": series}})


def stream2_start(series: str, images: int) -> Parts:
    """Make the start of a series of Stream V2."""
    header = {"htype": "stream2", "type": "start", "series_id": 1, "series_unique_id": series}
    header |= {"number_of_images": images, "user_data": "x", "count_time": 0.5, "flatfield": {"low": frame(5, "<f4")}}
    header |= {"goniometer": {"omega": {"start": 1.0, "increment": 0.1}}}
    return encode({"header": header})


def stream2_image(series: str, number: int, how: Any = "bslz4") -> Parts:
    """Make an image of Stream V2, of two channels."""
    header = {"htype": "stream2", "type": "image", "series_id": 1, "series_unique_id": series, "image_id": number}
    header |= {"real_time": [number, 1000]}
    data: dict[str, NDArray[Any] | Image] = {
        "low": pack(frame(number), how), "high": pack(frame(number + 1000, "<u4"), how)
    }  # fmt: skip
    return encode({"header": header, "data": data})


def stream2_end(series: str) -> Parts:
    """Make the end of a series of Stream V2."""
    header = {"htype": "stream2", "type": "end", "series_id": 1, "series_unique_id": series}
    return encode({"header": header})


def pulse(number: int, **values: Any) -> Parts:
    """Make a message of bsread."""
    data = {name: Value(value, number, 5) for name, value in values.items()}
    return encode(BsreadMessage(data=data, pulse_id=number, global_timestamp=number * 10, global_timestamp_offset=7))


STREAMS: dict[str, list[Parts]] = {
    "eiger": [
        eiger_header(3, 4),
        *(eiger_image(3, n, how) for n, how in enumerate(("bs16-lz4<", "bs16-lz4<", "bs16-lz4<", "<"))),
        eiger_end(3),
        eiger_header(4, 2, count_time=2),
        *(eiger_image(4, n, "lz4<", "<u4") for n in range(2)),
        eiger_end(4),
    ],
    "eiger-odd": [eiger_image(1, 0, "bs8-lz4<"), eiger_image(1, 1, "bs32-lz4<", "<u2"), eiger_end(1)],
    "stream2": [
        stream2_start("a", 3),
        *(stream2_image("a", n) for n in range(3)),
        stream2_end("a"),
        *(stream2_image("b", n, "lz4-hdf5") for n in range(2)),
    ],
    "array": [
        *(array(n, frame(n), source="camera") for n in range(3)),
        *(array(n, frame(n, ">f4"), place=[1, 2]) for n in range(3)),
        array(None, frame(9, "u1", (3,))),
        encode({"header": {"htype": "array-1.0", "frame": 4}, "data": [None]}),
        encode({"header": {"htype": "array-1.0", "frame": 5}, "data": []}),
    ],
    "bsread": [
        pulse(10, current=np.float64(1.5), image=frame(1), text="größe", small=np.arange(3)),
        pulse(20, current=np.float64(2.5), image=frame(2), text="", small=np.arange(3)),
        pulse(30, current=None, image=frame(3), text="x", flag=np.bool_(True)),
    ],
    "raw": [
        encode({"header": {"htype": "raw-1.0", "frame": 0}, "data": [b"abc", None, b"x" * 5000]}),
        encode({"header": {"htype": "raw-1.0"}, "data": []}),
    ],
}
"""Streams of all kinds."""
