"""The process that writes one file: ``python -m ndstream.stores.hdf5.owner DESCRIPTOR SPOOL``.

It alone writes the file, through a journal, and answers the questions of `messages` about that file as of the last
commit. Data of operations that is large comes in the file SPOOL, which it shares with the server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import resource
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import h5py
import msgspec
from h5py import _errors, h5d

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.model import Dataset
from ndstream.core.operations import Append, Committed, Operation, Outcome, Payload
from ndstream.core.selection import chunk_counts
from ndstream.errors import Conflict, Corrupt, Exists, InvalidRequest, NDStreamError, NotFound, StorageFailed
from ndstream.stores.hdf5.faults import LIBRARY_ERRORS, answer_to, is_expected, reason_of, translate
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.journal import JournaledFile
from ndstream.stores.hdf5.layout import Chunked, Layout
from ndstream.stores.hdf5.locate import Tail
from ndstream.stores.hdf5.making import make_file
from ndstream.stores.hdf5.messages import (
    Applied,
    Apply,
    Batch,
    Checkpoint,
    Describe,
    Done,
    Failed,
    Fetch,
    Hello,
    Known,
    Locate,
    Publish,
    Published,
    Ready,
    Refused,
    Release,
    Reply,
    Request,
    Spooled,
    Take,
    Taken,
    longest_reply,
)
from ndstream.stores.hdf5.open_files import OpenFile, OpenFiles, number_of
from ndstream.stores.hdf5.resolve import Found
from ndstream.stores.hdf5.worker import Channel, Worker, available_filters, confine, die_with_parent
from ndstream.stores.hdf5.writer import Effects, Writer, mergeable
from ndstream.stores.spools import mapped
from ndstream.wire.buffers import keep_heap

with contextlib.suppress(ImportError):
    import hdf5plugin  # noqa: F401  # importing it registers its filters

_STALE = "duplicate entry in cache"  # what the library says
_MERGED = 64 << 20  # bytes of appends that are carried out as one


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What is kept with a commit in the journal: the number of its last batch, and its batches with keys."""

    number: int
    keys: dict[str, Committed]


class OwnedFile(OpenFile):
    """The file that is written, as the answers to questions see it: always what it is now."""

    # The library reads it through the journal, and would find the same bytes in any other file that it opened from it.
    reaches = False

    def __init__(self, path: str, file: h5py.File, generation: str) -> None:
        self.path = path
        self.number = number_of(path)
        self.paths = None
        self.live = False
        self.id = file.id
        self.generation = generation
        self._datasets = OrderedDict()
        self.size = 0
        self.turn_to(generation)

    def turn_to(self, generation: str) -> None:
        """Answer the next question as one about that state, which is the one of now."""
        self.generation = generation
        self.size = int(self.id.get_filesize())

    def check(self, generation: str) -> None:
        """Do nothing: nobody else writes it."""

    def keep(self, name: str, dataset: Any, address: int) -> None:
        """Do nothing: what a name leads to may change."""

    def close(self) -> None:
        """Do nothing: it stays open."""


