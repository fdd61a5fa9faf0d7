"""Changes of every kind to an HDF5 file, the same for the same number; as a program, it makes them and is killed."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from ndstream.core.limits import KiB, Limits
from ndstream.stores.hdf5.disk import Buffer, DiskFile
from ndstream.stores.hdf5.journal import JournaledFile

Version = Literal["earliest", "latest"]

LIMITS = Limits(journal=512 * KiB)


def take_step(file: h5py.File, number: int) -> None:
    """Make change `number` to a file that those before it were made to."""
    chance = random.Random(number)
    values = np.random.default_rng(number)
    names = sorted(name for name in file if name != "rows")
    if number == 1:
        file.create_dataset("rows", shape=(0, 64), maxshape=(None, 64), chunks=(1, 64), dtype="f8")
    for _ in range(1 + number % 3):
        what = chance.choice(["create", "append", "append", "overwrite", "attribute", "delete", "shrink"])
        if what == "append":
            count = chance.choice([1, 1, 7])
            rows = file["rows"]
            rows.resize(len(rows) + count, 0)
            rows[-count:] = values.random((count, 64))
        elif what == "shrink" and len(file["rows"]) > 20:
            file["rows"].resize(len(file["rows"]) - 5, 0)
        elif what == "delete" and len(names) > 4:
            del file[names.pop(chance.randrange(len(names)))]
        elif what == "overwrite" and names:
            data = file[chance.choice(names)]["data"]
            start = chance.randrange(len(data))
            data[start:] = values.integers(0, 99, len(data) - start)
        elif what == "attribute":
            target = file[chance.choice([*names, "rows"])]
            target.attrs[f"a{chance.randrange(4)}"] = values.random(chance.choice([1, 50, 3000]))
        elif what == "create":
            name = f"g{number}-{len(names)}"
            if name not in file:
                _create(file, name, chance, values)
                names.append(name)
    file.attrs["step"] = number


def _create(file: h5py.File, name: str, chance: random.Random, values: np.random.Generator) -> None:
    group = file.create_group(name)
    data = values.integers(0, 99, chance.choice([10, 500, 40_000]))
    kinds: list[dict[str, Any]] = [{}, {"chunks": True}, {"chunks": (10,), "compression": "gzip"}]
    group.create_dataset("data", data=data, **chance.choice(kinds[: 3 if len(data) < 1000 else 2]))
    group["text"] = [f"text {number}" for number in range(chance.randrange(1, 20))]


def state_of(file: h5py.File) -> str:
    """All of the content, as a checksum."""
    found = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        found.update(name.encode())
        for key in sorted(item.attrs):
            found.update(key.encode() + item.attrs[key].tobytes())
        if isinstance(item, h5py.Dataset):
            value = item[()]
            found.update(repr(value.tolist() if value.dtype == object else (value.shape, value.tobytes())).encode())

    add("/", file)
    names: list[str] = []
    file.visit(names.append)
    for name in sorted(names):
        add(name, file[name])
    return found.hexdigest()


class Expected:
    """States of the file, step by step, in plain h5py."""

    def __init__(self, version: Version) -> None:
        self._file = h5py.File(io.BytesIO(), "w", libver=version)
        self._states = [state_of(self._file)]

    def state(self, number: int) -> str:
        """State after step `number`."""
        while len(self._states) <= number:
            take_step(self._file, len(self._states))
            self._states.append(state_of(self._file))
        return self._states[number]

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def dying(last: int, *, torn: bool = False) -> type[DiskFile]:
    """Files that end the process at their call number `last` that changes something; `torn` in the middle of a write or
    a hole.

    They synchronise nothing: the machine goes on. Calls are counted from 1.
    """
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)

    class Dying(DiskFile):
        def write(self, offset: int, *parts: Buffer) -> None:
            if torn and calls + 1 == last:
                whole = b"".join(bytes(part) for part in parts)
                super().write(offset, whole[: len(whole) // 2])
            step()
            super().write(offset, *parts)

        def resize(self, length: int) -> None:
            step()
            super().resize(length)

        def punch(self, offset: int, length: int) -> bool:
            if torn and calls + 1 == last:
                super().punch(offset, length // 2 or 1)
            step()
            return super().punch(offset, length)

        def sync(self) -> None:
            step()

        @classmethod
        def remove(cls, path: Path) -> None:
            step()
            super().remove(path)

        @classmethod
        def sync_directory(cls, path: Path) -> None:
            step()

    return Dying


def work(path: Path, version: Version, steps: int, disk: type[DiskFile]) -> None:
    """Make changes from where the file is, one commit each, up to `steps`; tell of each on standard output."""
    if not path.exists():
        h5py.File(path, "w", libver=version).close()
    with JournaledFile.open(path, limits=LIMITS, disk=disk) as journaled:
        with h5py.File(journaled, "r+", libver=version) as file:
            number = int(file.attrs.get("step", 0))
            while number < steps:
                number += 1
                take_step(file, number)
                file.flush()
                journaled.stage(b"step %d" % number)
                os.write(1, b"%d\n" % number)
                journaled.apply()
        journaled.commit()


def main() -> None:
    """Work in a fork for each call that the work may be killed at, each in a directory of its own."""
    path, steps = Path(sys.argv[1]), int(sys.argv[3])
    version: Version = "latest" if sys.argv[2] == "latest" else "earliest"
    last, alive = 0, True
    while alive:
        last += 1
        for torn in (False, True):
            folder = path / f"{last}-{torn}"
            folder.mkdir()
            child = os.fork()
            if not child:
                os.dup2(os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT), 1)
                work(folder / "f.h5", version, steps, dying(last, torn=torn))
                os._exit(0)
            alive = os.waitpid(child, 0)[1] == signal.SIGKILL


if __name__ == "__main__":
    main()
