"""Following a dataset through whatever happens to it, its file, the server, and the way there."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing, closing, suppress
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest

import ndstream
from ndstream.client import changes, connections, following
from ndstream.errors import NotFound, TransportError
from ndstream.testing.fixtures import ServerFactory

pytestmark = pytest.mark.keeps_open("the tests share a server")


@pytest.fixture(scope="module")
def served(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("served")
    return ndstream_module_server(path, writable={"/": []}, limits={"workers": 1, "writer_idle": 5}).url, path


@pytest.fixture
def url(served: tuple[str, Path], request: pytest.FixtureRequest) -> str:
    """A directory of the test alone, with one file."""
    name = request.node.name
    (served[1] / name).mkdir()
    write_file(served[1] / name / "f.h5")
    return f"{served[0]}/{name}"


def write_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("g/x", "other"):
            file.create_dataset(name, data=np.arange(3), maxshape=(None,))
        file["second"] = file["g/x"]
        file["soft"] = h5py.SoftLink("/g")


def test_rows_come_by_whatever_name_they_are_appended(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    with closing(ndstream.open(url, "f.h5")["g/x"].follow()) as rows:
        file["second"].append([7])
        assert next(rows).tolist() == [7]
        append = changes.append(file["g/x"], [8], 0, None)
        file.connection.apply(file.file_path, [msgspec.structs.replace(append, name="/soft/x")])
        assert next(rows).tolist() == [8]
        del file["second"]
        file["g/x"].append([9])
        assert next(rows).tolist() == [9]


def _delete(file: Any) -> None:
    del file["g"]


def _replace(file: Any) -> None:
    with file.transaction():
        del file["g/x"]
        file.move("other", "g/x")


def _make_again(file: Any) -> None:
    with file.transaction():
        del file["g/x"]
        file.create_dataset("g/x", data=np.arange(9), maxshape=(None,))


@pytest.mark.parametrize("end", [_delete, _replace, _make_again, lambda file: file.move("g", "h")])
def test_following_ends_when_the_dataset_is_not_there_any_more(url: str, end: Callable[[Any], None]) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    with closing(ndstream.open(url, "f.h5")["g/x"].follow()) as rows:
        file["g/x"].append([7])
        assert next(rows).tolist() == [7]
        end(file)
        with pytest.raises(NotFound, match="deleted, moved, or replaced"):
            next(rows)


def test_what_is_cut_before_it_is_read_is_left_out(url: str) -> None:
    x = ndstream.open(url, "f.h5", mode="r+")["g/x"]
    with closing(ndstream.open(url, "f.h5")["g/x"].follow()) as rows:
        x.append([7, 8])
        x.resize((2,))
        x.append([9])
        assert next(rows).tolist() == [9]


def test_what_comes_between_the_call_and_the_first_row_is_told(url: str, served: tuple[str, Path]) -> None:
    name = url.rpartition("/")[2]
    rows = ndstream.open(url, "f.h5")["g/x"].follow()
    with h5py.File(served[1] / name / "f.h5", "r+") as file:
        file["g/x"].resize((5,))
        file["g/x"][3:] = [7, 8]
    with closing(rows):
        assert next(rows).tolist() == [7, 8]
    events = ndstream.open(url, "f.h5").follow()
    ndstream.open(url, "f.h5", mode="r+").create_group("new")
    with closing(events):
        while not (event := next(events)).complete:
            pass
        assert [change.name for change in event.changes] == ["/new"]


def test_rows_of_as_many_commits_of_a_server_that_was_started_again(
    ndstream_server: ServerFactory, tmp_path: Path
) -> None:
    write_file(tmp_path / "f.h5")
    settings: dict[str, Any] = {"limits": {"workers": 1}, "writable": {"/": []}}
    server = ndstream_server(tmp_path, **settings)
    ndstream.open(server.url, "f.h5", mode="r+")["g/x"].append([1])
    with closing(ndstream.open(server.url, "f.h5")["g/x"].follow()) as rows:
        server.stop()
        server = ndstream_server(tmp_path, port=server.port, **settings)
        ndstream.open(server.url, "f.h5", mode="r+")["g/x"].append([2])
        assert next(rows).tolist() == [2]


class Gap:
    """A way to a server on which some requests get no answer; all others do."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.lost: dict[bytes, int] = {}
        self._threads: list[threading.Thread] = []
        self._sockets = [self._listening]
        self._start(self._serve)

    def _start(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._connect, self._listening.accept()[0])

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            self._sockets += [client, server]
            asking = self._start(self._pass, client, server, True)
            self._pass(server, client, False)
            asking.join()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if asks and self._loses(piece):
                    break
                target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _loses(self, piece: bytes) -> bool:
        for request, left in self.lost.items():
            if piece.startswith(request) and left:
                self.lost[request] = left - 1
                return True
        return False

    def close(self) -> None:
        """End, and all that goes this way."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def gap(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gap]:
    monkeypatch.setattr(following, "_FIRST_PAUSE", 0.001)
    way = Gap(int(served[0].rpartition(":")[2]))
    yield way
    connections.forget()
    way.close()


LOST = {b"POST /v1/data": 10, b"GET /v1/node": 10, b"GET /v1/events": 10}
"""More than one request is sent again."""


def test_rows_are_read_when_the_server_is_back(url: str, gap: Gap) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    name = url.rpartition("/")[2]
    with closing(ndstream.open(gap.url, f"{name}/f.h5")["g/x"].follow()) as rows:
        file["g/x"].append([1])
        assert next(rows).tolist() == [1]
        gap.lost |= LOST
        file["g/x"].append([2])
        assert next(rows).tolist() == [2]
        del file["other"]  # it is looked at again
        file["g/x"].append([3])
        assert next(rows).tolist() == [3]
    assert not gap.lost[b"POST /v1/data"] and not gap.lost[b"GET /v1/node"]


def test_a_task_goes_on_when_the_server_is_back(url: str, gap: Gap) -> None:
    name = url.rpartition("/")[2]
    x = ndstream.open(url, "f.h5", mode="r+")["g/x"]

    async def main() -> None:
        async with ndstream.aopen(gap.url, f"{name}/f.h5") as file, aclosing((await file["g/x"]).follow()) as rows:
            first = asyncio.ensure_future(anext(rows))
            number = 0
            while not first.done():
                number += 1
                x.append([number])
                await asyncio.wait([first], timeout=0.1)
            found = (await first).tolist()
            gap.lost |= LOST
            x.append([number + 1])
            while found[-1] <= number:
                found += (await anext(rows)).tolist()
            assert found == list(range(found[0], number + 2))

    asyncio.run(asyncio.wait_for(main(), 60))
    assert not gap.lost[b"POST /v1/data"]


def test_any_number_of_followers_leave_connections_to_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndstream.transports.aio._POOLED", 2)

    async def main() -> None:
        async with ndstream.aopen(url, "f.h5", mode="r+") as file, AsyncExitStack() as followed:
            x = await file["g/x"]
            each = [await followed.enter_async_context(aclosing(x.follow())) for _ in range(4)]
            firsts = [asyncio.ensure_future(anext(rows)) for rows in each]
            number = 0
            while not all(first.done() for first in firsts):
                number += 1
                await x.append([number])
                await asyncio.wait(firsts, timeout=0.1)
            for first in firsts:
                assert (await first)[0] <= number

    asyncio.run(asyncio.wait_for(main(), 60))


def test_following_ends_when_the_client_is_closed(url: str) -> None:
    async def main() -> None:
        async with ndstream.aopen(url, "f.h5", mode="r+") as file:
            x = await file["g/x"]
            rows = x.follow()
            number = 0
            first = asyncio.ensure_future(anext(rows))
            while not first.done():
                number += 1
                await x.append([number])
                await asyncio.wait([first], timeout=0.1)
            last = (await first)[-1]
            while last < number:
                last = (await anext(rows))[-1]
            following = asyncio.ensure_future(anext(rows))
        with pytest.raises(TransportError, match="closed"):
            await following

    asyncio.run(asyncio.wait_for(main(), 60))
