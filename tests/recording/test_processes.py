"""``ndstream record`` and ``ndstream play`` in processes of their own, on real sockets."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import hdf5plugin  # noqa: F401  # importing it registers its filters
import numpy as np
import pytest

import ndstream
from ndstream.errors import NDStreamError
from ndstream.stores.hdf5.local import open_local
from ndstream.testing import processes
from ndstream.testing.fixtures import ServerFactory

from .conftest import parts_of
from .senders import STREAMS, Parts, eiger_end, eiger_header, eiger_image, frame, pulse

T = TypeVar("T")

PATIENCE = 60.0


class Command:
    """A command of ndstream that runs."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ndstream", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._told = b""

    def said(self, text: str) -> str:
        """Wait for a line on its standard error that begins so; returns the rest of it."""
        stream = self._process.stderr
        assert stream is not None
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while not (lines := [line for line in self._told.decode().splitlines() if line.startswith(text)]):
                assert selector.select(max(0.0, deadline - time.monotonic())), self._told
                piece = os.read(stream.fileno(), 1 << 12)
                assert piece, self._told
                self._told += piece
        return lines[0].removeprefix(text)

    def end(self, number: int | None = signal.SIGINT) -> tuple[int, str]:
        """Tell it to end, or only wait until it does; returns its exit code and what it said."""
        if number is not None:
            self._process.send_signal(number)
        out, err = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, (out + self._told + err).decode()

    def kill(self) -> None:
        """Kill it and all it started."""
        others = processes.session(self.pid)
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)
        for pid in others:
            processes.send(pid, signal.SIGKILL)
        assert not processes.still_alive(others, PATIENCE)


@contextmanager
def running(*arguments: str) -> Iterator[Command]:
    command = Command(*arguments)
    try:
        yield command
    finally:
        if command._process.poll() is None:
            command.kill()


@contextmanager
def recording(file: Path | str, *options: str) -> Iterator[tuple[Command, ndstream.Stream]]:
    """A recorder that is bound, and a sender that is connected to it."""
    with running("record", "tcp://127.0.0.1:*", str(file), "--bind", "-i", "0.05", *options) as command:
        address = command.said("recording ").partition(" ")[0]
        with ndstream.connect(address, mode=ndstream.PUSH, linger=-1) as sender:
            yield command, sender