class OwnedFiles(OpenFiles):
    """Open files, one of which is owned and always open."""

    owned: OwnedFile | None = None

    def open(self, path: str, generation: str | None = None) -> OpenFile:
        """Open a file; see `OpenFiles`."""
        if self.owned is not None and path == self.owned.path:
            return self.owned
        return super().open(path, generation)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector of Python away while the library is at work.

    The library calls us to read and to write, and does not expect to be called meanwhile. A collection would do so: it
    closes datasets that are a part of circles, such as those of exceptions with their frames. What the library has in
    hand then is gone when it goes on.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Owner(Worker):
    """Answers requests about one file, and writes it.

    Parameters
    ----------
    hello : Hello
    spool : int
        Descriptor of the file that data comes in.
    """

    def __init__(self, hello: Hello, spool: int) -> None:
        super().__init__(hello)
        self._spool = spool
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="ndstream-encode")
        self._disk: JournaledFile | None = None

    @_uncollected()
    def answer(self, request: Request) -> Reply:
        """Answer one request; a mistake of ours in the middle of a commit ends the process, as a crash does."""
        if isinstance(request, Apply | Publish | Checkpoint):
            try:
                return self.handle(request)
            except (NDStreamError, RecursionError, *LIBRARY_ERRORS) as error:
                known = translate(error)
                return Failed(code=known.code, message=str(known))
        return super().answer(request)

    def _open_files(self) -> OwnedFiles:
        self._owned_files = OwnedFiles(self._hello.open_files)
        return self._owned_files

    def handle(self, request: Request) -> Reply:
        """Answer one request, or raise what is wrong with it."""
        match request:
            case Take():
                return self._take(request)
            case Apply():
                return self._apply(request)
            case Publish():
                self._held().apply()
                return Published()
            case Checkpoint():
                self._held().checkpoint(request.least)
                return Published()
            case Describe() | Locate() | Fetch():
                self._held()
                if self._owned_files.owned is not None:
                    self._owned_files.owned.turn_to(request.target.generation)
                return super().handle(request)
            case _:
                return super().handle(request)

    @_uncollected()
    def close(self) -> None:
        """Let go of the file; what is staged is carried out."""
        super().close()
        if self._disk is not None:
            self._close_file()
            self._disk.close()
        self._threads.shutdown()

    @property
    def lost(self) -> bool:
        """Whether it is not known what is on the disk: the file has to be opened again, by another process."""
        return self._disk is not None and self._disk.lost

    def _held(self) -> JournaledFile:
        if self._disk is None:
            raise InvalidRequest("no file was taken")
        if self._disk.lost:
            raise StorageFailed(str(self._disk.failure))
        return self._disk

    def _take(self, request: Take) -> Taken:
        if self._disk is not None:
            raise InvalidRequest("an owner takes one file")
        limits = _limits(request)
        path = Path(request.target.file)
        if os.path.realpath(path) != str(path):
            raise NotFound("another file was put in its place")
        if request.create:
            with contextlib.suppress(Exists):  # somebody was quicker
                make_file(path)
        self._disk = JournaledFile.open(path, durability=request.durability, limits=limits)
        self._writing = limits
        self._number = request.number
        keys: dict[str, Committed] = {}
        try:
            for _, data in self._disk.recovered.notes if self._disk.recovered else ():
                with contextlib.suppress(msgspec.DecodeError):
                    note = msgspec.msgpack.decode(data, type=Note)
                    self._number = max(self._number, note.number)
                    keys |= note.keys
            self._open_file()
            if keys:  # of the journal that is gone now: should we die too, they are in this one
                self._disk.commit(msgspec.msgpack.encode(Note(self._number, keys)))
        except BaseException:
            disk, self._disk = self._disk, None
            disk.close()
            raise
        return Taken(number=self._number, keys=keys, reaches=os.access(_of_server(request.descriptor), os.R_OK))

    def _open_file(self) -> None:
        disk = self._held()
        status = disk.path.stat()
        if not status.st_size:  # h5py would make a file of it
            raise Corrupt("not an HDF5 file: it is empty")
        try:
            self._file = h5py.File(disk, "r+")
        except LIBRARY_ERRORS as error:
            raise Corrupt(f"not a writable HDF5 file: {reason_of(error)}") from None
        path = str(disk.path)
        self._owned_files.owned = OwnedFile(path, self._file, generation_of(status))
        self._writer = Writer(self._file.id, self._writing, self._threads, number_of(path))

    def _close_file(self) -> None:
        self._owned_files.owned = None
        # What the library could not write then was to be dropped anyway.
        with contextlib.suppress(*LIBRARY_ERRORS):
            self._file.close()

    def _layout(
        self, found: Found, dataset: Dataset, known: Known | None, tail: Tail | None = None
    ) -> tuple[Layout, int]:
        """As of a worker, but that of what is known the chunks of the end alone are listed."""
        if known is not None and found.file is self._owned_files.owned and (first := _first_added(dataset, known)):
            assert dataset.shape is not None and dataset.chunks is not None
            with contextlib.suppress(*LIBRARY_ERRORS):  # there is a chunk that was never written
                layout, _ = super()._layout(found, dataset, known, Tail(first, self._place))
                if isinstance(layout, Chunked):
                    return layout, first * prod(chunk_counts(dataset.shape, dataset.chunks)[1:])
        return super()._layout(found, dataset, known)

    def _place(self, dataset: h5d.DatasetID, corner: tuple[int, ...]) -> tuple[int, int, int]:
        """Where a chunk is: mask, offset, size.

        The library finds a chunk at once, but says where only in going through all of them. So it is made to read the
        chunk, and the file knows from where.
        """
        disk = self._held()
        disk.read_last = 0, -1
        mask, stored = dataset.read_direct_chunk(corner)
        offset, size = disk.read_last
        if size != len(stored):
            raise RuntimeError("the library has not read the chunk as it is stored")
        return mask, offset, size

    # -- writing --

    def _apply(self, request: Apply) -> Applied:
        disk = self._held()
        batches = [_unspooled(batch, self._spool) for batch in request.batches]
        group = _Group(self._writer, self._number)
        failed = group.run(batches)
        if failed is not None and (group.joined or _STALE in str(failed)):
            # It was one of several that were carried out as one, and has to be found. Or somebody has looked at a
            # reference to what was deleted: the library remembers an object where it was.
            self._roll_back()
            group = _Group(self._writer, self._number, joining=not group.joined)
            failed = group.run(batches)
        self._give_way(disk)
        if failed is not None:
            # Something was done already: back to the last commit, and once more without what failed.
            failure = disk.failure or failed
            done = [batch for batch, result in zip(batches, group.results, strict=False) if isinstance(result, Done)]
            results = group.results
            self._roll_back()
            group = _Group(self._writer, self._number)
            again = group.run(done)
            if again is not None:
                failure = disk.failure or again
                self._roll_back()
                group = _Group(self._writer, self._number)
                group.results = [_refused(failure) if isinstance(result, Done) else result for result in results]
            else:
                redone = iter(group.results)
                group.results = [next(redone) if isinstance(result, Done) else result for result in results]
            group.results.append(_refused(failure))
        published = False
        if group.done:
            self._stage(disk, group, batches)
            if request.publish and group.done:
                # It is decided, whatever comes of this: `Publish` tries again, and says why not.
                with contextlib.suppress(NDStreamError):
                    disk.apply()
                    published = True
        effects = group.effects
        number = number_of(str(disk.path))
        return Applied(
            results=tuple(group.results),
            rewritten=tuple(number ^ address for address in effects.rewritten),
            grown=tuple(number ^ address for address in effects.grown),
            links=effects.links,
            everything=effects.everything,
            published=published,
        )

    def _stage(self, disk: JournaledFile, group: _Group, batches: list[Batch]) -> None:
        keys = {
            batch.key: Committed(number=result.number, outcomes=result.outcomes)
            for batch, result in zip(batches, group.results, strict=False)
            if batch.key is not None and isinstance(result, Done)
        }
        try:
            self._file.flush()
            disk.stage(msgspec.msgpack.encode(Note(group.number, keys)))
        except (NDStreamError, *LIBRARY_ERRORS) as error:
            failure = disk.failure or translate(error)
            if isinstance(error, Conflict):
                disk.abandon()
                raise
            if disk.lost:
                raise StorageFailed(str(failure)) from error
            self._roll_back()
            group.results = [_refused(failure) if isinstance(result, Done) else result for result in group.results]
            group.effects = Effects()
            return
        self._number = group.number
        if self._owned_files.owned is not None:
            self._owned_files.owned.paths = None

    def _give_way(self, disk: JournaledFile) -> None:
        """Write nothing more when somebody else has written to the file; who asks lets go of it then."""
        if isinstance(disk.failure, Conflict):
            disk.abandon()
            raise disk.failure

    def _roll_back(self) -> None:
        disk = self._held()
        disk.abandon()
        self._close_file()
        disk.rollback()
        self._open_file()


