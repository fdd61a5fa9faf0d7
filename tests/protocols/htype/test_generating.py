"""Messages made up are messages: every codec decodes what is generated of its htype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ndstream.core.gaps import Gaps
from ndstream.core.packets import Packet
from ndstream.errors import InvalidRequest, TooLarge
from ndstream.protocols.htype.generating import HTYPES, Generator, Plan
from ndstream.wire.compression import unpack
from ndstream.wire.multipart import Codecs

KINDS = [(htype, compression) for htype, (_, known) in HTYPES.items() for compression in known]


def made(**said: Any) -> list[Packet]:
    """Messages of a short series, sent and received."""
    generator = Generator(Plan(**{"shape": (12, 20), "dtype": np.dtype("u2"), "count": 3, **said}))
    sender, receiver = Codecs(), Codecs()
    data = [*generator.opening(), *map(generator.item, range(3)), *generator.closing()]
    return [receiver.decode([bytes(frame) for frame in sender.encode(each)]) for each in data]


@pytest.mark.parametrize(("htype", "compression"), KINDS)
@pytest.mark.parametrize("contents", ["random", "pattern"])
def test_every_htype_decodes(htype: str, compression: Any, contents: Any) -> None:
    packets = made(htype=htype, compression=compression, contents=contents)
    gaps = Gaps()
    for packet in packets:
        assert gaps.see(packet.position) is None
    assert packets[len(packets) // 2].htype == htype
    arrays = [unpack(image) for packet in packets for image in packet.images.values() if image.shape == (12, 20)]
    if htype in ("array-1.0", "dimage-1.0", "stream2", "bsr_m-1.0", "bsr_m-1.1"):
        assert len(arrays) == 3
        assert all(array.dtype == np.dtype("u2") for array in arrays)
        assert not np.array_equal(arrays[0], arrays[1])
        if contents == "pattern":
            np.testing.assert_array_equal(arrays[1].flat[1:], arrays[0].flat[:-1])
    if htype in ("dimage-1.0", "stream2"):
        (series,) = gaps
        assert (series.expected, series.received, series.complete, series.ended) == (3, 3, True, True)


@pytest.mark.parametrize("detail", ["none", "basic", "all"])
def test_headers_of_every_detail_decode(detail: Any) -> None:
    packet = made(htype="dheader-1.0", detail=detail)[0]
    assert len(packet.frames) == {"none": 1, "basic": 2, "all": 8}[detail]
    assert set(packet.images) == ({"flatfield", "pixelmask", "countrate_table"} if detail == "all" else set())


def test_the_shape_in_a_header_is_of_integers() -> None:
    """Acceptance 23; the original sends `[1, 262.0]`."""
    header = made(htype="raw-1.0")[0].header
    assert header == {"htype": "raw-1.0", "type": "uint16", "shape": [12, 20], "frame": 0}
    assert all(type(side) is int for side in header["shape"])


@pytest.mark.parametrize("dtype", ["bool", "i1", "u8", ">i4", "f2", "f4", "f8"])
def test_every_type_is_random(dtype: str) -> None:
    first, second = (packet.data["data"][0] for packet in made(dtype=np.dtype(dtype))[:2])
    assert first.dtype == np.dtype(dtype)
    assert len(np.unique(first)) > 1
    assert not np.array_equal(first, second)


def test_a_seed_makes_the_same_again() -> None:
    plan = Plan(shape=(9,), dtype=np.dtype("i4"), seed=5)
    np.testing.assert_array_equal(Generator(plan).array(0), Generator(plan).array(0))
    assert not made(contents="zeros")[2].data["data"][0].any()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"htype": "other-1.0"}, InvalidRequest),
        ({"compression": "lz4"}, InvalidRequest),
        ({"dtype": np.dtype("O")}, InvalidRequest),
        ({"dtype": np.dtype("c16")}, InvalidRequest),
        ({"shape": (1 << 30, 1 << 30)}, TooLarge),
        ({"htype": "dimage-1.0", "shape": (2, 3, 4)}, InvalidRequest),
        ({"htype": "stream2", "shape": (7,)}, InvalidRequest),
    ],
)
def test_what_cannot_be_generated_is_told(said: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        made(**said)
