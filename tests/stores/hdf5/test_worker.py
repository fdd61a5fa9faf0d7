"""A worker speaks its protocol over an inherited socket, and nothing it reads makes it say too much."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest

from ndstream.core.limits import GiB, MiB
from ndstream.core.model import Dataset, Group, Unreadable
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.messages import Describe, Described, Failed, Fetch, Fetched, Hello, Ready, Reply, Target

from .conftest import Asked


class Talk:
    """A worker process, and the other end of its socket."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(30)
        command = [sys.executable, "-m", "ndstream.stores.hdf5.worker", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self.stream = self.ours.makefile("rb")

    def say(self, message: Any) -> None:
        body = msgspec.msgpack.encode(message)
        self.ours.sendall(len(body).to_bytes(4, "little") + body)

    def hear(self) -> Reply:
        size = int.from_bytes(self.stream.read(4), "little")
        reply: Reply = msgspec.msgpack.decode(self.stream.read(size), type=Reply)
        return reply

    def greet(self, root: Path, **limits: int) -> Ready:
        settings = {
            "open_files": 2, "memory": 4 * GiB, "chunk_index": 1000, "links": 1000, "link_depth": 8, "document": MiB,
        }  # fmt: skip
        self.say(Hello(roots={"": str(root)}, **(settings | limits)))
        ready = self.hear()
        assert isinstance(ready, Ready)
        return ready

    def close(self) -> int:
        self.stream.close()
        self.ours.close()
        return self.process.wait(10)


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk()
    yield talk
    talk.close()


def target(path: Path, name: str = "/d") -> Target:
    return Target(file=str(path), generation=generation_of(path.stat()), name=name)


def fetch(path: Path, count: int) -> Fetch:
    return Fetch(target=target(path), start=(0,), count=(count,), step=(1,), most=MiB)


def test_requests_are_answered_in_order_and_the_end_is_orderly(talk: Talk, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["d"] = np.arange(100)

    assert {1, 2, 3} <= set(talk.greet(tmp_path).filters)
    for count in range(5):
        talk.say(fetch(tmp_path / "f.h5", count))
    for count in range(5):
        assert talk.hear() == Fetched(data=np.arange(count).tobytes())
    talk.say(Describe(target=target(tmp_path / "f.h5", "/"), depth=0, wide=20, data=0))
    assert isinstance(talk.hear(), Described)
    assert talk.close() == 0


def test_a_worker_keeps_few_files_open(talk: Talk, tmp_path: Path) -> None:
    talk.greet(tmp_path, open_files=2)
    for number in range(5):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["d"] = np.arange(1)
        talk.say(fetch(tmp_path / f"{number}.h5", 1))
        assert isinstance(talk.hear(), Fetched)

    descriptors = [os.readlink(entry) for entry in Path(f"/proc/{talk.process.pid}/fd").iterdir()]  # noqa: PTH115
    assert sorted(Path(name).name for name in descriptors if name.endswith(".h5")) == ["3.h5", "4.h5"]


def test_an_answer_longer_than_a_document_is_refused(talk: Talk, tmp_path: Path) -> None:
    talk.greet(tmp_path, document=100_000)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["d"] = 1
        for number in range(900):
            group = file.create_group(f"{'long name' * 20}{number}")
            group.attrs["x"] = "y" * 100

    talk.say(Describe(target=target(tmp_path / "f.h5", "/"), depth=1, wide=2000, data=0))

    reply = talk.hear()
    assert isinstance(reply, Failed)
    assert reply.code == "too-large"


def test_a_second_greeting_is_refused(talk: Talk, tmp_path: Path) -> None:
    ready = talk.greet(tmp_path)
    talk.say(Hello(roots={}, open_files=1, memory=1, chunk_index=1, links=1, link_depth=1, document=1))

    assert talk.hear() == Failed(code="invalid", message="the greeting comes once, and first")
    assert ready.filters


def test_a_worker_that_is_not_greeted_does_nothing(talk: Talk, tmp_path: Path) -> None:
    h5py.File(tmp_path / "f.h5", "w").close()
    talk.say(fetch(tmp_path / "f.h5", 1))

    assert talk.process.wait(20) == 0


def test_elements_too_large_to_describe_harm_only_their_dataset(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file.create_dataset("monster", (1,), np.dtype(("u1", (20 * MiB,))), chunks=(1,))
        file["fine"] = 1

    root = asked.describe("f.h5")

    assert isinstance(root, Group)
    assert isinstance(root.members["monster"], Unreadable)
    assert isinstance(root.members["fine"], Dataset)


def test_types_count_for_the_length_of_a_description(tmp_path: Path) -> None:
    asked = Asked(tmp_path, document=100_000)
    wide = np.dtype([(f"member{number}", "<i4") for number in range(100)])
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["type"] = wide
        for number in range(50):
            file.create_dataset(f"{number}", (1,), file["type"])

    with pytest.raises(ValueError, match="document"):
        asked.describe("f.h5")
    asked.worker.close()
