"""Requests that wait for a worker, or that one is busy with."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeAlias

from ndstream.errors import NDStreamError
from ndstream.stores.hdf5.messages import (
    Applied,
    Apply,
    Checkpoint,
    Describe,
    Described,
    Fetch,
    Fetched,
    Locate,
    Located,
    Publish,
    Published,
    Take,
    Taken,
)

Call: TypeAlias = Describe | Locate | Fetch | Take | Apply | Publish | Checkpoint
Answer: TypeAlias = Described | Located | Fetched | Taken | Applied | Published


class Job:
    """One request and the future of its answer, which may be cancelled at any time.

    Parameters
    ----------
    request : Describe, Locate, Fetch, or one that only an owner answers
    answer : Future
    longest : int, bytes
        Length of the longest reply that is accepted.
    """

    __slots__ = ("answer", "file", "kind", "longest", "request")

    def __init__(self, request: Call, answer: asyncio.Future[Answer], longest: int) -> None:
        self.request = request
        self.answer = answer
        self.longest = longest
        self.file = request.target.file
        self.kind = type(request).__name__.lower()

    def succeed(self, reply: Answer) -> None:
        """Hand over the answer, if somebody still waits for it."""
        if not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, error: NDStreamError) -> None:
        """Raise `error` where the answer is awaited, if it still is."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Queue:
    """Jobs in the order of their coming, file by file in turn.

    Parameters
    ----------
    share : int
        How many jobs of one file may run at the same time.
    """

    __slots__ = ("_running", "_share", "_waiting")

    def __init__(self, share: int) -> None:
        self._share = share
        self._waiting: OrderedDict[str, dict[Job, None]] = OrderedDict()
        self._running: dict[str, int] = {}

    def put(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._waiting.setdefault(job.file, {})[job] = None

    def next(self) -> Job | None:
        """Take a job that may run now; `done` must follow."""
        for file, jobs in self._waiting.items():
            if self._running.get(file, 0) < self._share:
                job = next(iter(jobs))
                self._waiting.move_to_end(file)
                self.drop(job)
                self._running[file] = self._running.get(file, 0) + 1
                return job
        return None

    def done(self, job: Job) -> None:
        """Note that a job that was taken does not run any more."""
        self._running[job.file] -= 1
        if not self._running[job.file]:
            del self._running[job.file]

    def drop(self, job: Job) -> None:
        """Forget a job that waits; nothing happens if it does not."""
        jobs = self._waiting.get(job.file)
        if jobs is not None and job in jobs:
            del jobs[job]
            if not jobs:
                del self._waiting[job.file]

    def clear(self) -> Iterator[Job]:
        """Forget and yield all jobs that wait."""
        while self._waiting:
            _, jobs = self._waiting.popitem(last=False)
            yield from jobs
