"""The steps of the demo with arrays in flight: a stream is recorded on the server, read meanwhile, and played again."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import hdf5plugin  # noqa: F401 - importing it registers its filters
import numpy as np
import typer

import ndstream
from ndstream.cli.walk.stage import Stage
from ndstream.errors import Corrupt, NDStreamError
from ndstream.protocols.htype.generating import Generator, Plan

FILE = "lab/frames.h5"
_DATA = "entry_0001/data/data"
_SENT = Plan(shape=(256, 256), dtype=np.dtype("uint16"), seed=7)  # what the detector below sends
_PATIENCE = 60.0


def record(stage: Stage) -> None:
    """A detector sends compressed frames; they are stored as they come, and read from the server meanwhile."""
    kind = "--htype", "dimage-1.0", "--shape", "256,256", "--dtype", "uint16", "--seed", "7", "--compression", "bslz4"
    with _running("generate", "tcp://127.0.0.1:*", *kind, "--rate", "100", "--wait", "1") as detector:
        address = _line(detector, "ndstream: sending at ")
        with _running("record", address, f"{stage.url}/{FILE}", "--interval", "0.2") as recorder:
            _wait_for_frames(stage)
            stage.call(f'frames = ndstream.open("{stage.url}", "{FILE}")["{_DATA}"]')
            stage.call("growing = frames.follow()")
            new = stage.call("next(growing)")
            stage.call("growing.close()")
            _interrupt(detector)
            _interrupt(recorder)
    with _recorded(stage) as local:
        images, numbers = local[_DATA], local["entry_0001/data/frame_number"][:]
        sent = Generator(_SENT)
        for number, image in enumerate(images):
            stage.check(image, sent.array(number))
        stage.check(numbers, np.arange(len(images)))
        stage.check([any(np.array_equal(frame, image) for image in images) for frame in new], np.full(len(new), True))
        stage.call("frames.refresh()")
        stage.check(stage.call("frames[::10, 0, 0]"), images[::10, 0, 0])


def play(stage: Stage) -> None:
    """What was recorded is sent again, and received as it was."""
    with _running("play", str(stage.data / FILE), "tcp://127.0.0.1:*", "--speed", "0") as player:
        address = _line(player, "ndstream: sending at ")
        with _recorded(stage) as local:
            images = local[_DATA][:]
        stage.call(f'stream = ndstream.connect("{address}", receive_timeout=60_000)')
        stage.call(f"messages = [stream.receive() for _ in range({len(images) + 2})]")
        stage.call('[message.data["header"]["htype"] for message in messages[::len(messages) - 1]]')
        received = stage.call('np.stack([message.arrays["image"] for message in messages[1:-1]])')
        stage.call("stream.statistics.missing")
        stage.call("stream.disconnect()")
        stage.check(received, images)
        _end(player)


def _recorded(stage: Stage) -> h5py.File:
    return h5py.File(stage.data / FILE, "r", locking=False)


def _wait_for_frames(stage: Stage) -> None:
    """Wait for the first commit of the recorder."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            if ndstream.open(stage.url, FILE)[_DATA].len():
                return
        except (NDStreamError, KeyError):
            time.sleep(0.05)
    raise Corrupt(f"nothing was recorded in {_PATIENCE:g} s")


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Show a command of ours, and run it in the background."""
    typer.secho(f"$ {shlex.join(('ndstream', *command))} &", fg="cyan")
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "ndstream", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str], begin: str) -> str:
    """Wait for a line that begins so; what follows in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(begin):
            typer.echo(line.rstrip())
            return line.removeprefix(begin).split()[0]
    raise Corrupt(f"a command ended with {process.wait()}")


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a command, and show its summary."""
    said, _ = process.communicate(timeout=_PATIENCE)
    typer.echo(said.rstrip())
    if process.returncode:
        raise Corrupt(f"a command ended with {process.returncode}")


def _interrupt(process: subprocess.Popen[str]) -> None:
    """End a command as Ctrl-C does."""
    typer.secho("^C", fg="cyan")
    process.send_signal(signal.SIGINT)
    _end(process)
