"""The journaled file: a file like any other in between, and after a crash what the last commit made of it."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stores.hdf5.crashing import MEMORY, Machine, PowerCut, make_crash_of_machine

from ndstream.core.limits import KiB, Limits, MiB
from ndstream.errors import Conflict, Corrupt, StorageFailed
from ndstream.stores.hdf5.disk import DiskFile
from ndstream.stores.hdf5.journal import JournaledFile, Recovered, journal_path, recover
from ndstream.stores.hdf5.records import SLOT

LIMITS = Limits(journal=256 * KiB)


def difference(found: bytes | bytearray, expected: bytes | bytearray) -> int | None:
    """Where two contents begin to differ. (pytest would spend minutes on showing all of it.)"""
    if found == expected:
        return None
    short = min(len(found), len(expected))
    unequal = np.flatnonzero(np.frombuffer(found, "u1", short) != np.frombuffer(expected, "u1", short))
    return int(unequal[0]) if len(unequal) else short


class Quick(DiskFile):
    """Files that are not synchronised."""

    def sync(self) -> None:
        pass

    @classmethod
    def sync_directory(cls, path: Path) -> None:
        pass


class Session:
    """A journaled file, and what should be in it."""

    def __init__(self, path: Path, machine: Machine, first: bytes, durability: Any = "fsync") -> None:
        path.write_bytes(first)
        self.path = path
        self.machine = machine
        self.durability = durability
        self.states = [first]  # what each commit made of it
        self.draft = bytearray(first)
        self.decided = 0
        self.staged = False
        self.file: JournaledFile | None = None

    def opened(self) -> JournaledFile:
        if self.file is None:
            self.file = JournaledFile.open(
                self.path, durability=self.durability, limits=LIMITS, disk=self.machine.file, number=self.decided
            )
        return self.file

    def write(self, place: float, length: int, seed: int) -> None:
        offset = int(place * len(self.draft))
        data = random.Random(seed).randbytes(length)
        self.ready().seek(offset)
        self.opened().write(data)
        self.draft.extend(bytes(max(0, offset + length - len(self.draft))))
        self.draft[offset : offset + length] = data

    def scatter(self, place: float, step: int, seed: int) -> None:
        for number in range(150):
            self.ready()
            offset = int(place * len(self.draft)) + number * step
            if offset < len(self.draft):
                self.write(offset / len(self.draft), 1 + seed % 7, seed + number)

    def truncate(self, place: float) -> None:
        size = int(place * len(self.draft))
        self.ready().truncate(size)
        self.draft.extend(bytes(max(0, size - len(self.draft))))
        del self.draft[size:]

    def cut(self, place: float, longer: float) -> None:
        """Make the file shorter, and as long as before or longer, so that there are zeros within it."""
        size = len(self.draft)
        self.truncate(place)
        self.truncate(longer * size / max(1, len(self.draft)))

    def ready(self) -> JournaledFile:
        self.apply()
        return self.opened()

    def stage(self) -> None:
        file = self.ready()
        self.states.append(bytes(self.draft))
        assert file.stage(b"note %d" % (self.decided + 1)) == self.decided + 1
        self.decided += 1
        self.staged = True

    def apply(self) -> None:
        self.opened().apply()
        self.staged = False

    def commit(self) -> None:
        file = self.ready()
        self.states.append(bytes(self.draft))
        self.decided = file.commit(b"note %d" % (self.decided + 1))
        assert difference(self.path.read_bytes(), self.draft) is None

    def rollback(self) -> None:
        self.ready().abandon()
        self.opened().write(b"dropped")
        self.opened().rollback()
        self.draft[:] = self.states[self.decided]

    def checkpoint(self) -> None:
        if not self.ready().changed:
            self.opened().checkpoint()

    def reopen(self) -> None:
        if self.file is not None:
            self.file.close()
            assert not journal_path(self.path).exists()
        self.file = None
        self.draft[:] = self.states[self.decided]
        assert difference(self.path.read_bytes(), self.draft) is None

    def check(self) -> None:
        file = self.opened()
        file.seek(0)
        assert difference(file.read(), self.draft) is None
        assert file.seek(0, os.SEEK_END) == file.tell() == len(self.draft)


PLACES = st.sampled_from([0.0, 1.0]) | st.floats(0, 1) | st.floats(1, 1.3)
LENGTHS = st.sampled_from([1, 10, 700, 5000, 130_000, 300_000])
STEPS = st.lists(
    st.tuples(st.just("write"), PLACES, LENGTHS, st.integers(0, 99))
    | st.tuples(st.just("write"), PLACES, LENGTHS, st.integers(0, 99))
    | st.tuples(st.just("scatter"), PLACES, st.integers(1, 700), st.integers(0, 99))
    | st.tuples(st.just("truncate"), PLACES)
    | st.tuples(st.just("cut"), st.floats(0, 1), st.floats(1, 2))
    | st.tuples(st.sampled_from(["stage", "commit", "commit", "rollback", "checkpoint", "reopen"])),
    max_size=14,
)
FIRST = st.sampled_from([b"", b"few bytes", bytes(range(256)) * 2000])


def take(session: Session, steps: list[tuple[Any, ...]], *, check: bool) -> None:
    for name, *arguments in steps:
        getattr(session, name)(*arguments)
        if check:
            session.check()


@given(first=FIRST, steps=STEPS, holes=st.booleans())
def test_it_is_a_file_like_any_other(first: bytes, steps: list[tuple[Any, ...]], holes: bool) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        session = Session(Path(folder) / "f", Machine(holes=holes), first, "flush")
        take(session, steps, check=True)
        session.reopen()
        assert [file.name for file in Path(folder).iterdir()] == ["f"]


@settings(max_examples=200)
@given(
    first=FIRST,
    steps=STEPS,
    last=st.integers(6, 150),
    torn=st.booleans(),
    holes=st.booleans(),
    power=st.booleans(),
    again=st.none() | st.integers(0, 12),
    chance=st.randoms(use_true_random=False),
)
def test_after_a_crash_it_is_as_the_last_commit_left_it(
    first: bytes,
    steps: list[tuple[Any, ...]],
    last: int,
    torn: bool,
    holes: bool,
    power: bool,
    again: int | None,
    chance: random.Random,
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        machine = Machine(last, torn=torn, holes=holes)
        session = Session(Path(folder) / "f", machine, first)
        with contextlib.suppress(PowerCut):
            take(session, steps, check=False)
        crash(machine, power, chance)

        if again is not None:  # the recovery dies as well
            machine = Machine(again, torn=torn, holes=holes)
            with contextlib.suppress(PowerCut):
                recover(session.path, disk=machine.file)
            crash(machine, power, chance)

        recovered = recover(session.path)
        assert [file.name for file in Path(folder).iterdir()] == ["f"]
        numbers = possible_commits(session, recovered, power=power)
        if recovered is not None:
            assert recovered.commit in numbers
            first_note = recovered.commit - len(recovered.notes) + 1
            assert recovered.notes == tuple((n, b"note %d" % n) for n in range(first_note, recovered.commit + 1))


#: What one commit writes and a later one makes shorter, or writes straight in its place, with checkpoints in between.
STORIES: list[list[tuple[Any, ...]]] = [
    # The end is cut off by one commit, and written straight by the next.
    [("write", 0.99, 700, 1), ("commit",), ("truncate", 0.5), ("commit",), ("write", 1.0, 300_000, 2), ("commit",)],
    # Bytes behind the end of their own commit.
    [("write", 1.0, 700, 1), ("truncate", 0.999), ("commit",), ("write", 1.0, 300_000, 2), ("commit",)],
    # Records of before a checkpoint behind those after it.
    [
        *[step for seed in range(5) for step in (("write", 0.1 * seed, 5000, seed), ("commit",))],
        *[("checkpoint",), ("write", 0.3, 10, 6), ("commit",), ("write", 0.7, 130_000, 7), ("commit",)],
        *[("checkpoint",), ("truncate", 0.2), ("write", 1.2, 10, 8), ("stage",), ("checkpoint",)],
    ],
    # A large transaction, part of it in the journal before it is rolled back, and another in its place.
    [("write", 0.0, 300_000, 1), ("write", 0.4, 5000, 2), ("rollback",), ("write", 0.1, 130_000, 3), ("commit",)],
    # The end is cut off and zero again, by one commit with bytes within it, and by two with bytes that went straight.
    [
        *[("truncate", 0.3), ("truncate", 3.0), ("write", 0.5, 10, 1), ("commit",), ("write", 0.99, 5000, 2)],
        *[("commit",), ("truncate", 0.2), ("commit",), ("write", 6.0, 300_000, 3), ("commit",)],
    ],
]


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("story", range(len(STORIES)))
def test_a_crash_at_any_call_of_a_story_leaves_whole_commits(story: int, power: bool) -> None:
    last, left = 0, True
    while left:
        last += 1
        for seed in range(12 if power else 2):
            # In memory: it is done thousands of times, and what reaches the disk is made up.
            with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
                machine = Machine(last, torn=bool(seed % 2))
                session = Session(Path(folder) / "f", machine, bytes(range(256)) * 1000)
                try:
                    take(session, STORIES[story], check=False)
                    left = False
                except PowerCut:
                    pass
                crash(machine, power, random.Random(seed))
                recovered = recover(session.path, disk=Quick)
                assert possible_commits(session, recovered, power=power)


def crash(machine: Machine, power: bool, chance: random.Random) -> None:
    if power:
        machine.cut_power(chance)
    else:
        machine.kill()


def possible_commits(session: Session, recovered: Recovered | None, *, power: bool) -> list[int]:
    """Numbers of the commits that left the file as it is: what was decided is there, what was not is no half."""
    content = session.path.read_bytes()
    numbers = range(session.decided, len(session.states))
    found = [number for number in numbers if difference(content, session.states[number]) is None]
    if not found:
        # What of a transaction went straight behind the end may be left there: nothing refers to it.
        assert power
        assert recovered is None or not recovered.notes
        last = session.states[session.decided]
        assert difference(content, last) == len(last)
        return [session.decided]
    return found


# -- damaged journals --


def three_commits(path: Path, disk: type[DiskFile], *, applied: int) -> list[bytes]:
    """Leave a file with a journal of three small commits, of which `applied` are carried out; returns its states."""
    states = [bytes(range(200))]
    path.write_bytes(states[0])
    file = JournaledFile.open(path, disk=disk)
    for number in range(1, 4):
        file.seek(30 * number)
        file.write(b"commit %d" % number)
        file.seek(0, os.SEEK_END)
        file.write(b"appended by %d" % number)
        file.truncate(file.tell() - 3)
        file.stage(b"note")
        file.seek(0)
        states.append(file.read())
        if number <= applied or number < 3:
            file.apply()
    return states


@dataclass
class Left:
    """What a crash left: a file, its journal, and where in the journal the records end."""

    path: Path
    main: bytes
    journal: bytes
    states: list[bytes]
    ends: list[int]
    mtime: int

    def restore(self, journal: bytes) -> None:
        """Have it all again, with another journal."""
        self.path.write_bytes(self.main)
        os.utime(self.path, ns=(self.mtime, self.mtime))  # nobody else has written to it
        journal_path(self.path).write_bytes(journal)


@pytest.fixture(params=["machine", "process"])
def left(request: pytest.FixtureRequest) -> Iterator[Left]:
    """After a crash of the machine none of the commits is in the file, after one of the process the first two are."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "f"
        machine = Machine()
        states = three_commits(path, machine.file, applied=2)
        machine.kill()
        if request.param == "machine":
            make_crash_of_machine(path)
        journal = journal_path(path).read_bytes()
        mtime = path.stat().st_mtime_ns
        ends = [journal.rindex(b"note", 0, journal.rindex(b"appended by %d" % n) + 200) + 4 for n in (1, 2, 3)]
        yield Left(path, states[0 if request.param == "machine" else 2], journal.rstrip(b"\0"), states, ends, mtime)


