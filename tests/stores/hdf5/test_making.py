"""New files are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import h5py
import pytest

from ndstream.errors import Exists, NotFound, StorageFull
from ndstream.stores.hdf5.disk import Buffer, DiskFile
from ndstream.stores.hdf5.making import make_file


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_whoever_looks_meanwhile_finds_a_file_or_none(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.h5" for number in range(50)]
    found: list[int] = []

    def look() -> None:
        for path in paths:
            while not path.exists():
                pass
            with h5py.File(path, "r", locking=False) as file:
                found.append(len(file))

    looking = threading.Thread(target=look)
    looking.start()
    for path in paths:
        make_file(path)
    looking.join()
    assert found == [0] * len(paths)
    assert names(tmp_path) == sorted(path.name for path in paths)


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "there.h5"
    path.write_bytes(b"mine")
    with pytest.raises(Exists, match=r"there\.h5"):
        make_file(path)
    assert path.read_bytes() == b"mine"
    assert names(tmp_path) == ["there.h5"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        make_file(tmp_path / "new.h5")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new.h5").stat().st_mode) == 0o640


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    class Full(DiskFile):
        def write(self, offset: int, *parts: Buffer) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageFull, match=r"new\.h5"):
        make_file(tmp_path / "new.h5", disk=Full)
    assert names(tmp_path) == []
    with pytest.raises(NotFound):
        make_file(tmp_path / "nowhere" / "new.h5")
