"""Files on disk, as the journal needs them."""

from __future__ import annotations

import ctypes
import errno
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndstream.core.limits import MiB
from ndstream.stores.hdf5.disk import DiskFile

CONTENT = random.Random(1).randbytes(3 * MiB)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 3 MiB, none of whose pages is zero."""
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def file(path: Path) -> Iterator[DiskFile]:
    """The same file, open."""
    file = DiskFile.open(path)
    yield file
    file.close()


def fail_with(monkeypatch: pytest.MonkeyPatch, *errors: int) -> None:
    """Let the kernel refuse to make holes, once for each of `errors`."""
    left = list(errors)

    def fallocate(*_: int) -> int:
        if not left:
            return 0
        ctypes.set_errno(left.pop(0))
        return -1

    monkeypatch.setattr("ndstream.stores.hdf5.disk._fallocate", fallocate)


@pytest.mark.parametrize("holes", [True, False], ids=["holes", "no holes"])
@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (5000, 10), (4096, 8192), (100, 2 * MiB), (3 * MiB - 7, 7), (2 * MiB, 1 << 40), (1 << 40, 1)],
)
def test_what_is_cleared_is_zero_and_the_file_as_long_as_before(
    path: Path, file: DiskFile, offset: int, length: int, holes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not holes:
        fail_with(monkeypatch, errno.EOPNOTSUPP)
    written = file.clear(offset, length)
    inside = max(0, min(length, len(CONTENT) - offset))
    assert written == (0 if holes else inside)
    assert path.read_bytes() == CONTENT[:offset] + bytes(inside) + CONTENT[offset + inside :]


def test_what_is_cleared_takes_no_room(path: Path, file: DiskFile) -> None:
    before = path.stat().st_blocks
    file.clear(MiB, MiB)
    assert path.stat().st_blocks == before - MiB // 512


def test_holes_are_made_in_spite_of_a_signal(file: DiskFile, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, errno.EINTR, errno.EINTR)
    assert file.punch(0, 1)


def test_a_disk_that_makes_no_hole_for_another_reason_is_broken(
    path: Path, file: DiskFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="error"):
        file.clear(0, MiB)
    assert path.read_bytes() == CONTENT
