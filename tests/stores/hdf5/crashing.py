"""Disks that stop: at a chosen call, with or without what had not been synchronised."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Self

from ndstream.stores.hdf5.disk import Buffer, DiskFile
from ndstream.stores.hdf5.records import HEADER, HEADERS, unpack_header
from ndstream.stores.hdf5.recovery import journal_path

#: Where files are made thousands of times, if there is such a place.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class PowerCut(BaseException):
    """Nothing that comes after this happens."""


class Machine:
    """Makes files that stop working all at once, at the call number `last`, and knows what reached their disk.

    Calls that change something are counted. `torn` lets the last one happen in part, when it is a write or a hole;
    without `holes` the file system has none.
    """

    def __init__(self, last: int | None = None, *, torn: bool = False, holes: bool = True) -> None:
        self.calls = 0
        self.last = last
        self.torn = torn
        self.disks: dict[int, Disk] = {}
        self._open: list[DiskFile] = []
        machine = self

        class File(DiskFile):
            @classmethod
            def open(cls, path: Path, flags: int = os.O_RDWR, mode: int = 0o600) -> Self:
                machine.step()
                file = super().open(path, flags, mode)
                machine._open.append(file)
                machine.disks.setdefault(file.status().st_ino, Disk(path))
                return file

            def write(self, offset: int, *parts: Buffer) -> None:
                data = b"".join(bytes(part) for part in parts)
                if machine.at_end() and machine.torn:
                    data = data[: len(data) // 2]
                    super().write(offset, data)
                machine.step()
                super().write(offset, data)
                machine.of(self).pending.append((offset, data))

            def resize(self, length: int) -> None:
                machine.step()
                super().resize(length)
                machine.of(self).pending.append((length, None))

            def punch(self, offset: int, length: int) -> bool:
                if not holes:
                    return False
                if machine.at_end() and machine.torn:
                    super().punch(offset, length // 2 or 1)
                machine.step()
                machine.of(self).pending.append((offset, bytes(length)))
                return super().punch(offset, length)

            def sync(self) -> None:
                machine.step()
                super().sync()
                machine.of(self).settle()

            @classmethod
            def rename(cls, path: Path, target: Path) -> None:
                machine.step()
                super().rename(path, target)

            @classmethod
            def remove(cls, path: Path) -> None:
                machine.step()
                super().remove(path)

            @classmethod
            def sync_directory(cls, path: Path) -> None:
                machine.step()
                super().sync_directory(path)

        self.file: type[DiskFile] = File

    def step(self) -> None:
        """Count a call; from the last one on, none happens."""
        if self.at_end():
            raise PowerCut
        self.calls += 1

    def at_end(self) -> bool:
        """Whether the next call does not happen."""
        return self.last is not None and self.calls >= self.last

    def of(self, file: DiskFile) -> Disk:
        """What is known of the disk below an open file."""
        return self.disks[file.status().st_ino]

    def kill(self) -> None:
        """End the process: what was written stays, locks do not."""
        for file in self._open:
            if file.descriptor >= 0:
                DiskFile.close(file)

    def cut_power(self, chance: random.Random) -> None:
        """End the machine: of what was not synchronised, any part reached the disk; and start it again."""
        self.kill()
        for disk in self.disks.values():
            if disk.path.exists():
                disk.path.write_bytes(disk.survivor(chance))
                make_other_boot(disk.path)


class Disk:
    """Content of one file that is safe, and what was done to it since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.safe = bytearray(path.read_bytes())
        self.pending: list[tuple[int, bytes | None]] = []

    def settle(self) -> None:
        """Make all of it safe."""
        for offset, data in self.pending:
            change(self.safe, offset, data)
        self.pending.clear()

    def survivor(self, chance: random.Random) -> bytes:
        """Content after a power cut: any of the changes, and of the writes any sectors."""
        left = bytearray(self.safe)
        for offset, data in self.pending:
            if data is None or chance.random() < 0.4:
                if chance.random() < 0.7:
                    change(left, offset, data)
                continue
            for start, stop in sectors(offset, offset + len(data)):
                if chance.random() < 0.6:
                    change(left, start, data[start - offset : stop - offset])
        return bytes(left)


def change(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write `data` at `offset`, or for None make the content `offset` bytes long."""
    end = offset + len(data or b"")
    content.extend(bytes(max(0, end - len(content))))
    if data is None:
        del content[offset:]
    else:
        content[offset:end] = data


def sectors(start: int, stop: int) -> list[tuple[int, int]]:
    """Cut a range at the sectors of a disk."""
    cuts = [start, *range(start // 512 * 512 + 512, stop, 512), stop]
    return list(pairwise(cuts))


def make_other_boot(path: Path) -> None:
    """Let a journal look as if the machine had been started anew since, if `path` is one."""
    with path.open("r+b") as file:
        page = bytearray(file.read(4096))
        for place in HEADERS:
            header = unpack_header(page[place : place + HEADER]) if len(page) == 4096 else None
            if header is not None:
                file.seek(place)
                file.write(header._replace(boot=b"another boot, id").pack())


def make_crash_of_machine(path: Path) -> None:
    """Let the journal of a file look as if it were of before the machine was started."""
    if journal_path(path).exists():
        make_other_boot(journal_path(path))