class _Group:
    """Batches on their way into one commit.

    Attributes
    ----------
    results : list of Done or Refused
    number : int
        Of the last batch that was carried out.
    joined : bool
        Whether several batches were being carried out as one last.
    """

    def __init__(self, writer: Writer, number: int, *, joining: bool = True) -> None:
        self.joined = False
        self._joining = joining
        self.results: list[Done | Refused] = []
        self.number = number
        self.effects = Effects()
        self._writer = writer

    @property
    def done(self) -> bool:
        """Whether anything was carried out."""
        return any(isinstance(result, Done) for result in self.results)

    def run(self, batches: list[Batch]) -> NDStreamError | None:
        """Carry out batches until one fails that has changed something; returns its error.

        Its result is missing then, and those of all after it.
        """
        while len(self.results) < len(batches):
            rest = batches[len(self.results) :]
            run = _alike(rest) if self._joining else 1
            self.joined = run > 1
            error = self._run_together(rest[:run]) if self.joined else self._run(rest[0])
            if error is not None:
                return error
        return None

    def _run(self, batch: Batch) -> NDStreamError | None:
        writer = self._writer
        writer.begin()
        try:
            if batch.condition is not None and batch.condition != self.number:
                raise Conflict(f"the file is at commit {self.number}, not {batch.condition}")
            outcomes = [_carry_out(writer, operation, index) for index, operation in enumerate(batch.operations)]
        except Exception as error:  # noqa: BLE001  (whatever it is, others' batches are carried out)
            known = answer_to(error)
            if writer.dirty or not is_expected(error):
                return known
            self.results.append(_refused(known))
            return None
        self._finish(tuple(outcomes), writer.effects)
        return None

    def _run_together(self, batches: list[Batch]) -> NDStreamError | None:
        """Carry out appends as one; those that cannot be are tried one by one."""
        writer = self._writer
        writer.begin()
        appends = [operation for batch in batches for operation in batch.operations if isinstance(operation, Append)]
        try:
            outcomes = iter(writer.append_many(appends))
        except Exception as error:  # noqa: BLE001  (as above)
            return answer_to(error) if writer.dirty else self._run(batches[0])
        effects = writer.effects
        for batch in batches:
            mine = tuple(next(outcomes) for _ in batch.operations)
            change = next(iter(effects.changes.values()), None)
            part = Effects()
            part.grown = effects.grown
            if change is not None and any(outcome.done for outcome in mine):
                first, last = mine[0].start, mine[-1].shape
                assert first is not None
                assert last is not None
                appended = (first, last[change.axis])
                part.note(msgspec.structs.replace(change, shape=last, appended=appended))
            self._finish(mine, part)
        return None

    def _finish(self, outcomes: tuple[Outcome, ...], effects: Effects) -> None:
        self.number += 1
        self.results.append(Done(number=self.number, outcomes=outcomes, changes=tuple(effects.changes.values())))
        self.effects.rewritten |= effects.rewritten
        self.effects.grown |= effects.grown
        self.effects.links |= effects.links
        self.effects.everything |= effects.everything