def eventually(look: Callable[[], T | None]) -> T:
    """Look until there is something; a file that is being changed may not be readable for a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = look()
        except (OSError, KeyError, RuntimeError, NDStreamError):
            found = None
        if found is not None:
            return found
        assert time.monotonic() < deadline, "it does not come"
        select_nothing(0.02)


def select_nothing(seconds: float) -> None:
    """Let others run before the next look."""
    with selectors.DefaultSelector() as selector:
        selector.select(seconds)


def frames_in(path: Path, numbers: set[int]) -> list[Any] | None:
    """Frames that plain h5py finds, once those numbers are there."""
    with h5py.File(path) as file:
        data = file["entry_0001/data"]
        found = data["frame_number"][:].tolist()
        return [data["data"][number] for number in sorted(numbers)] if numbers <= set(found) else None


@pytest.mark.keeps_open("the client keeps connections for the next request")
def test_a_stream_is_recorded_read_while_it_grows_and_played_again(
    tmp_path: Path, ndstream_server: ServerFactory
) -> None:
    folder = tmp_path / "growing"
    folder.mkdir()
    server = ndstream_server(folder, limits={"workers": 1})
    path = folder / "run.h5"
    first = [eiger_header(1, 6), eiger_image(1, 0), eiger_image(1, 3), eiger_image(1, 1, "lz4<")]
    second = [eiger_image(1, 5), [b"no header"], eiger_end(1), pulse(7, value=np.float64(2)), *STREAMS["stream2"]]
    with recording(path) as (command, sender):
        for parts in first[:3]:
            sender.send_parts(parts)
        assert np.array_equal(eventually(lambda: frames_in(path, {0, 3})), [frame(0), frame(3)])

        def served() -> Any:
            data = ndstream.open(server.url, "run.h5")["entry_0001/data"]
            return data["data"][0:4] if data["frame_number"][:].tolist() == [0, -1, -1, 3] else None

        found = eventually(served)
        assert np.array_equal(found[[0, 3]], [frame(0), frame(3)])
        assert not found[1].any()
        for parts in [*first[3:], *second]:
            sender.send_parts(parts)
        sender.disconnect()
        eventually(lambda: _count(path) == len(first) + len(second) or None)
        code, said = command.end()
    assert code == 0, said
    assert f"{len(first) + len(second)} messages" in said
    assert "2 missing" in said
    assert "1 undecodable" in said
    with h5py.File(path) as file:
        assert file["entry_0001/data/missing"][:].tolist() == [[2, 3], [4, 5]]
        # The frame with another compression than those before it is in an entry of its own.
        assert np.array_equal(file["entry_0002/data/data"][1], frame(1))
    assert sorted(entry.name for entry in folder.iterdir()) == ["run.h5"]
    assert play(path) == first + second


def _count(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["messages/index"])


def play(*paths: Path) -> list[Parts]:
    """Play to a stream; returns what it receives."""
    arguments = ("play", *map(str, paths), "tcp://127.0.0.1:*", "--speed", "0")
    with running(*arguments) as command:
        address = command.said("ndstream: sending at ")
        with ndstream.connect(address, receive_timeout=60_000) as receiver:
            received = []
            while True:
                message = receiver.receive_raw()
                assert message is not None
                received.append([bytes(part) for part in message.frames])
                if len(received) == sum(map(_count, paths)):
                    break
            code, said = command.end(None)
    assert (code, f"{len(received)} messages" in said) == (0, True), said
    return received


def test_a_killed_recorder_leaves_every_frame_of_its_last_commit(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with recording(path) as (command, sender):
        sender.send_parts(eiger_header(1, 10_000))
        number = 0
        while number < 40 or not eventually(lambda: frames_in(path, {5})):
            sender.send_parts(eiger_image(1, number))
            number += 1
        seen = eventually(lambda: _count(path))
        command.kill()
        sender.disconnect(linger=0)
    with open_local(path) as file:  # which puts in order what is left to be done
        numbers = file["entry_0001/data/frame_number"][:].tolist()
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= seen - 1
        assert np.array_equal(file["entry_0001/data/data"], [frame(n) for n in numbers])
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]
    messages = [eiger_header(1, 10_000), *(eiger_image(1, n) for n in numbers)]
    assert asyncio.run(parts_of(path)) == messages


@pytest.mark.keeps_open("the client keeps connections for the next request")
def test_a_recording_is_made_on_a_server(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    server = ndstream_server(tmp_path, limits={"workers": 1}, writable={"/": []})
    messages = STREAMS["eiger"]
    with recording(f"{server.url}/run.h5", "-n", str(len(messages))) as (command, sender):
        for parts in messages:
            sender.send_parts(parts)
        code, said = command.end(None)
        assert code == 0, said
    data = ndstream.open(server.url, "run.h5")["entry_0001/data/data"]
    assert np.array_equal(data[...], [frame(n) for n in range(4)])
    again = Command("record", "tcp://127.0.0.1:*", f"{server.url}/run.h5", "--bind")
    code, said = again.end(None)
    assert code == 1
    assert "already" in said
    server.stop()
    assert asyncio.run(parts_of(tmp_path / "run.h5")) == messages


@pytest.mark.parametrize(
    "arguments",
    [
        ("record", "tcp://127.0.0.1:*", "run.h5", "--bind", "-m", "push"),
        ("record", "tcp://127.0.0.1:*", "run.h5", "--bind", "--roll-size", "much"),
        ("record", "tcp://127.0.0.1:*", "nowhere/run.h5", "--bind"),
        ("play", "nothing.h5", "tcp://127.0.0.1:*", "-m", "pull"),
    ],
)
def test_what_makes_no_sense_is_said(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from ndstream.cli.main import app

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        app(list(arguments), prog_name="ndstream")
    assert ended.value.code in (1, 2)
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())
