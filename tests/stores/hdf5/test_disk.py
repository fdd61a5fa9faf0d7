"""Files on disk, as the journal needs them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import struct
import subprocess
import sys
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


# -- claims --


@pytest.fixture
def other(path: Path) -> Iterator[DiskFile]:
    """The same file, opened under another name."""
    name = path.with_name("g")
    os.link(path, name)
    other = DiskFile.open(name)
    yield other
    if other.descriptor >= 0:
        other.close()


def test_a_file_is_claimed_once_under_whatever_name_until_it_is_closed(file: DiskFile, other: DiskFile) -> None:
    assert other.claim()
    assert other.claim()
    assert not file.claim()
    assert not file.claim(patience=0.03)
    other.close()
    assert file.claim()


def test_a_claim_ends_with_its_process(path: Path, file: DiskFile) -> None:
    code = (
        "import sys; from pathlib import Path; from ndstream.stores.hdf5.disk import DiskFile; "
        "print(DiskFile.open(Path(sys.argv[1])).claim(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not file.claim()
        process.kill()
    assert file.claim()


def test_a_claim_and_the_locks_of_hdf5_do_not_meet(file: DiskFile, other: DiskFile) -> None:
    assert file.lock(shared=False)
    assert other.claim()
    assert not other.lock(shared=True)
    other.close()
    assert file.claim()


def lock_all(file: DiskFile, kind: int) -> bool:
    """Lock a file as flock does over NFS."""
    try:
        fcntl.fcntl(file.descriptor, fcntl.F_OFD_SETLK, struct.pack("=hh4xqqi4x", kind, 0, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def test_a_claim_and_those_who_read_over_nfs_do_not_meet(path: Path, file: DiskFile, other: DiskFile) -> None:
    assert file.claim()
    assert not lock_all(other, fcntl.F_WRLCK)
    assert lock_all(other, fcntl.F_RDLCK)
    third = DiskFile.open(path)
    assert not third.claim()
    file.close()
    assert third.claim()
    third.close()
    file.descriptor = os.open(path, os.O_RDWR)
    assert lock_all(file, fcntl.F_RDLCK)
    assert file.claim()


def test_whoever_writes_over_nfs_keeps_others_from_a_claim(file: DiskFile, other: DiskFile) -> None:
    assert lock_all(other, fcntl.F_WRLCK)
    assert not file.claim()


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_such_locks_nobody_is_refused(
    file: DiskFile, other: DiskFile, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    assert other.claim()
    monkeypatch.setattr("ndstream.stores.hdf5.disk.fcntl.fcntl", refuse)
    assert file.claim()


def test_a_lock_that_fails_for_another_reason_is_told(file: DiskFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("ndstream.stores.hdf5.disk.fcntl.fcntl", fail)
    with pytest.raises(OSError, match="error"):
        file.claim()
