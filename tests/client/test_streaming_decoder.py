"""The decoder of bins in streams that programs in the field import."""

from __future__ import annotations

import io

import msgpack
import pytest

import ndstream
from ndstream.errors import ConnectionLost, ProtocolError


def test_a_stream_is_looked_at_read_and_skipped() -> None:
    decoder = ndstream.StreamingDecoder(io.BytesIO(bytes(range(100))))
    assert decoder.peek(3) == b"\0\1\2"
    assert decoder.peek(5) == b"\0\1\2\3\4"
    assert decoder.read(2) == b"\0\1"
    decoder.skip(8)
    buffer = bytearray(5)
    assert decoder.readinto(buffer) == 5
    assert buffer == bytes(range(10, 15))
    assert decoder.read() == bytes(range(15, 100))
    assert decoder.peek(1) == b""
    with pytest.raises(ConnectionLost):
        decoder.read(1)


@pytest.mark.parametrize("size", [0, 3, 300, 70_000])
def test_bins_of_any_length_are_read(size: int) -> None:
    decoder = ndstream.StreamingDecoder(io.BytesIO(msgpack.packb(bytes(size), use_bin_type=True)))
    assert decoder.read_bin_header() == size
    assert decoder.read() == bytes(size)


def test_what_is_no_bin_is_refused() -> None:
    with pytest.raises(ProtocolError):
        ndstream.StreamingDecoder(io.BytesIO(b"\x80")).read_bin_header()
