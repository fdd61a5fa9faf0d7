"""A file that is written, as the server sees it: the queue of its batches, its owner process, and its readers.

Batches that wait while a commit is under way become the next commit together. A commit is carried out by the owner
process and durable before readers see anything of it; then they are kept out for the moment in which it is put in
place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import msgspec

from ndstream.core.limits import Limits, MiB
from ndstream.core.operations import Committed, Copy, Delete, Insert, Operation, Payload, Resize, State
from ndstream.errors import (
    Busy,
    Conflict,
    DataError,
    FileInUse,
    InvalidRequest,
    NDStreamError,
    NotFound,
    Replaced,
    StorageFailed,
    TimedOut,
    WorkerDied,
    by_code,
)
from ndstream.stores.hdf5.aside import INLINE, Aside, Laid, inline
from ndstream.stores.hdf5.descriptors import Descriptor, LiveFile
from ndstream.stores.hdf5.gate import Gate, Watch, Watches
from ndstream.stores.hdf5.generation import generation_of, identity_of
from ndstream.stores.hdf5.jobs import Answer, Call
from ndstream.stores.hdf5.messages import (
    Applied,
    Apply,
    Batch,
    Checkpoint,
    Done,
    Hello,
    Publish,
    Refused,
    Take,
    Taken,
    Target,
    WritingLimits,
)
from ndstream.stores.hdf5.tenure import Tenure
from ndstream.stores.ledger import Ledger

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Batches and bytes of them in one commit; a larger batch is a commit of its own.
_BATCHES = 4096
_BYTES = 64 * MiB
#: Bytes of large data that are laid aside at a time: of the commit that is under way, and of those to come.
_AHEAD = 3 * _BYTES
#: Seconds without a batch after which the journal is emptied, when it has this part of what it may have.
_QUIET = 0.5
_WORTH = 4
#: Operations that may take long however small they are.
_LONG = Copy | Delete | Insert | Resize
_encode = msgspec.msgpack.Encoder().encode
#: Datasets of which it is remembered when they changed.
_TOUCHED = 1 << 16


@dataclass(frozen=True, slots=True)
class _Laying:
    """Large data on its way to the file that one owner process has."""

    aside: Aside
    task: asyncio.Task[Laid]

    def undo(self) -> None:
        """Give up the room, as soon as nothing is written to it any more."""
        self.task.add_done_callback(self._clear)

    def _clear(self, task: asyncio.Task[Laid]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.aside.clear(task.result().begin)


@dataclass(slots=True, eq=False)
class _Entry:
    batch: Batch
    nbytes: int
    create: bool
    #: Of the state that the file must be in, "*" for any; in place of a condition of the batch.
    tag: str | None = None
    #: Of those who wait: each has its own, since one that gives up must not take the outcome from others.
    answers: list[asyncio.Future[Committed]] = field(default_factory=list)
    laying: _Laying | None = None
    settled: bool = False

    @property
    def small(self) -> bool:
        """Whether all of it goes with a message."""
        return self.nbytes <= INLINE

    @property
    def quick(self) -> bool:
        """Whether it takes no longer to carry out than its data are long."""
        return self.small and not any(isinstance(each, _LONG) for each in self.batch.operations)

    def settle(self, outcome: Committed | NDStreamError) -> None:
        """Tell those who wait what came of it."""
        self.settled = True
        for answer in self.answers:
            if answer.done():
                continue
            if isinstance(outcome, Committed):
                answer.set_result(outcome)
            else:
                answer.set_exception(type(outcome)(*outcome.args))


class Owned:
    """One file that is, or was, written to through this store.

    Parameters
    ----------
    path : str
        Real path.
    hello : Hello
    limits : Limits
    durability : {"fsync", "flush"}

    Attributes
    ----------
    gate : Gate
    ledger : Ledger
    steady : asyncio.Lock
        Nothing is committed while somebody has it.
    """

    def __init__(self, path: str, hello: Hello, limits: Limits, durability: Literal["fsync", "flush"]) -> None:
        self.path = path
        self.gate = Gate()
        self.steady = asyncio.Lock()
        self.ledger = Ledger(limits.events, limits.batch_keys)
        self._hello = hello
        self._limits = limits
        self._durability = durability
        self._watches = Watches()
        self._queue: deque[_Entry] = deque()
        self._queued = 0
        self._room = asyncio.Event()
        self._under_way: dict[str, _Entry] = {}
        self._committing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._tenure: Tenure | None = None
        self._base = ""
        self._identity: tuple[int, int] | None = None
        #: Generation on disk of the state that the ledger is at, while there is no owner process.
        self._seen = ""
        self._taking = False
        #: Whether the file was made by us, and nothing was committed to it yet.
        self._blank = False
        self._touched: dict[int, int] = {}
        self._rewritten: dict[int, int] = {}
        self._all_touched = 0
        self._links = 0
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._descriptor: Descriptor | None = None
        self._closed = False

    # -- for readers --

    @property
    def active(self) -> bool:
        """Whether there is an owner process, so that the file must be read with regard to it."""
        return self._tenure is not None or self.gate.closed

    @property
    def idle(self) -> bool:
        """Whether there is an owner process, and nobody who waits for it to write."""
        writing = self._committing is not None and not self._committing.done()
        return self._tenure is not None and not self._queue and not writing

    @property
    def generation(self) -> str:
        """Name of the content of now."""
        return self.generation_at(self.ledger.number)

    def generation_at(self, number: int) -> str:
        """Name of the content as of commit `number`, of those since the file was taken."""
        return f"{self._base}.{number:x}"

    @property
    def names(self) -> str:
        """Changes when a name in the file may lead elsewhere."""
        return f"{self._base}.{self._links:x}"

    def is_file(self, status: os.stat_result) -> bool:
        """Whether this is the very file that the owner writes."""
        return self._identity is None or self._identity == (status.st_dev, status.st_ino)

    def holds(self, status: os.stat_result) -> bool:
        """Whether the owner process has this very file open."""
        return self._tenure is not None and self._identity == (status.st_dev, status.st_ino)

    def notice(self, generation: str) -> State:
        """Learn what is on disk, and tell which state that is.

        What was not left there by an owner process came from another program: it counts as a commit of which nothing
        more is known, so that nobody takes the file for what it was. So does a file that was put in the place of the
        one that the owner process has.
        """
        ours = self.active and identity_of(generation) == identity_of(self._base)
        if not ours and not self._taking and generation != self._seen:
            if self.ledger.state.generation:
                self.ledger.commit(State(generation, self.ledger.number + 1), (), complete=False)
            else:
                self.ledger.begin(generation)
            self._seen = generation
        return self.ledger.state

    def file(self, generation: str) -> LiveFile:
        """Open the file for reading past the HDF5 library what was located in that generation."""
        if self._descriptor is None:
            self._descriptor = Descriptor(self.path)
        return LiveFile(self._descriptor, generation)

    def is_current(self, address: int, number: int) -> bool:
        """Whether nothing has changed in a dataset since commit `number`."""
        return number >= self._all_touched and number >= self._touched.get(address, 0)

    def has_only_grown(self, address: int, number: int) -> bool:
        """Whether a dataset has become longer at most since commit `number`."""
        return number >= self._all_touched and number >= self._rewritten.get(address, 0)

    async def check(self, generation: str, descriptor: int) -> None:
        """Raise `Replaced` unless the file, open as `descriptor`, still has the content of `generation`.

        While a commit is put in place, waits to see what comes of it.
        """
        while self.gate.closed:
            await self.gate.opened()
        let_go = not self.active
        if self.generation != generation or (let_go and generation_of(os.fstat(descriptor)) != self._seen):
            raise Replaced("a commit has changed the file while it was read")

    def watch(self, address: int, relocate: Callable[[], Awaitable[Any]]) -> Watch:
        """Watch what commits do to a dataset while it is read."""
        return self._watches.add(Watch(address, self.gate, relocate))

    async def ask(self, request: Call) -> tuple[Answer, int]:
        """Have the owner answer a question about the file, as of a commit, whose number comes with it.

        Raises
        ------
        NDStreamError
        Replaced
            There is no owner (any more): ask again.
        """
        await self._turn.acquire()
        # Whoever asks may give up. The process cannot: until it has answered, it is nobody else's turn.
        asked = self._begin(self._asked(request))
        asked.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(asked)

    async def _asked(self, request: Call) -> tuple[Answer, int]:
        if self._tenure is None:
            raise Replaced("the process that writes the file has ended")
        try:
            return await self._call(request, self._limits.worker_timeout), self.ledger.number
        except WorkerDied as error:
            raise Replaced("the process that writes the file has ended") from error

    # -- for writers --

    async def apply(self, batch: Batch, *, tag: str | None, create: bool) -> Committed:
        """Carry out a batch, of a file in the state called `tag`; see `ndstream.core.ports.WritableStore.apply`."""
        known = self.ledger.repeated(batch.key)
        if known is not None:
            return known
        first = self._under_way.get(batch.key) if batch.key is not None else None
        if first is not None:
            return msgspec.structs.replace(await self._outcome(first), repeated=True)
        if tag is not None and not _exists(self.path):
            raise NotFound("there is no such file")
        entry = _Entry(batch, sum(map(_nbytes, batch.operations)), create, tag)
        if batch.key is not None:
            self._under_way[batch.key] = entry
        try:
            await self._put(entry)
        except BaseException:
            self._forget(entry)
            entry.settle(Busy("whoever sent this batch first has given up"))
            raise
        return await self._outcome(entry)

    async def _outcome(self, entry: _Entry) -> Committed:
        """Wait for what comes of an entry; when nobody does any more, it leaves the queue."""
        answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        entry.answers.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            entry.answers.remove(answer)
            if not answer.cancelled():
                answer.exception()  # looked at, though nobody wants it any more
            if not entry.answers and entry in self._queue:
                self._queue.remove(entry)
                self._drop(entry)
            raise

    async def _put(self, entry: _Entry) -> None:
        while self._queued and self._queued + entry.nbytes > self._limits.write_queue:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise Busy("the server is shutting down")
        self._queue.append(entry)
        self._queued += entry.nbytes
        tenure = self._tenure
        if tenure is not None and not entry.small and tenure.aside.nbytes + entry.nbytes <= _AHEAD:
            self._lay(entry, tenure.aside)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all())

    def _lay(self, entry: _Entry, aside: Aside) -> _Laying:
        """Begin to lay the data of an entry aside, unless that was done."""
        if entry.laying is None or entry.laying.aside is not aside:
            if entry.laying is not None:
                entry.laying.undo()
            entry.laying = _Laying(aside, self._begin(aside.lay(entry.batch)))
        return entry.laying

    def _drop(self, entry: _Entry) -> None:
        if entry.laying is not None:
            entry.laying.undo()
            entry.laying = None
        self._queued -= entry.nbytes
        self._room.set()
        self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        if entry.batch.key is not None:
            self._under_way.pop(entry.batch.key, None)

    def _settle(self, entry: _Entry, outcome: Committed | NDStreamError) -> None:
        self._drop(entry)
        entry.settle(outcome)

    async def _commit_all(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        while self._queue:
            group = self._next_group()
            try:
                async with self.steady, self._turn:
                    left = await self._commit(group)
            except NDStreamError as error:
                self._fail(group, error)
            except Exception as error:  # noqa: BLE001  (whatever it is, those who wait are told)
                _log.exception("writing %s", self.path)
                self._fail(group, WorkerDied(f"writing failed ({type(error).__name__}); it is not known how far"))
            else:
                self._queue.extendleft(reversed(left))
        self._linger()

    def _next_group(self) -> list[_Entry]:
        group: list[_Entry] = []
        nbytes = 0
        while self._queue and len(group) < _BATCHES:
            nbytes += self._queue[0].nbytes
            if group and nbytes > _BYTES:
                break
            group.append(self._queue.popleft())
        return group

    def _fail(self, group: list[_Entry], error: NDStreamError) -> None:
        for entry in group:
            if not entry.settled:
                self._settle(entry, error)

    async def _commit(self, group: list[_Entry]) -> list[_Entry]:
        """Carry out a group; returns those that are to be sent again."""
        if await self._hold(create=any(entry.create for entry in group)):
            self._expect_new(group)
        tenure = self._tenure
        assert tenure is not None
        group, batches = await self._slim(self._in_state(self._not_repeated(group)), tenure.aside)
        if not group:
            await self._take_back()
            return []
        target = self._target()
        quick = all(entry.quick for entry in group)
        # While nobody reads, readers may be kept out for all of a quick commit: that saves a way to the owner and back.
        quiet = quick and not self.gate.visited and not self._watches.any
        self.gate.visited = False
        if quiet:
            self.gate.shut()
        try:
            request = Apply(target=target, batches=cast("tuple[Batch, ...]", batches), publish=quiet)
            try:
                applied = await self._call(request, self._limits.write_timeout)
            except Conflict:  # another program has written to the file, or put one in its place
                await self._let_go()
                raise
            assert isinstance(applied, Applied)
            failure = None
            if any(isinstance(result, Done) for result in applied.results):
                self._blank = False
                failure = await self._publish(target, applied)
        finally:
            if self._tenure is tenure:
                self.gate.open()
        left = group[len(applied.results) :]
        if not left:
            await self._take_back()
        for entry, result in zip(group, applied.results, strict=False):
            if isinstance(result, Refused):
                self._settle(entry, by_code(result.code)(result.message))
            elif failure is not None:
                self._settle(entry, failure)
            else:
                tag = State(self._base, result.number).tag
                committed = Committed(number=result.number, outcomes=result.outcomes, tag=tag)
                if entry.batch.key is not None:
                    self.ledger.remember({entry.batch.key: committed})
                self._settle(entry, committed)
        return left

    async def _slim(self, group: list[_Entry], aside: Aside) -> tuple[list[_Entry], tuple[msgspec.Raw, ...]]:
        """Have the large data of a group laid aside; returns those for which there was room, and what is sent.

        Each is encoded by itself: one that cannot be is refused, and the others go.
        """
        laying = {entry: self._lay(entry, aside).task for entry in group if not entry.small}
        ready: dict[_Entry, msgspec.Raw] = {}
        for entry in group:
            try:
                batch = (await laying[entry]).batch if entry in laying else inline(entry.batch)
                if entry.tag not in (None, "*"):
                    batch = msgspec.structs.replace(batch, condition=self.ledger.number)
                ready[entry] = _encoded(batch)
            except NDStreamError as error:
                self._settle(entry, error)
        return list(ready), tuple(ready.values())

    def _not_repeated(self, group: list[_Entry]) -> list[_Entry]:
        """Answer what was committed before the file was taken, as its journal tells; returns the others."""
        left = []
        for entry in group:
            known = self.ledger.repeated(entry.batch.key)
            if known is None:
                left.append(entry)
            else:
                self._settle(entry, known)
        return left

    def _in_state(self, group: list[_Entry]) -> list[_Entry]:
        """Refuse what is not meant for the state of now; returns the others."""
        tag = self.ledger.state.tag
        left = []
        for entry in group:
            if entry.tag in (None, "*", tag):
                left.append(entry)
            else:
                self._settle(entry, Conflict(f"the file is in the state {tag}, not {entry.tag}"))
        return left

    async def _publish(self, target: Target, applied: Applied) -> NDStreamError | None:
        """Have readers see what was applied; returns what those who sent it are told when the disk does not take it."""
        rewritten = None if applied.everything else frozenset(applied.rewritten)
        if not applied.published:
            await self._watches.settle(rewritten, self._limits.reader_patience)
            await self.gate.close()
            try:
                await self._call(Publish(target=target), self._limits.write_timeout)
            except NDStreamError as error:
                await self._give_up()  # it is decided: whoever takes the file next puts it in place
                if not isinstance(error, DataError):
                    raise
                return StorageFailed(f"{error}; it is committed, and will be there once the file can be written")
        self._watches.changed(rewritten, frozenset(applied.grown))
        for result in applied.results:
            if isinstance(result, Done):
                self.ledger.commit(State(self._base, result.number), result.changes)
        number = self.ledger.number
        self._touched.update(dict.fromkeys((*applied.rewritten, *applied.grown), number))
        self._rewritten.update(dict.fromkeys(applied.rewritten, number))
        if applied.everything or len(self._touched) > _TOUCHED:
            self._forget_touched(number)
        if applied.links:
            self._links = number
        return None

    def _forget_touched(self, number: int) -> None:
        """Take it that commit `number` changed everything."""
        self._touched.clear()
        self._rewritten.clear()
        self._all_touched = number

    # -- the owner process --

    def _target(self) -> Target:
        return Target(file=self.path, generation=self.generation, name="/")

    async def _call(self, request: Call, patience: float) -> Answer:
        if self._tenure is None:
            raise WorkerDied("the process that writes the file died; it is not known whether this was committed")
        try:
            return await self._tenure.call(request, patience)
        except (WorkerDied, TimedOut):
            await self._give_up()
            raise

    async def _give_up(self) -> None:
        """End a tenure that went wrong: what it left behind is put in order before anybody reads."""
        tenure, self._tenure = self._tenure, None
        if tenure is not None:
            self.gate.shut()
            try:
                await tenure.aclose(release=False)
            finally:
                self._begin(self._revive())

    async def hold(self) -> None:
        """Take hold of the file now, so that nobody else writes it.

        Raises
        ------
        FileInUse, Conflict, Corrupt, StorageFailed
        """
        async with self._turn:
            await self._hold(create=False)

    async def mend(self) -> None:
        """Do what a process that died left to be done, and keep who reads the file from seeing it undone.

        What it knew of batches sent again is known here from now on. The file is let go of after a while.

        Raises
        ------
        Conflict, Corrupt, StorageFull, StorageFailed
            It cannot be done.
        """
        with contextlib.suppress(FileInUse):  # somebody else was quicker
            await self.hold()
            self._linger()

    async def _hold(self, *, create: bool) -> bool:
        """Have an owner; returns whether the file was made for it."""
        if self._tenure is not None:
            if self._is_there():
                return False
            await self._let_go()
            if _exists(self.path) or not create:
                raise Conflict("the file was removed, or another one was put in its place")
        if self._closed:
            raise Busy("the server is shutting down")
        if self.gate.closed:  # the process before was given up: what it left is not touched while somebody reads
            await self.gate.close()
        tenure = Tenure(self._hello, self._end_of)
        try:
            await tenure.started()
            there = _exists(self.path)
            if not there and not create:
                raise NotFound("there is no such file")
            before = generation_of(self._status()) if there else ""
            if there:
                self.notice(before)
            self._taking = True
            limits = self._limits
            writing = WritingLimits(
                chunk=limits.chunk,
                link_depth=limits.link_depth,
                selections=limits.selections,
                spool=limits.spool,
                journal=limits.journal,
            )
            take = Take(
                target=Target(file=self.path, generation="", name="/"),
                descriptor=tenure.aside.descriptor,
                create=not there,
                number=self.ledger.number,
                durability=self._durability,
                limits=writing,
            )
            taken = await tenure.call(take, limits.write_timeout)
            assert isinstance(taken, Taken)
            tenure.aside.reached = taken.reaches
            status = self._status()
        except BaseException:
            await tenure.aclose()
            self.gate.open()
            raise
        finally:
            self._taking = False
        self._identity = (status.st_dev, status.st_ino)
        self._descriptor = None
        self._base = f"{generation_of(status)}-{os.urandom(4).hex()}"
        if not there:
            self.ledger.begin(self._base)
        elif taken.number > self.ledger.number or generation_of(status) != before:
            # What a process that died had left to be done was done.
            self.ledger.commit(State(self._base, taken.number), (), complete=False)
        self.ledger.remember(taken.keys)
        self._forget_touched(self.ledger.number)
        self._links = self.ledger.number
        self._watches.changed(None, frozenset())
        self._tenure = tenure
        self._blank = not there
        self.gate.open()
        return not there

    def _is_there(self) -> bool:
        try:
            status = self._status()
        except Conflict:
            return False
        return self._identity == (status.st_dev, status.st_ino)

    def _status(self) -> os.stat_result:
        try:
            return os.stat(self.path)  # noqa: PTH116  (a real path, of this moment)
        except OSError:
            raise Conflict("the file was removed, or another one was put in its place") from None

    async def _let_go(self) -> None:
        """End the tenure of a file that is not what it was: what is there now is read as it is."""
        tenure, self._tenure = self._tenure, None
        self._identity = None
        self._watches.changed(None, frozenset())
        if tenure is not None:
            await tenure.aclose()
        self.gate.open()

    async def _take_back(self) -> None:
        """Remove a file that was made for batches of which none was committed."""
        if self._blank and self._is_there():
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108  (as above)
            await self._let_go()
        self._blank = False

    def _expect_new(self, group: list[_Entry]) -> None:
        """Take "as long as there is no file" for true: the numbers of one that was there before are gone on with."""
        for entry in group:
            if entry.create and entry.batch.condition == 0:
                entry.batch = msgspec.structs.replace(entry.batch, condition=self.ledger.number)

    def _end_of(self, tenure: Tenure) -> None:
        """Take notice that the owner process died while nothing was asked of it."""
        if tenure is self._tenure:
            self._begin(self._give_up())

    async def _revive(self) -> None:
        try:
            async with self._turn:
                try:
                    await self._hold(create=False)
                except NDStreamError as error:
                    self._watches.changed(None, frozenset())  # who reads had the state of a commit, and has it no more
                    _log.warning("%s is not written any more: %s", self.path, str(error))
        finally:
            self.gate.open()

    def _linger(self) -> None:
        """Empty the journal soon, and let go of the file after a while, unless it is written to before that."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_QUIET, self._tidy_later)

    def _tidy_later(self) -> None:
        self._begin(self._tidy())
        self._idle = asyncio.get_running_loop().call_later(self._limits.writer_idle, self._release_later)

    async def _tidy(self) -> None:
        """Empty the journal before the next batch would have to wait for it, unless there is one."""
        async with self._turn:
            if self._tenure is None or self._queue:
                return
            request = Checkpoint(target=self._target(), least=self._limits.journal // _WORTH)
            try:
                await self._call(request, self._limits.write_timeout)
            except NDStreamError as error:
                _log.warning("%s: the journal was not emptied: %s", self.path, error)

    def _release_later(self) -> None:
        self._begin(self._release())

    async def release(self) -> None:
        """Let the file go, unless somebody writes; it goes on when whoever asked gives up."""
        await asyncio.shield(self._begin(self._release()))

    async def _release(self) -> None:
        async with self._turn:
            if self._tenure is not None and self.idle:
                self.gate.shut()
                tenure, self._tenure = self._tenure, None
                try:
                    # Who reads goes on, from the file as it is left.
                    with contextlib.nullcontext() if self._descriptor is None else self._descriptor.leaving():
                        await tenure.aclose()
                    with contextlib.suppress(Conflict):
                        status = self._status()
                        if self._identity == (status.st_dev, status.st_ino):
                            self._seen = generation_of(status)
                finally:
                    self.gate.open()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Finish what is queued, and let the file go."""
        self._closed = True
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)
        if self._idle is not None:
            self._idle.cancel()
        async with self._turn:
            tenure, self._tenure = self._tenure, None
            if tenure is not None:
                await tenure.aclose()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def pid(self) -> int | None:
        """Process id of the owner."""
        return None if self._tenure is None else self._tenure.pid


def _encoded(batch: Batch) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encode(batch))
    except OverflowError:
        raise InvalidRequest("a number in it has more than 64 bits") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"it is not made of plain values: {error}") from None


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _nbytes(operation: Operation) -> int:
    payload = getattr(operation, "data", None)
    if not isinstance(payload, Payload):
        return 256
    try:
        return 256 + memoryview(payload.data).nbytes
    except TypeError:
        return 256 + sum(len(item) + 16 if isinstance(item, bytes) else 64 for item in payload.data or ())
