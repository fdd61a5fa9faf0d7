"""Kill a server that writes, again and again, and look at what it left.

As a program this is what is killed: ``python -m ndstream.testing.killing FILE NUMBER`` carries out the batches of
`ndstream.testing.story` behind that number, some at a time, and prints the number of each when it is acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py

from ndstream.core.limits import Limits, MiB
from ndstream.core.model import Group
from ndstream.core.ports import ANYBODY, Detail, Writing
from ndstream.errors import FileInUse, NDStreamError, NotFound, ServiceError, WorkerDied
from ndstream.stores.hdf5.journal import recover
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing import processes
from ndstream.testing.payloads import WRITER
from ndstream.testing.story import STEP, Expected, batch, refused

AT_ONCE = 4
"""Batches that wait for an answer at a time, at most."""
_LIMITS = Limits(journal=2 * MiB)  # emptied often: that is a moment to be killed in as well
_PATIENCE = 60.0


@dataclass(slots=True)
class Findings:
    """What came of it.

    Attributes
    ----------
    kills, acknowledged : int
        Processes that were killed; batches whose commit was acknowledged.
    lost : int
        Of those, how many were not in the file.
    halves : int
        Files in which something was not as a whole number of batches leaves it.
    unreadable : int
        Files that plain h5py did not read from beginning to end.
    details : list of str
        What was wrong.
    """

    kills: int
    acknowledged: int
    lost: int
    halves: int
    unreadable: int
    details: list[str]


class Killer:
    """Lets one server after the other go on with a file in `folder`, each until it is killed at a random moment."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.findings = Findings(0, 0, 0, 0, 0, [])
        self._folder = folder
        self._chance = random.Random(seed)
        self._files = 0
        self._begin()

    def kill(self) -> None:
        """Start a server, kill it, and look."""
        self.findings.kills += 1
        acknowledged = self._die()
        self.findings.acknowledged += max(0, acknowledged - self._expected.number)
        try:
            seen = self._come_next()
            found = self._look(acknowledged, seen)
        except (OSError, RuntimeError, KeyError, NDStreamError) as error:
            self.findings.unreadable += 1
            self._note(f"{type(error).__name__}: {error}")
            found = None
        if found is None:
            self._begin()  # what is wrong with this file shall not be counted again

    def _begin(self) -> None:
        self._files += 1
        self._path = self._folder / f"{self._files}.h5"
        self._expected = Expected()

    def _die(self) -> int:
        """Run a server until it is killed; returns the number of the last batch that it acknowledged."""
        chance = self._chance
        last = self._expected.number
        with _started(self._path, last) as server:
            assert server.stdout is not None
            target = last + chance.randrange(1, 12)
            told = b""
            while _last(told, last) < target:
                if not select.select([server.stdout], [], [], _PATIENCE)[0]:
                    raise ServiceError("a server that was to be killed does nothing")
                piece = os.read(server.stdout.fileno(), 1 << 12)
                if not piece:
                    raise ServiceError("a server that was to be killed ended by itself")
                told += piece
            # Somewhere in what comes next, which takes some milliseconds; the owner of the file first, or last.
            select.select([], [], [], chance.random() * 0.03)
            others = processes.session(server.pid) - {server.pid}
            for pid in sorted(others) if chance.random() < 0.5 else ():
                processes.send(pid, signal.SIGKILL)
                select.select([], [], [], chance.random() * 0.003)
            server.kill()
            left = processes.still_alive(others | processes.session(server.pid), _PATIENCE)
            if left:
                raise ServiceError(f"processes outlived their server: {left}")
            told += server.stdout.read()
        return _last(told, last)

    def _come_next(self) -> int | None:
        """Be whoever opens the file next, a server half the time; returns the last batch that is seen then."""
        if self._chance.random() < 0.5:
            try:
                recover(self._path)
            except FileInUse as error:
                raise ServiceError(f"its owner is dead, and yet {error}") from error
            return None
        return asyncio.run(last_seen(self._path, Writing() if self._chance.random() < 0.5 else None))

    def _look(self, acknowledged: int, seen: int | None) -> int | None:
        """Read all of the file; returns the number of its last batch, None when it is not as that left it."""
        expected = self._expected
        if not self._path.exists() or not self._path.stat().st_size:
            self.findings.lost += acknowledged
            if not acknowledged:
                return 0
            self._note("the file is gone")
            return None
        with h5py.File(self._path) as file:
            found = int(file.attrs.get(STEP, 0))
            if seen is not None and seen != found:
                self.findings.halves += 1
                self._note(f"a server saw batch {seen}, {found} is there")
                return None
            if found < acknowledged:
                self.findings.lost += acknowledged - found
                self._note(f"batch {acknowledged} was acknowledged, {found} is there")
                return None
            expected.advance(found)
            difference = expected.difference(file) if found else None
        if difference is not None or found > acknowledged + AT_ONCE:
            self.findings.halves += 1
            self._note(f"after batch {found}: {difference or 'that many were not asked for'}")
            return None
        return found

    def _note(self, what: str) -> None:
        self.findings.details.append(f"{self._path.name}, kill {self.findings.kills}: {what}")


def _started(path: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ndstream.testing.killing", str(path), str(number)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)


def _last(told: bytes, otherwise: int) -> int:
    """Highest of the numbers that were told; a line that is not complete does not count."""
    return max((int(line) for line in told.split(b"\n")[:-1]), default=otherwise)


async def last_seen(path: Path, writing: Writing | None) -> int | None:
    """Ask a store for a file whose owner died; returns the number of its last batch, None when there is no file."""
    store = HDF5Store({"": path.parent}, limits=_LIMITS, writing=writing)
    try:
        root = await store.describe(path.name, "/", ANYBODY, Detail())
        assert isinstance(root, Group)
        step = root.attributes.get(STEP)
        return int.from_bytes(step.value, "little") if step is not None and isinstance(step.value, bytes) else 0
    except NotFound:
        return None
    finally:
        await store.aclose()


async def write(path: Path, number: int) -> None:
    """Carry out the batches behind `number` until this process is killed, and tell of each."""
    store = HDF5Store({"": path.parent}, limits=_LIMITS, writing=Writing())
    chance = random.Random(number)

    async def carry_out(step: int) -> None:
        await store.apply(path.name, WRITER, batch(step), key=str(step), create=True)
        os.write(1, b"%d\n" % step)

    async def fail(step: int) -> None:
        try:
            await store.apply(path.name, WRITER, refused(step))
        except NotFound:
            return
        raise AssertionError("an impossible batch was carried out")

    while True:
        steps = range(number + 1, number + 1 + chance.randrange(1, AT_ONCE + 1))
        work = [carry_out(step) for step in steps]
        if number and chance.random() < 0.3:
            work.insert(chance.randrange(len(work) + 1), fail(number))
        results = await asyncio.gather(*work, return_exceptions=True)
        errors = [result for result in results if result is not None]
        for error in errors:
            if not isinstance(error, WorkerDied):
                raise error
        # The owner was killed before us: until we are, the same batches are sent again under the same keys.
        if not errors:
            number = steps[-1]


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