def test_a_journal_cut_anywhere_gives_the_commits_that_are_whole(left: Left) -> None:
    for length in [*range(0, SLOT, 61), *range(SLOT, len(left.journal) + 1)]:
        left.restore(left.journal[:length])
        whole = sum(end <= length for end in left.ends)
        with contextlib.suppress(Conflict):  # the file is further than the journal
            recover(left.path, disk=Quick)
        expected = max(whole, left.states.index(left.main))
        assert left.path.read_bytes() == left.states[expected], f"cut at {length}"


def test_a_byte_that_flips_in_a_journal_is_seen_or_does_not_matter(left: Left) -> None:
    seen = 0
    for place in [*range(0, SLOT, 7), *range(SLOT, len(left.journal))]:
        flipped = bytearray(left.journal)
        flipped[place] ^= 1 << place % 8
        left.restore(bytes(flipped))
        try:
            recover(left.path, disk=Quick)
        except (Corrupt, Conflict):
            seen += 1
            assert left.path.read_bytes() == left.main
            assert journal_path(left.path).read_bytes() == flipped
        else:
            assert left.path.read_bytes() in left.states[2:], f"flipped at {place}"
    assert seen


# -- transactions, as h5py makes them --


def read_rows(path: Path) -> list[int]:
    with h5py.File(path, locking=False) as file:
        return [int(row[0]) for row in file["rows"]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An HDF5 file with a dataset of 4 KiB rows, that has one."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=np.zeros((1, 512)), maxshape=(None, 512), chunks=(1, 512))
    return path


def append(file: h5py.File, value: int) -> None:
    rows = file["rows"]
    rows.resize(len(rows) + 1, 0)
    rows[-1] = value
    file.flush()


def test_readers_see_a_commit_when_it_is_applied_and_nothing_before(path: Path) -> None:
    with JournaledFile.open(path) as journaled, h5py.File(journaled, "r+") as file:
        append(file, 1)
        assert read_rows(path) == [0]
        assert journaled.changed
        assert journaled.stage() == journaled.number == 1
        assert read_rows(path) == [0]
        journaled.apply()
        assert read_rows(path) == [0, 1]
        assert not journaled.changed
        journaled.apply()  # nothing is left to do
        file.close()
        journaled.commit()
    assert read_rows(path) == [0, 1]


def test_what_is_rolled_back_was_never_there(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        before = path.read_bytes()
        with h5py.File(journaled, "r+") as file:
            file["large"] = np.ones(1 << 20)
            append(file, 1)
            journaled.abandon()
        journaled.rollback()
        assert path.read_bytes() == before
        with h5py.File(journaled, "r+") as file:
            assert list(file) == ["rows"]
            append(file, 2)
            journaled.commit()
            journaled.abandon()
    assert read_rows(path) == [0, 2]


def test_what_was_not_committed_is_dropped_when_it_is_closed(path: Path) -> None:
    with JournaledFile.open(path) as journaled, h5py.File(journaled, "r+") as file:
        append(file, 1)
        file.close()
    assert read_rows(path) == [0]


def test_what_is_staged_is_applied_when_it_is_closed(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        with h5py.File(journaled, "r+") as file:
            append(file, 1)
        journaled.stage()
    assert read_rows(path) == [0, 1]


def test_nothing_is_written_between_staging_and_applying(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        journaled.stage()
        for forbidden in (journaled.stage, journaled.rollback, journaled.abandon, journaled.checkpoint):
            with pytest.raises(RuntimeError, match="apply"):
                forbidden()
        journaled.write(b"x")  # h5py cannot be told
        journaled.apply()
        with pytest.raises(StorageFailed, match="apply"):
            journaled.stage()
        journaled.rollback()
        assert journaled.commit() == 2
    assert read_rows(path) == [0]


def test_a_closed_file_takes_nothing_more(path: Path) -> None:
    journaled = JournaledFile.open(path)
    journaled.close()
    journaled.close()
    journaled.write(b"by h5py, when its file is collected at last")
    with pytest.raises(ValueError, match="closed"):
        journaled.commit()
    assert read_rows(path) == [0]


def test_a_checkpoint_waits_for_the_end_of_a_transaction(path: Path) -> None:
    with JournaledFile.open(path) as journaled:
        journaled.seek(0, os.SEEK_END)
        journaled.write(b"x")
        with pytest.raises(RuntimeError, match="transaction"):
            journaled.checkpoint()


class Counting(DiskFile):
    """Files that count how often they are synchronised."""

    syncs = 0

    def sync(self) -> None:
        Counting.syncs += 1


@pytest.mark.parametrize(("rows", "syncs"), [(1, 1), (1000, 2)])
def test_a_small_commit_costs_one_synchronisation_and_a_large_one_two(path: Path, rows: int, syncs: int) -> None:
    with JournaledFile.open(path, disk=Counting) as journaled, h5py.File(journaled, "r+") as file:
        for value in range(rows):
            append(file, value)
        Counting.syncs = 0
        journaled.commit()
        assert Counting.syncs == syncs
        file.close()


def test_without_durability_nothing_is_synchronised(path: Path) -> None:
    Counting.syncs = 0
    with JournaledFile.open(path, disk=Counting, durability="flush") as journaled, h5py.File(journaled, "r+") as file:
        append(file, 1)
        journaled.commit()
        file.close()
    assert Counting.syncs == 0
    assert read_rows(path) == [0, 1]


def test_the_journal_is_emptied_when_it_has_grown_and_on_request(path: Path) -> None:
    with JournaledFile.open(path, limits=Limits(journal=256 * KiB)) as journaled, h5py.File(journaled, "r+") as file:
        lengths = []
        for value in range(200):
            append(file, value)
            journaled.commit()
            lengths.append(journaled.journal_nbytes)
        assert max(lengths) < 300 * KiB
        assert sorted(lengths) != lengths
        journaled.checkpoint()
        assert journaled.journal_nbytes == 0
        file.close()
        journaled.commit()
    assert len(read_rows(path)) == 201


def test_a_large_transaction_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(256 * MiB)
    block = os.urandom(4 * KiB)
    places = random.Random(1).sample(range(16 * KiB), 2500)  # 4 KiB here and there in 64 MiB, all of it in 64 more
    with JournaledFile.open(path, durability="flush") as journaled:
        tracemalloc.start()
        for place in places:
            journaled.seek(place * 4 * KiB)
            journaled.write(block)
        for place in range(128, 192):
            journaled.seek(place * MiB)
            journaled.write(block * 256)
        journaled.commit()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 6 * MiB
    with path.open("rb") as file:
        for place in [*places, *range(128 * 256, 192 * 256)]:
            file.seek(place * 4 * KiB)
            assert file.read(len(block)) == block
