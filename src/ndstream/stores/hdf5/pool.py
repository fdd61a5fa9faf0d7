"""Which worker process gets which request, and what happens when one fails.

Runs in the event loop and never loads the HDF5 library. A worker does one call at a time. A file that makes workers
crash or hang costs the requests that met it, is put aside after a few of them, and never occupies all workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping

from ndstream.core.counters import Counters
from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.errors import Busy, NDStreamError, Quarantined, TimedOut, WorkerDied
from ndstream.stores.hdf5.jobs import Answer, Call, Job, Queue
from ndstream.stores.hdf5.messages import Hello, longest_reply
from ndstream.stores.hdf5.process import Process

_log = logging.getLogger(__name__)

#: Files whose strikes are remembered.
_REMEMBERED = 4096
#: Starts that may fail in a row before callers are told; seconds before the next one, doubled each time.
_FAILED_STARTS = 3
_DELAY = 0.1
_LONGEST_DELAY = 30.0
#: Seconds that killed processes get to disappear.
_GRACE = 5.0


class Pool:
    """Worker processes that answer requests about HDF5 files.

    Parameters
    ----------
    roots : mapping of str to str
        What is served: virtual name to real path.
    limits : Limits, optional
    counters : Counters, optional
        Gets ``worker_calls``, ``worker_deaths``, ``worker_timeouts`` and ``quarantined``, by kind of request.

    Notes
    -----
    Belongs to one event loop, and to the thread it runs in: workers are killed when that thread ends.
    """

    def __init__(
        self, roots: Mapping[str, str], limits: Limits = DEFAULT_LIMITS, counters: Counters | None = None
    ) -> None:
        self._limits = limits
        self._counters = Counters() if counters is None else counters
        self.hello = Hello(
            roots=dict(roots),
            open_files=limits.open_files,
            memory=limits.worker_memory,
            chunk_index=limits.chunk_index,
            links=limits.links,
            link_depth=limits.link_depth,
            document=limits.document,
        )
        self._size = limits.workers or max(2, os.cpu_count() or 1)
        self._queue = Queue(share=max(1, self._size - 1))
        self._strikes: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._processes: set[Process] = set()
        self._idle: list[Process] = []
        self._failed_starts = 0
        self._restart: asyncio.TimerHandle | None = None
        self._started = False
        self._closed = False
        self._gone = asyncio.Event()
        self._filters: frozenset[int] = frozenset()

    async def start(self) -> None:
        """Start the workers. They load the HDF5 library meanwhile; the first calls wait for that.

        Raises
        ------
        Busy
            The pool was closed.
        """
        if self._closed:
            raise Busy("the server is shutting down")
        if not self._started:
            self._started = True
            self._replenish()

    async def call(self, request: Call) -> Answer:
        """Have a worker answer.

        A call that is cancelled is forgotten; its worker takes the next one when it is done with it.

        Raises
        ------
        NDStreamError
            What the worker found, as its class.
        TimedOut
            It took longer than ``worker_timeout``; the worker was killed.
        WorkerDied
            The worker crashed, or none can be started.
        Quarantined
            The file did either ``worker_strikes`` times, and has not changed since.
        Busy
            The pool is closed.
        """
        await self.start()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        job = Job(request, answer, longest_reply(request, self._limits.document))
        self._counters.add("worker_calls", label=job.kind)
        self._queue.put(job)
        self._dispatch()
        try:
            return await answer
        finally:
            self._queue.drop(job)

    async def aclose(self) -> None:
        """End all workers, and fail what waits for them; safe to call more than once."""
        self._closed = True
        if self._restart is not None:
            self._restart.cancel()
        for job in self._queue.clear():
            job.fail(Busy("the server is shutting down"))
        for process in self._processes:
            process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._all_gone()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        return tuple(sorted(process.pid for process in self._processes))

    @property
    def idle(self) -> tuple[int, ...]:
        """Process ids of the workers that wait for a call, the next to be taken first."""
        return tuple(process.pid for process in self._idle)

    @property
    def filters(self) -> frozenset[int]:
        """Numbers of the filters that workers can undo; empty before the first of them is ready."""
        return self._filters

    async def _all_gone(self) -> None:
        while self._processes:
            self._gone.clear()
            await self._gone.wait()

    def _dispatch(self) -> None:
        while self._idle:
            job = self._queue.next()
            if job is None:
                return
            if self._is_quarantined(job):
                self._queue.done(job)
                self._counters.add("quarantined", label=job.kind)
                job.fail(Quarantined("the file crashed or hung its readers and is put aside until it changes"))
                continue
            process = next((process for process in self._idle if job.file in process.files), self._idle[0])
            self._idle.remove(process)
            process.begin(job)

    def _is_quarantined(self, job: Job) -> bool:
        generation, strikes = self._strikes.get(job.file, ("", 0))
        return strikes >= self._limits.worker_strikes and generation == job.request.target.generation

    def _replenish(self) -> None:
        self._restart = None
        while len(self._processes) < self._size:
            self._processes.add(Process(self, self.hello, self._limits.worker_timeout))

    # -- what the processes report (`Owner`) --

    def ready(self, process: Process, filters: tuple[int, ...]) -> None:
        """Put a new worker to work."""
        self._failed_starts = 0
        self._filters = frozenset(filters)
        self._idle.append(process)
        self._dispatch()

    def finished(self, process: Process, job: Job) -> None:
        """Give the worker its next job."""
        self._queue.done(job)
        self._idle.append(process)
        self._dispatch()

    def failed(self, process: Process, job: Job | None, error: NDStreamError) -> None:
        """Count a strike against the file; the worker is replaced when it has ended."""
        if process in self._idle:
            self._idle.remove(process)
        if job is None:
            return
        self._queue.done(job)
        if self._closed:
            job.fail(Busy("the server is shutting down"))
            return
        self._counters.add("worker_timeouts" if isinstance(error, TimedOut) else "worker_deaths", label=job.kind)
        now = job.request.target.generation
        generation, strikes = self._strikes.pop(job.file, (now, 0))
        self._strikes[job.file] = (now, strikes + 1 if generation == now else 1)
        if len(self._strikes) > _REMEMBERED:
            self._strikes.popitem(last=False)
        _log.warning("worker %d, %s of %s in %s: %s", process.pid, job.kind, job.request.target.name, job.file, error)
        job.fail(error)
        self._dispatch()

    def ended(self, process: Process) -> None:
        """Replace a worker that has ended; one that never got ready, after a while."""
        self._processes.discard(process)
        self._gone.set()
        if self._closed:
            return
        if process.greeted and self._restart is None:
            self._replenish()
        if not process.greeted:
            self._start_failed()

    def _start_failed(self) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _FAILED_STARTS and not any(process.greeted for process in self._processes):
            for job in self._queue.clear():
                job.fail(WorkerDied("the processes that read HDF5 files do not start; see the log of the server"))
        if self._restart is None:
            delay = min(_LONGEST_DELAY, _DELAY * 2**self._failed_starts)
            self._restart = asyncio.get_running_loop().call_later(delay, self._replenish)
