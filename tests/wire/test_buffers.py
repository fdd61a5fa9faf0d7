"""Buffers come back by themselves, once nobody can see them any more."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ndstream.wire.buffers import BufferPool, Scratch

MiB = 1 << 20


def _address(buffer: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    return buffer.ctypes.data


@given(st.integers(0, 1 << 25))
def test_a_buffer_has_the_size_that_was_asked_for(nbytes: int) -> None:
    pool = BufferPool(0)
    buffer = pool.take(nbytes)
    assert buffer.shape == (nbytes,)
    assert pool.out == 0 or nbytes <= pool.out <= nbytes * 5 / 4 + 4096


def test_large_buffers_begin_on_a_page() -> None:
    assert _address(BufferPool(0).take(MiB)) % 4096 == 0


def test_memory_is_used_again() -> None:
    pool = BufferPool(8 * MiB)
    first = pool.take(MiB)
    address = _address(first)
    del first
    assert (pool.out, pool.kept) == (0, MiB)
    assert _address(pool.take(MiB - 5)) == address


def test_memory_stays_out_as_long_as_anything_looks_at_it() -> None:
    pool = BufferPool(8 * MiB)
    buffer = pool.take(MiB)
    view = buffer.data[100:200].cast("B")
    numbers = buffer.view("<u4").reshape(-1, 2)[5:][:, 1]
    del buffer
    assert pool.out == MiB
    del view
    assert pool.out == MiB
    del numbers
    assert pool.out == 0


def test_memory_comes_back_out_of_a_reference_cycle() -> None:
    pool = BufferPool(8 * MiB)
    cycle: list[object] = [pool.take(MiB)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert (pool.out, pool.kept) == (0, MiB)


def test_no_more_is_kept_than_the_limit_allows() -> None:
    pool = BufferPool(3 * MiB)
    buffers = [pool.take(MiB) for _ in range(5)]
    assert pool.out == 5 * MiB
    buffers.clear()
    assert (pool.out, pool.kept) == (0, 3 * MiB)
    pool.clear()
    assert pool.kept == 0


def test_what_is_in_use_counts_against_what_is_kept() -> None:
    pool = BufferPool(3 * MiB)
    held = pool.take(2 * MiB)
    others = [pool.take(MiB), pool.take(MiB)]
    others.clear()
    assert pool.kept == MiB
    assert held.size == 2 * MiB


def test_threads_never_get_the_same_buffer() -> None:
    pool = BufferPool(64 * MiB)

    def use(mark: int) -> bool:
        for _ in range(300):
            buffer = pool.take(100_000)
            buffer[::4096] = mark
            if (buffer[::4096] != mark).any():
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(use, range(1, 9)))
    assert pool.out == 0


def test_scratch_is_used_again_by_the_third_step_after() -> None:
    scratch = Scratch(BufferPool(0))
    first, second, third = (scratch.take(size) for size in (MiB, MiB, MiB))
    assert len({_address(buffer) for buffer in (first, second, third)}) == 3
    again = scratch.take(MiB + 100)
    assert (_address(again), again.size) == (_address(first), MiB + 100)


def test_scratch_grows() -> None:
    scratch = Scratch(BufferPool(0))
    sizes = [0, 10, MiB, 2 * MiB, 5, 3 * MiB, 4 * MiB]
    assert [scratch.take(size).size for size in sizes] == sizes
