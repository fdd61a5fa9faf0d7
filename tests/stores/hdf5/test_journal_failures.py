"""Disks that are full, broken or not ours alone: an error that says so, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.stores.hdf5.crashing import Machine, make_crash_of_machine

from ndstream.errors import (
    Conflict,
    Corrupt,
    FileInUse,
    InvalidRequest,
    NDStreamError,
    NotFound,
    StorageFailed,
    StorageFull,
)
from ndstream.stores.hdf5.disk import Buffer, DiskFile
from ndstream.stores.hdf5.journal import JournaledFile, journal_path, recover
from ndstream.stores.hdf5.recovery import put_in_order


def read_rows(path: Path) -> list[int]:
    with h5py.File(path, locking=False) as file:
        return [int(row[0]) for row in file["rows"]]


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def append(file: h5py.File, value: int) -> None:
    rows = file["rows"]
    rows.resize(len(rows) + 1, 0)
    rows[-1] = value
    file.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An HDF5 file with a dataset of 4 KiB rows, that has one."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=np.zeros((1, 512)), maxshape=(None, 512), chunks=(1, 512))
    return path


def commit_row(journaled: JournaledFile, value: int) -> None:
    with h5py.File(journaled, "r+") as file:
        append(file, value)
    journaled.commit()


def crash_after(path: Path, *values: int, staged: bool = False) -> None:
    """Leave a file whose owner died with all of `values` committed, the last one only decided if it is `staged`."""
    machine = Machine()
    journaled = JournaledFile.open(path, disk=machine.file)
    for value in values[: len(values) - staged]:
        commit_row(journaled, value)
    if staged:
        with h5py.File(journaled, "r+") as file:
            append(file, values[-1])
        journaled.stage(b"the last")
    machine.kill()


# -- errors of the disk --


class Faulty(DiskFile):
    """Files that fail at one call after another."""

    left = -1  # calls until the failure; below zero there is none
    error = errno.ENOSPC
    kinds: tuple[str, ...] = ()

    @classmethod
    def fail_in(cls, calls: int, error: int, *kinds: str) -> None:
        cls.left, cls.error, cls.kinds = calls, error, kinds

    def _step(self, kind: str) -> None:
        if kind in self.kinds and Faulty.left >= 0:
            Faulty.left -= 1
            if Faulty.left < 0:
                Faulty.left = 0  # and ever after
                raise OSError(self.error, os.strerror(self.error))

    def write(self, offset: int, *parts: Buffer) -> None:
        self._step("write")
        super().write(offset, *parts)

    def resize(self, length: int) -> None:
        self._step("resize")
        super().resize(length)

    def sync(self) -> None:
        self._step("sync")
        super().sync()


@pytest.fixture(autouse=True)
def _sound() -> None:
    Faulty.left = -1


def test_a_full_disk_fails_one_transaction_and_no_other(path: Path) -> None:
    failures = 0
    with JournaledFile.open(path, disk=Faulty) as journaled:
        commit_row(journaled, 1)
        while True:
            Faulty.fail_in(failures, errno.ENOSPC, "write")
            with h5py.File(journaled, "r+") as file:
                file["large"] = np.ones(1 << 16)
                append(file, 2)
            try:
                journaled.stage()
                break
            except StorageFull as error:
                assert "data.h5" in str(error)
                assert str(journaled.failure) == str(error)
            failures += 1
            with pytest.raises(StorageFull):
                journaled.commit()
            assert read_rows(path) == [0, 1]
            Faulty.left = -1
            journaled.rollback()
            with h5py.File(journaled, "r") as file:
                assert list(file) == ["rows"]
        Faulty.left = -1
        journaled.apply()
    assert failures > 2
    assert read_rows(path) == [0, 1, 2]


def test_a_commit_that_could_not_be_applied_is_applied_later(path: Path) -> None:
    journaled = JournaledFile.open(path, disk=Faulty)
    with h5py.File(journaled, "r+") as file:
        append(file, 1)
    journaled.stage()
    Faulty.fail_in(1, errno.ENOSPC, "write")
    with pytest.raises(StorageFull):
        journaled.apply()
    with pytest.raises(RuntimeError, match="apply"):
        journaled.rollback()
    with pytest.raises(StorageFull):
        journaled.close()
    Faulty.left = -1
    recovered = recover(path)
    assert recovered is not None
    assert (recovered.commit, recovered.replayed) == (1, 1)
    assert read_rows(path) == [0, 1]


class Small(DiskFile):
    """Files that there is little room for: bytes that are written take some, wherever they are."""

    room = 0

    def write(self, offset: int, *parts: Buffer) -> None:
        Small.room -= sum(map(len, parts))
        if Small.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(offset, *parts)


GIB = 1 << 30


def commit_end(journaled: JournaledFile, *ends: int) -> None:
    """Make the file end there, one after the other, each time with a byte that is not zero."""
    for end in ends:
        journaled.truncate(end - 1)
        journaled.seek(end - 1)
        journaled.write(b"x")
    journaled.commit()


@pytest.mark.parametrize("apart", [True, False], ids=["by three commits", "by one commit"])
def test_zeros_need_no_room(path: Path, apart: bool) -> None:
    Small.room = 4 << 20
    with JournaledFile.open(path, disk=Small, durability="flush") as journaled:
        start = path.read_bytes()
        commit_end(journaled, GIB)
        for ends in [(len(start) + 1,), (GIB,)] if apart else [(len(start) + 1, GIB)]:
            commit_end(journaled, *ends)
    assert path.stat().st_size == GIB
    assert path.stat().st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        assert file.read(len(start) + 4096) == start + b"x" + bytes(4095)
        file.seek(-4096, os.SEEK_END)
        assert file.read() == bytes(4095) + b"x"


def test_zeros_need_no_room_when_they_are_recovered(path: Path) -> None:
    before = os.urandom(8 << 20)
    path.write_bytes(before)
    journaled = JournaledFile.open(path)
    commit_end(journaled, 5000)
    commit_end(journaled, GIB)
    journaled.lost = True  # it dies
    journaled.close()
    path.write_bytes(before)  # nothing of it had reached the disk
    make_crash_of_machine(path)
    Small.room = 4 << 20
    recovered = recover(path, disk=Small)
    assert recovered is not None
    assert recovered.replayed == 2
    assert recovered.nbytes < 1 << 20
    assert path.stat().st_size == GIB
    assert path.stat().st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        assert file.read(16 << 20) == before[:4999] + b"x" + bytes((16 << 20) - 5000)


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_disk_that_breaks_loses_nothing_that_was_acknowledged(path: Path, kind: str) -> None:
    failures = acknowledged = 0
    whole = False
    while not whole:
        Faulty.fail_in(failures, errno.EIO, kind)
        try:
            with JournaledFile.open(path, disk=Faulty) as journaled:
                for _ in range(3):
                    with h5py.File(journaled, "r+") as file:
                        if "large" in file:
                            del file["large"]
                        file["large"] = np.ones(1 << 15)
                        append(file, acknowledged + 1)
                    journaled.commit()
                    acknowledged += 1
            whole = True
        except StorageFailed as error:
            assert "data.h5" in str(error)
            failures += 1
        Faulty.left = -1
        recover(path)
        rows = read_rows(path)
        assert len(rows) - 1 in (acknowledged, acknowledged + 1)
        acknowledged = len(rows) - 1
    assert failures > 4


def test_a_commit_that_was_rolled_back_is_not_replayed(path: Path) -> None:
    class Doubtful(DiskFile):
        failing = False

        def write(self, offset: int, *parts: Buffer) -> None:
            super().write(offset, *parts)
            if self.failing and len(parts) > 1:  # a record
                raise OSError(errno.EIO, "all of it is there, though")

    journaled = JournaledFile.open(path, disk=Doubtful)
    with h5py.File(journaled, "r+") as file:
        append(file, 1)
    Doubtful.failing = True
    with pytest.raises(StorageFailed):
        journaled.commit()
    Doubtful.failing = False
    journaled.rollback()
    journaled.lost = True  # it dies
    journaled.close()
    recovered = recover(path)
    assert recovered is not None
    assert recovered.commit == 0
    assert read_rows(path) == [0]


def test_after_a_failed_synchronisation_nothing_is_written_any_more(path: Path) -> None:
    machine = Machine()
    journaled = JournaledFile.open(path, disk=Faulty)
    commit_row(journaled, 1)
    with h5py.File(journaled, "r+") as file:
        append(file, 2)
    Faulty.fail_in(0, errno.EIO, "sync")
    with pytest.raises(StorageFailed, match="not known"):
        journaled.commit()
    Faulty.left = -1
    assert journaled.lost
    for forbidden in (journaled.commit, journaled.rollback, journaled.stage):
        with pytest.raises(StorageFailed, match="opened again"):
            forbidden()
    journaled.close()
    assert journal_path(path).exists()

    # All of the journal is written again, as the kernel may have dropped what it could not write.
    recovered = recover(path, disk=machine.file)
    assert recovered is not None
    assert (recovered.commit, recovered.replayed) == (2, 2)
    assert read_rows(path) == [0, 1, 2]


def test_a_checkpoint_that_fails_leaves_the_journal(path: Path) -> None:
    journaled = JournaledFile.open(path, disk=Faulty)
    commit_row(journaled, 1)
    Faulty.fail_in(0, errno.EIO, "sync")
    with pytest.raises(StorageFailed):
        journaled.close()
    Faulty.left = -1
    recovered = recover(path)
    assert recovered is not None
    assert recovered.replayed == 1
    assert read_rows(path) == [0, 1]


@contextmanager
def longest_file(nbytes: int) -> Iterator[None]:
    """Let the kernel refuse to make files longer. (Python ignores the signal that comes with it.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_of_the_kernel_is_no_room(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        commit_row(journaled, 1)
        with longest_file(4 << 20):
            with h5py.File(journaled, "r+") as file:
                file["large"] = np.ones(1 << 20)
            with pytest.raises(StorageFull):
                journaled.commit()
        journaled.rollback()
        commit_row(journaled, 2)
    assert read_rows(path) == [0, 1, 2]


def test_a_directory_that_cannot_be_written_is_said(path: Path) -> None:
    class ReadOnly(DiskFile):
        @classmethod
        def open(cls, path: Path, flags: int = os.O_RDWR, mode: int = 0o600) -> DiskFile:  # type: ignore[override]
            if flags & os.O_CREAT:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return super().open(path, flags, mode)

    with pytest.raises(StorageFailed, match=r"not allowed to write data\.h5"):
        JournaledFile.open(path, disk=ReadOnly)
    assert read_rows(path) == [0]


def test_no_room_for_a_journal_leaves_nothing_behind(path: Path) -> None:
    Faulty.fail_in(0, errno.ENOSPC, "write")
    with pytest.raises(StorageFull):
        JournaledFile.open(path, disk=Faulty)
    assert names(path.parent) == ["data.h5"]


def test_a_file_that_is_written_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        JournaledFile.open(tmp_path / "none.h5")
    with pytest.raises(InvalidRequest):
        (tmp_path / "fifo").mkdir()
        os.mkfifo(tmp_path / "fifo" / "f")
        JournaledFile.open(tmp_path / "fifo" / "f")
    assert names(tmp_path) == ["fifo"]


def test_the_journal_is_hidden_and_for_those_who_may_read_the_file(path: Path) -> None:
    path.chmod(0o640)
    with JournaledFile.open(path):
        journal = journal_path(path)
        assert journal.name == ".data.h5.ndstream-journal"
        assert journal.parent == path.parent
        assert journal.stat().st_mode & 0o777 == 0o640


# -- what is left behind --


def test_without_a_journal_there_is_nothing_to_recover(path: Path) -> None:
    assert recover(path) is None
    assert recover(path.parent / "none") is None


def test_opening_recovers_first_and_goes_on_counting(path: Path) -> None:
    crash_after(path, 1, 2, 3, staged=True)
    assert read_rows(path) == [0, 1, 2]
    with JournaledFile.open(path) as journaled:
        assert journaled.recovered is not None
        assert journaled.recovered.notes == ((1, b""), (2, b""), (3, b"the last"))
        assert (journaled.recovered.replayed, journaled.number) == (1, 3)
        commit_row(journaled, 4)
        assert journaled.number == 4
    assert read_rows(path) == [0, 1, 2, 3, 4]


def test_numbers_go_on_from_the_one_that_the_caller_knows(path: Path) -> None:
    with JournaledFile.open(path, number=41) as journaled:
        assert journaled.commit() == 42


def test_a_journal_of_a_file_that_was_replaced_is_put_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crash_after(path, 1, staged=True)
    other = path.with_name("other")
    with h5py.File(other, "w") as file:
        file["rows"] = np.full((1, 2), 7)
    other.replace(path)
    with caplog.at_level(logging.WARNING):
        assert recover(path) is None
    assert "data.h5" in caplog.text
    assert read_rows(path) == [7]
    aside, _ = names(path.parent)
    assert aside.startswith(".data.h5.ndstream-journal.")
    assert aside in caplog.text


def test_a_journal_of_a_file_that_is_gone_is_put_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crash_after(path, 1, staged=True)
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert recover(path) is None
    assert len(names(path.parent)) == 1


def test_a_file_that_was_changed_since_is_not_overwritten(path: Path) -> None:
    crash_after(path, 1, 2, staged=True)
    with h5py.File(path, "r+") as file:
        file["rows"][0] = 99
    for opening in (recover, JournaledFile.open):
        with pytest.raises(Conflict, match=r"\.data\.h5\.ndstream-journal"):
            opening(path)
    assert read_rows(path) == [99, 1]
    journal_path(path).rename(path.with_name("kept"))
    assert recover(path) is None
    assert read_rows(path) == [99, 1]


def test_a_file_that_was_changed_after_all_was_applied_is_left_as_it_is(path: Path) -> None:
    crash_after(path, 1)
    with h5py.File(path, "r+") as file:
        file["more"] = np.ones(1000)
    recovered = recover(path)
    assert recovered is not None
    assert (recovered.commit, recovered.replayed) == (1, 0)
    with h5py.File(path) as file:
        assert sorted(file) == ["more", "rows"]


def test_a_file_that_was_changed_long_after_the_machine_crashed_is_not_overwritten(path: Path) -> None:
    crash_after(path, 1)
    make_crash_of_machine(path)
    later = path.stat().st_mtime_ns + 3600 * 10**9
    os.utime(path, ns=(later, later))
    with pytest.raises(Conflict):
        recover(path)


def test_after_a_crash_of_the_machine_all_commits_are_replayed(path: Path) -> None:
    before = path.read_bytes()
    crash_after(path, 1, 2, 3)
    with path.open("r+b") as file:  # none of them had reached the disk
        file.write(before)
        file.truncate()
    make_crash_of_machine(path)
    recovered = recover(path)
    assert recovered is not None
    assert (recovered.commit, recovered.replayed) == (3, 3)
    assert read_rows(path) == [0, 1, 2, 3]


def test_a_journal_that_is_something_else_is_not_touched(path: Path) -> None:
    journal_path(path).write_bytes(b"no journal" * 1000)
    with pytest.raises(Corrupt, match="move"):
        recover(path)
    assert journal_path(path).read_bytes() == b"no journal" * 1000


def test_a_journal_that_is_a_link_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(b"of somebody else")
    journal_path(path).symlink_to(victim)
    with pytest.raises(NDStreamError):
        JournaledFile.open(path)
    assert victim.read_bytes() == b"of somebody else"


def test_a_file_replaced_while_it_is_written_takes_no_commit(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        with h5py.File(journaled, "r+") as file:
            append(file, 1)
        other = path.with_name("other")
        with h5py.File(other, "w") as file:
            file["rows"] = np.full((1, 2), 7)
        other.replace(path)
        with pytest.raises(Conflict):
            journaled.commit()
    assert read_rows(path) == [7]


# -- others --


def elsewhere(code: str, path: Path, **environment: str) -> subprocess.Popen[str]:
    """Run code in another process; it has `h5py` and `path`, and waits for a line where it says ``input()``."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import h5py, sys; path = sys.argv[1]; {code}", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize("locking", ["TRUE", "BEST_EFFORT"])
def test_others_may_read_the_file_but_not_write_to_it(path: Path, locking: str) -> None:
    code = """
print(len(h5py.File(path)["rows"]))
try:
    h5py.File(path, "r+")
except BlockingIOError:
    print("refused")
"""
    with JournaledFile.open(path) as journaled:
        commit_row(journaled, 1)
        with elsewhere(code, path, HDF5_USE_FILE_LOCKING=locking) as process:
            out, _ = process.communicate(timeout=60)
    assert out.split() == ["2", "refused"]


def test_a_file_that_another_program_writes_cannot_be_opened(path: Path) -> None:
    with elsewhere("f = h5py.File(path, 'r+'); print('open', flush=True); input()", path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(FileInUse, match=r"data\.h5"):
            JournaledFile.open(path)
        assert names(path.parent) == ["data.h5"]
        process.communicate("\n", timeout=60)
    JournaledFile.open(path).close()


def test_a_file_that_another_program_reads_can_be_opened(path: Path) -> None:
    with elsewhere("f = h5py.File(path); print('open', flush=True); input()", path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with JournaledFile.open(path) as journaled:
            commit_row(journaled, 1)
        process.communicate("\n", timeout=60)
    assert read_rows(path) == [0, 1]


def test_a_file_has_one_owner(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        for opening in (JournaledFile.open, recover):
            with pytest.raises(FileInUse, match=r"data\.h5"):
                opening(path)
        commit_row(journaled, 1)
    JournaledFile.open(path).close()
    assert read_rows(path) == [0, 1]


@pytest.mark.parametrize("way", [os.link, os.rename], ids=["hard link", "moved"])
def test_a_file_has_one_owner_whatever_it_is_called(path: Path, way: Callable[[Path, Path], None]) -> None:
    other = path.with_name("other.h5")
    with JournaledFile.open(path) as journaled:
        commit_row(journaled, 1)
        way(path, other)
        with pytest.raises(FileInUse, match=r"other\.h5 .* another name"):
            JournaledFile.open(other)
        assert not journal_path(other).exists()
        if path.exists():
            commit_row(journaled, 2)
    with JournaledFile.open(other) as journaled:
        commit_row(journaled, 3)
    assert read_rows(other) == ([0, 1, 2, 3] if path.exists() else [0, 1, 3])


def test_a_file_that_is_written_under_another_name_is_not_recovered(path: Path) -> None:
    crash_after(path, 1, 2, staged=True)
    other = path.with_name("other.h5")
    os.link(path, other)
    with JournaledFile.open(other):
        with pytest.raises(FileInUse, match=r"data\.h5 .* another name"):
            recover(path)
        put_in_order(path)  # for who only reads
        assert read_rows(path) == [0, 1]
        assert journal_path(path).exists()
    recovered = recover(path)
    assert recovered is not None
    assert recovered.replayed == 1
    assert read_rows(path) == [0, 1, 2]


def test_who_gets_hold_of_the_journal_can_have_the_file(path: Path) -> None:
    looks: list[tuple[bool, bool]] = []

    class Looking(DiskFile):
        def close(self) -> None:
            super().close()
            journal, main = DiskFile.open(journal_path(path)), DiskFile.open(path)
            looks.append((journal.lock(shared=False), main.claim()))
            journal.close()
            main.close()

    journaled = JournaledFile.open(path, disk=Looking)
    journaled.lost = True  # so that the journal stays
    journaled.close()
    assert looks == [(False, True), (True, True)]


def test_a_file_that_another_program_writes_is_not_recovered(path: Path) -> None:
    crash_after(path, 1, staged=True)
    with h5py.File(path, "r+"), pytest.raises(FileInUse):
        recover(path)


def test_a_disk_that_breaks_while_more_is_written_is_not_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks = True

    def break_once(descriptor: int) -> None:
        nonlocal breaks
        if breaks:
            breaks = False  # the kernel tells it once, to whoever asks first
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(descriptor)

    with JournaledFile.open(path) as journaled:
        monkeypatch.setattr("ndstream.stores.hdf5.disk.os.fdatasync", break_once)
        with h5py.File(journaled, "r+") as file:
            file["large"] = np.ones(4 << 20)
        assert not breaks, "nothing was synchronised before the commit"
        with pytest.raises(StorageFailed, match="not known what is on the disk"):
            journaled.commit()
        assert journaled.lost
    monkeypatch.undo()
    recover(path)
    assert read_rows(path) == [0]