def _first_added(dataset: Dataset, known: Known) -> int:
    """Row of the grid in which a dataset that is known goes on, full in part perhaps; 0 when it is another one now."""
    shape = dataset.shape
    if not shape or dataset.chunks is None or dataset.address != known.address:
        return 0
    if shape[1:] != known.shape[1:] or shape[0] < known.shape[0]:
        return 0
    return known.shape[0] // dataset.chunks[0]


def _carry_out(writer: Writer, operation: Operation, index: int) -> Outcome:
    try:
        return writer.carry_out(operation)
    except NDStreamError as error:
        raise type(error)(f"operation {index}: {error}") from error


def _alike(batches: list[Batch]) -> int:
    """How many of the batches at the beginning are nothing but appends that can be carried out as one."""
    first = batches[0].operations[0] if batches[0].operations else None
    if not isinstance(first, Append):
        return 1
    nbytes = 0
    for number, batch in enumerate(batches):
        nbytes += sum(memoryview(payload.data).nbytes for payload in _payloads(batch) if _is_buffer(payload))
        if (
            batch.condition is not None
            or not batch.operations
            or nbytes > _MERGED
            or not all(mergeable(first, operation) for operation in batch.operations)
        ):
            return max(number, 1)
    return len(batches)


def _is_buffer(payload: Payload) -> bool:
    return isinstance(payload.data, bytes | bytearray | memoryview)


def _payloads(batch: Batch) -> list[Payload]:
    return [operation.data for operation in batch.operations if isinstance(operation, Append)]


def _refused(error: NDStreamError) -> Refused:
    return Refused(code=error.code, message=str(error))


def _unspooled(batch: Batch, spool: int) -> Batch:
    """Put the data that lies in files into the payloads of a batch, as maps of them."""
    return msgspec.structs.replace(batch, operations=tuple(_filled(each, spool) for each in batch.operations))


def _filled(operation: Operation, spool: int) -> Operation:
    payload = getattr(operation, "data", None)
    if not isinstance(payload, Payload) or not isinstance(payload.data, dict):
        return operation
    try:
        where = msgspec.convert(payload.data, Spooled)
    except msgspec.ValidationError:
        raise InvalidRequest("data is bytes or a list") from None
    if where.descriptor is None:
        data = mapped(spool, where.nbytes, where.offset)
    else:
        with open(_of_server(where.descriptor), "rb") as file:  # noqa: PTH123  (no path of a file system)
            data = mapped(file.fileno(), where.nbytes, where.offset)
    return msgspec.structs.replace(operation, data=msgspec.structs.replace(payload, data=data))


def _of_server(descriptor: int) -> str:
    """Where a file is that the server has open; Linux only, and only where processes may look at their parents."""
    return f"/proc/{os.getppid()}/fd/{descriptor}"


def _limits(request: Take) -> Limits:
    return dataclasses.replace(DEFAULT_LIMITS, **msgspec.structs.asdict(request.limits))


def serve(connection: socket.socket, spool: int) -> None:
    """Answer requests until the file is to be let go of, or the other side is gone."""
    channel = Channel(connection)
    hello = channel.receive()
    if not isinstance(hello, Hello):
        return
    # Not its address space: data comes in maps of a file, however large it is.
    confine(hello, resource.RLIMIT_DATA)
    owner = Owner(hello, spool)
    channel.send(Ready(filters=available_filters()), longest_reply(hello, 0))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while (request := channel.receive()) is not None:
            if isinstance(request, Release):
                owner.close()
                return
            channel.send(owner.answer(request), longest_reply(request, hello.document))
            if owner.lost:
                break
    # The server died, or the disk did not do what it promised. Clients will ask what became of their batches: the
    # journal with their keys stays, as after a crash, and nothing more is written to the file, not even by the library
    # at its end.
    os._exit(0)


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    die_with_parent()
    keep_heap()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # More than a limit on the length of files allows is an error like any other.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _errors.silence_errors()
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=int(sys.argv[1])) as connection,
    ):
        serve(connection, int(sys.argv[2]))


if __name__ == "__main__":
    main()
