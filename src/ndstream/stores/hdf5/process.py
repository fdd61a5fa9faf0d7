"""A worker process as the server sees it: started, spoken to, killed and buried."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import OrderedDict
from typing import Protocol, cast

import msgspec

from ndstream.errors import NDStreamError, TimedOut, WorkerDied, by_code
from ndstream.stores.hdf5.jobs import Job
from ndstream.stores.hdf5.messages import Failed, Hello, Ready, Reply, Request, longest_reply
from ndstream.stores.hdf5.recovery import LeftBehind

_log = logging.getLogger(__name__)

_MODULE = "ndstream.stores.hdf5.worker"
_HEAD = 4
_LINE = 4096
#: Seconds until the greeting is answered: loading the library may mean reading it from a cold disk.
_START = 60.0


class Owner(Protocol):
    """Who is told what becomes of a process."""

    def ready(self, process: Process, filters: tuple[int, ...]) -> None:
        """It has loaded the library."""
        ...

    def finished(self, process: Process, job: Job) -> None:
        """It has answered, and is free."""
        ...

    def failed(self, process: Process, job: Job | None, error: NDStreamError) -> None:
        """It is on its way to its end, and did not finish the job that it was at."""
        ...

    def ended(self, process: Process) -> None:
        """It is gone, and all that it held of the system has been given back."""
        ...


class Process(asyncio.BufferedProtocol):
    """One worker process, and the connection to it.

    Parameters
    ----------
    owner : Owner
    hello : Hello
        The greeting.
    patience : float, seconds
        How long it may take for each job, before it is killed.
    module : str, optional
        What runs in it, if not a worker.
    descriptors : tuple of int
        Descriptors that it inherits; their numbers are its later arguments.

    Attributes
    ----------
    pid : int
    files : ordered dict
        Files that it has open most likely, the last used ones at the end.
    greeted : bool
        Whether it has loaded the library, ever.
    """

    def __init__(
        self,
        owner: Owner,
        hello: Hello,
        patience: float,
        module: str | None = None,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        self.files: OrderedDict[str, None] = OrderedDict()
        self.greeted = False
        self._owner = owner
        self._hello = hello
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._job: Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._disconnected = False
        self._hung_up = False
        self._expect_head()
        ours, self._process, self._output = _start(module or _MODULE, descriptors)
        self.pid = self._process.pid
        # Ready to read once the process has ended.
        self._end = os.pidfd_open(self.pid)
        self._loop.add_reader(self._end, self._reap)
        self._loop.add_reader(self._output, self._log_output)
        self._connecting = self._loop.create_task(self._connect(ours))
        self._connecting.add_done_callback(lambda task: self._settle(ours))

    async def _connect(self, ours: socket.socket) -> None:
        await self._loop.create_unix_connection(lambda: self, sock=ours)

    def _settle(self, ours: socket.socket) -> None:
        if self._transport is None:
            # The task was cancelled before its first step: nobody else will close it.
            ours.close()
        elif self._disconnected:
            # Lost within `connection_made`: uvloop has closed the descriptor, and forgets to tell the object.
            ours.detach()

    # -- what the owner asks for --

    def begin(self, job: Job, patience: float | None = None) -> None:
        """Send a job to the process, which must be free; `patience` is for this job, in place of the usual one."""
        self._job = job
        self.files[job.file] = None
        self.files.move_to_end(job.file)
        if len(self.files) > self._hello.open_files:
            self.files.popitem(last=False)
        self._send(job.request, self._patience if patience is None else patience)

    def hang_up(self, last: Request | None = None) -> None:
        """Close the connection, after a `last` word: the process ends by itself when it has put its things in order."""
        self._hung_up = True
        if self._transport is not None:
            if last is not None and not self._transport.is_closing():
                self._transport.write(self._framed(last))
            self._transport.close()
        else:
            self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it does; `Owner.ended` follows."""
        self._process.kill()

    # -- the connection --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the process."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._send(self._hello, _START)

    def _send(self, request: Request, patience: float) -> None:
        assert self._transport is not None
        if self._transport.is_closing():  # uvloop would raise
            self._break(WorkerDied("the process had ended"))
            return
        self._waiting = patience
        self._timer = self._loop.call_later(patience, self._expire)
        self._transport.write(self._framed(request))

    def _framed(self, request: Request) -> bytearray:
        message = bytearray(_HEAD)
        self._encoder.encode_into(request, message, _HEAD)
        message[:_HEAD] = (len(message) - _HEAD).to_bytes(_HEAD, "little")
        return message

    def _expect_head(self) -> None:
        self._in_body = False
        self._view = memoryview(bytearray(_HEAD))
        self._filled = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the rest of the message that is being received."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Note that `nbytes` more have come."""
        self._filled += nbytes
        if self._filled < len(self._view):
            return
        message = self._view
        if self._in_body:
            self._expect_head()
            self._receive(message)
            return
        size = int.from_bytes(message, "little")
        if size > (self._job.longest if self._job else longest_reply(self._hello, 0)):
            self._break(WorkerDied("the answer was longer than any answer may be"))
            return
        self._in_body = True
        self._view = memoryview(bytearray(size))
        self._filled = 0

    def _receive(self, message: memoryview) -> None:
        self._stop_timer()
        try:
            reply = self._decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._break(WorkerDied("the answer made no sense"))
            return
        job, self._job = self._job, None
        match reply:
            case Ready(filters=filters) if job is None and not self.greeted:
                self.greeted = True
                self._owner.ready(self, filters)
            case Failed(code=code, message=text, left=left) if job is not None:
                job.fail(LeftBehind(left) if left else by_code(code)(text))
                self._owner.finished(self, job)
            case _ if job is not None and not isinstance(reply, Ready):
                job.succeed(reply)
                self._owner.finished(self, job)
            case _:
                self._break(WorkerDied("the answer was to nothing that had been asked"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the process cannot be spoken to any more, most likely since it crashed."""
        self._disconnected = True
        if not self._hung_up:
            self._break(WorkerDied("the process that was reading the file crashed"))
        if self._process.returncode is not None:
            self._owner.ended(self)

    def _expire(self) -> None:
        self._break(TimedOut(f"the HDF5 library took longer than {self._waiting:g} s (worker_timeout)"))

    def _break(self, error: NDStreamError) -> None:
        self._stop_timer()
        self.kill()
        job, self._job = self._job, None
        self._owner.failed(self, job, error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the process --

    def _reap(self) -> None:
        """Take notice that the process has ended."""
        self._process.wait()
        self._loop.remove_reader(self._end)
        os.close(self._end)
        self._log_output()
        self._close_output()
        if self._disconnected:
            self._owner.ended(self)

    def _log_output(self) -> None:
        """Log what the process wrote to its error stream: crashes of the library, and faults of ours."""
        if self._output < 0:
            return
        try:
            text = os.read(self._output, _LINE)
        except BlockingIOError:
            return
        for line in text.decode("utf-8", "replace").splitlines():
            _log.warning("worker %d: %s", self.pid, line)
        if not text:
            self._close_output()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1


def _start(module: str, descriptors: tuple[int, ...]) -> tuple[socket.socket, subprocess.Popen[bytes], int]:
    """Start a process; returns our end of the connection, the process, and the pipe with its error stream."""
    ours, theirs = socket.socketpair()
    output, error_stream = os.pipe()
    os.set_blocking(output, False)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-X", "faulthandler", "-m", module, *map(str, (theirs.fileno(), *descriptors))],
            pass_fds=[theirs.fileno(), *descriptors],
            stdin=subprocess.DEVNULL,
            stdout=error_stream,
            stderr=error_stream,
            cwd="/",
            env=_environment(),
        )
    except BaseException:
        ours.close()
        os.close(output)
        raise
    finally:
        theirs.close()
        os.close(error_stream)
    ours.setblocking(False)
    return ours, process, output


def _environment() -> dict[str, str]:
    """Environment of a worker: where the HDF5 library looks for files is for nobody outside to say."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("HDF5_") or name == "HDF5_PLUGIN_PATH"
    }
    return inherited | {
        # External storage is relative to the file that names it, not to the directory of the process.
        "HDF5_EXTFILE_PREFIX": "${ORIGIN}",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        # A worker computes nothing; threads of BLAS would only take its address space.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
