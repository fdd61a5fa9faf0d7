from __future__ import annotations

import time
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.errors import ProtocolError
from ndstream.wire.integers import read_integers, write_integers

INT64 = st.integers(-(2**63), 2**63 - 1)
NARROW = st.sampled_from([0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, -1, -32, -33, -129])
LISTS = st.lists(st.one_of(INT64, NARROW), max_size=60)


def body_of(packed: bytes) -> memoryview:
    """Without the array header, whose length depends on the count."""
    header = 1 if packed[0] & 0xF0 == 0x90 else {0xDC: 3, 0xDD: 5}[packed[0]]
    return memoryview(packed)[header:]


@given(LISTS, st.integers(1, 40))
def test_reads_what_an_independent_writer_wrote(values: list[int], repeat: int) -> None:
    values = [value for value in values for _ in range(repeat)]
    body = body_of(msgpack.packb(values))
    read, end = read_integers(body, 0, len(values))
    assert read.dtype == np.int64
    assert read.tolist() == values
    assert end == len(body)


@given(LISTS)
def test_an_independent_reader_reads_what_is_written(values: list[int]) -> None:
    assert msgpack.unpackb(write_integers(np.array(values, np.int64))) == values


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(200, 400))
def test_stops_where_the_integers_end(values: list[int], repeat: int) -> None:
    values = sorted(values * repeat)
    packed = msgpack.packb(values) + msgpack.packb("next")
    read, end = read_integers(body_of(packed), 0, len(values))
    assert read.tolist() == values
    assert msgpack.unpackb(body_of(packed)[end:]) == "next"


@pytest.mark.parametrize("value", [1.5, "1", None, True, [1], {}, b"1", 2**64 - 1])
@pytest.mark.parametrize("before", [0, 3, 300])
def test_refuses_what_is_no_integer_of_64_bits(value: object, before: int) -> None:
    packed = msgpack.packb([*range(before), value])
    with pytest.raises(ProtocolError):
        read_integers(body_of(packed), 0, before + 1)


@pytest.mark.parametrize("values", [[300] * 5, [300] * 2000, [1, 70000] * 2000])
def test_refuses_a_message_that_ends_too_early(values: list[int]) -> None:
    body = body_of(msgpack.packb(values))
    with pytest.raises(ProtocolError):
        read_integers(body[:-1], 0, len(values))


def test_allocates_nothing_for_more_integers_than_there_are_bytes() -> None:
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        read_integers(memoryview(b"\x01\x02"), 0, 1 << 40)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_millions_of_integers_make_no_python_objects() -> None:
    count = 1 << 20
    body = body_of(msgpack.packb(np.arange(0, 7 * count, 7).tolist()))
    tracemalloc.start()
    began = time.process_time()
    read, _ = read_integers(body, 0, count)
    taken = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read[-1] == 7 * (count - 1)
    assert peak < 6 * 8 * count  # a list of as many numbers takes more than the double
    assert taken < 5
