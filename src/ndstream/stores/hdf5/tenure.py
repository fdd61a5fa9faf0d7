"""One owner process, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ndstream.errors import NDStreamError, WorkerDied
from ndstream.stores.hdf5.aside import Aside
from ndstream.stores.hdf5.jobs import Answer, Call, Job
from ndstream.stores.hdf5.messages import Hello, Release, longest_reply
from ndstream.stores.hdf5.process import Process

_MODULE = "ndstream.stores.hdf5.owner"
#: Seconds that the process gets to let go of its file.
_GRACE = 30.0


class Tenure:
    """A process that owns a file, asked one thing at a time.

    Parameters
    ----------
    hello : Hello
    ended : callable
        Called when the process dies by itself.

    Attributes
    ----------
    aside : Aside
        Where the process finds what is too large for a message.

    Raises
    ------
    Busy
        There are no temporary files.
    """

    def __init__(self, hello: Hello, ended: Callable[[Tenure], None]) -> None:
        self._hello = hello
        self._on_end = ended
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._closing = False
        self._broken = False
        self.aside = Aside()
        self._process = Process(self, hello, 0.0, _MODULE, (self.aside.descriptor,))
        self.pid = self._process.pid

    async def started(self) -> None:
        """Wait until the process has loaded the HDF5 library; raises `WorkerDied`."""
        await self._ready

    async def call(self, request: Call, patience: float) -> Answer:
        """Have the process answer; one call at a time.

        Raises
        ------
        NDStreamError
            What the process found.
        WorkerDied, TimedOut
            It has ended; what had been asked may have been done.
        """
        if self._broken or self._closing:
            raise WorkerDied("the process that writes the file has ended")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._process.begin(Job(request, answer, longest_reply(request, self._hello.document)), patience)
        return await asyncio.shield(answer)

    async def aclose(self, *, release: bool = True) -> None:
        """Have the process let go of the file and end; kill it when it does not.

        Without `release` it ends as in a crash: its journal stays, with what it knows of batches sent again.
        """
        self._closing = True
        self._process.hang_up(Release() if release else None)
        try:
            async with asyncio.timeout(_GRACE):
                await self._gone.wait()
        except TimeoutError:
            self._process.kill()
            await self._gone.wait()

    # -- what the process reports (`ndstream.stores.hdf5.process.Owner`) --

    def ready(self, process: Process, filters: tuple[int, ...]) -> None:
        """It has loaded the library."""
        if not self._ready.done():
            self._ready.set_result(None)

    def finished(self, process: Process, job: Job) -> None:
        """It has answered, and is free."""

    def failed(self, process: Process, job: Job | None, error: NDStreamError) -> None:
        """It is on its way to its end."""
        self._broken = True
        if isinstance(error, WorkerDied):
            error = WorkerDied("the process that writes the file died; it is not known whether this was committed")
        if job is not None:
            job.fail(error)
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()

    def ended(self, process: Process) -> None:
        """It is gone."""
        if self._gone.is_set():
            return
        self._gone.set()
        if not self._closing:
            self._on_end(self)
