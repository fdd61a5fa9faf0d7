"""What is lent of a file: the bytes that are there, only when the page cache has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ndstream.stores.hdf5.pages import lend

MiB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(np.random.default_rng(1).bytes(8 * MiB))
    fd = os.open(tmp_path / "file", os.O_RDWR)
    os.fsync(fd)
    yield fd
    os.close(fd)


@pytest.fixture
def lent_file(file: int) -> int:
    if lend(file, 0, MiB) is None:
        pytest.skip("this kernel does not say what is in memory")
    return file


@pytest.mark.parametrize("offset", [0, 1, 4096, 2 * MiB + 2048, 6 * MiB])
def test_what_is_lent_is_what_is_in_the_file(lent_file: int, offset: int) -> None:
    lent = lend(lent_file, offset, 2 * MiB)
    assert lent is not None
    assert lent.for_kernel == os.pread(lent_file, 2 * MiB, offset)
    assert lent[5:MiB].for_kernel == os.pread(lent_file, MiB - 5, offset + 5)
    assert len(lent[5:MiB]) == MiB - 5


def test_nothing_is_lent_that_has_to_be_read_from_the_disk_first(lent_file: int) -> None:
    os.posix_fadvise(lent_file, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        os.preadv(lent_file, (bytearray(1),), 4 * MiB, os.RWF_NOWAIT)
    except BlockingIOError:
        pass
    else:
        pytest.skip("this file system keeps everything in memory")
    assert lend(lent_file, 4 * MiB, MiB) is None


def test_nothing_is_lent_beyond_the_end_of_the_file(file: int) -> None:
    assert lend(file, 7 * MiB + 1, MiB) is None
    assert lend(file, 64 * MiB, MiB) is None


def test_what_is_lent_of_a_file_that_is_cut_short_fails_in_the_kernel(lent_file: int, tmp_path: Path) -> None:
    """`EFAULT` for who writes it somewhere: no signal that ends the process."""
    lent = lend(lent_file, 0, 4 * MiB)
    assert lent is not None
    os.ftruncate(lent_file, 0)
    with (tmp_path / "copy").open("wb", buffering=0) as copy, pytest.raises(OSError, match="Bad address"):
        copy.write(lent.for_kernel)
