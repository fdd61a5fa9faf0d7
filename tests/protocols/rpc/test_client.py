"""Our client, with our server and with those of the original (A4, B7, C3; acceptance 5, 12, 15, 21)."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import pytest
import trustme
from tests.protocols.rpc.conftest import TOKEN, Served, StartOwn, StartServed
from tests.protocols.rpc.old_server import Server, handler
from tests.protocols.rpc.peer import Peer, frame, packed

import ndstream
from ndstream.core.limits import Limits, MiB
from ndstream.errors import (
    CertificateError,
    ConnectionLost,
    InvalidRequest,
    InvalidSelection,
    NotAuthenticated,
    NotFound,
    NotSupported,
    OutOfBounds,
    TimedOut,
    TooLarge,
    UnsupportedDType,
)
from ndstream.testing.fixtures import ServerFactory

ITEMS = np.array([(1, 2.5), (2, 3.5)], [("a", "<i4"), ("b", "<f8")])


def with_client(port: int, work: Callable[[ndstream.HDF5Client], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with ndstream.HDF5Client(port=port, **options) as client:
            await work(client)

    asyncio.run(whole())


def test_the_example_of_the_original_runs(served: Served, group: str) -> None:
    async def example() -> None:
        client = ndstream.HDF5Client(host="127.0.0.1", port=served.port)
        await client.connect()
        await client.create_group(f"{group}/experiment")
        await client.write(f"{group}/experiment/data", np.arange(10))
        response = await client.read(f"{group}/experiment/data")
        assert response.get("status") == "success"
        assert response.get("data").tolist() == list(range(10))
        await client.append(f"{group}/experiment/log", ITEMS, deduplicate_on="a")
        await client.update(f"{group}/experiment/data", np.arange(3))
        await client.insert(f"{group}/experiment/data", 1, np.array([9]))
        assert (await client.read(f"{group}/experiment/data")).get("data").tolist() == [0, 9, 1, 2]
        await client.delete(f"{group}/experiment/data")
        assert await client.read(f"{group}/experiment/data") == {
            "status": "not_found", "code": "not_found", "message": (await client.read("/no"))["message"].replace(
                "/no", f"{group}/experiment/data"
            ),
        }  # fmt: skip
        assert (await client.request({"command": "get_config"}))["status"] == "success"
        assert client.is_connected
        await client.close()
        assert not client.is_connected

    asyncio.run(example())


def test_data_and_errors_come_unwrapped(served: Served, group: str) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        await client.write(group, ITEMS)
        np.testing.assert_array_equal(await client.read(group), ITEMS)
        assert await client.read(group, np.s_[1]) == ITEMS[1]
        with pytest.raises(NotFound, match="none"):
            await client.read(f"{group}/none")
        with pytest.raises(OutOfBounds):
            await client.read(group, 7)
        with pytest.raises(InvalidSelection):
            await client.read(group, "text")
        for value in (5, 2.5, "größer", {"a": [1, None]}, [1, 2]):
            await client.write(f"{group}2", value)
            assert np.asarray(await client.read(f"{group}2")).tolist() == np.asarray(value).tolist()

    with_client(served.port, work, unwrap=True)


INNER = np.dtype([("unit", "<U3"), ("x", "<f4")])
WORDS = np.array(
    [("abc", 1, ("µm", 0.5), ["é", ""]), ("日本語", 2, ("", 1.5), ["long", "xyz"])],
    [("name", "<U5"), ("n", "<i4"), ("inner", INNER), ("tags", "<U4", (2,))],
)


@pytest.mark.parametrize("compress", [False, True])
def test_records_with_text_are_what_they_were_in_the_file_and_back(served: Served, group: str, compress: bool) -> None:
    expected = [WORDS["name"].tolist(), WORDS["n"].tolist(), WORDS["tags"].tolist(), WORDS["inner"]["unit"].tolist()]

    def members(array: Any) -> list[Any]:
        columns = [array["name"], array["n"], array["tags"], array["inner"]["unit"]]
        return [(np.char.decode(one, "utf-8") if one.dtype.kind == "S" else one).tolist() for one in columns]

    async def work(client: ndstream.HDF5Client) -> None:
        await client.write(f"{group}/d", WORDS)
        await client.set_attrs(f"{group}/d", {"all": WORDS, "one": WORDS[1]})
        await client.create_dataset(f"{group}/made", WORDS.shape, WORDS.dtype)
        await client.update(f"{group}/made", WORDS, selection=np.s_[:])
        await client.append(f"{group}/rows", WORDS[:1])
        await client.append(f"{group}/rows", WORDS[1:])
        attrs = (await client.get_attrs(f"{group}/d"))["attrs"]
        assert members(attrs["all"]) == expected
        assert members(attrs["one"]) == [column[1] for column in expected]
        with h5py.File(served.path, "r", locking=False) as file:
            assert members(file[f"{group}/d"].attrs["all"]) == expected
            for name in ("d", "made", "rows"):
                assert members(file[f"{group}/{name}"][:]) == expected
                assert members(await client.read(f"{group}/{name}")) == expected
                assert file[f"{group}/{name}"].dtype["name"].itemsize == 20
                assert h5py.check_string_dtype(file[f"{group}/{name}"].dtype["name"]) == ("utf-8", 20)

    with_client(served.port, work, unwrap=True, compress=compress)
    with Peer(served.port) as peer:
        assert members(peer.data(f"{group}/d")) == expected


def test_text_of_records_in_pieces_is_as_long_as_the_longest(start_own: StartOwn) -> None:
    count = 500_000
    kept = np.zeros(count, [("word", h5py.string_dtype("utf-8", 12)), ("n", "<i8")])
    kept["n"] = np.arange(count)
    kept["word"][0], kept["word"][-1] = b"a", b"twelve bytes"
    served = start_own({"words": kept})

    async def work(client: ndstream.HDF5Client) -> None:
        found = await client.read("/words")
        assert (found["word"][0], found["word"][-1]) == ("a", "twelve bytes")
        np.testing.assert_array_equal(found["n"], kept["n"])

    with_client(served.port, work, unwrap=True)


def test_elements_that_are_arrays_come_in_pieces(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    values = np.arange(1_200_000.0).reshape(2, 200_000, 3)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        kind = h5py.h5t.array_create(h5py.h5t.NATIVE_DOUBLE, (3,))
        made = h5py.h5d.create(file.id, b"vectors", kind, h5py.h5s.create_simple((2, 200_000)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)

    async def work(client: ndstream.HDF5Client) -> None:
        for part in (np.s_[:], np.s_[:, :10]):
            np.testing.assert_array_equal(await client.read("/vectors", part), values[part])

    server = ndstream_server(tmp_path / "data.h5", rpc={"port": 0})
    with_client(server.streams["rpc"], work, unwrap=True)


@pytest.mark.parametrize("count", [200, 600_000])
def test_texts_of_which_one_is_long_take_the_memory_that_they_have(start_own: StartOwn, count: int) -> None:
    texts = np.full(count, "short", h5py.string_dtype())
    texts[count // 2] = "x" * 300_000
    served = start_own({"texts": texts})

    async def work(client: ndstream.HDF5Client) -> None:
        for found in (await client.read("/texts"), await client.read("/texts", np.s_[:])):
            assert found.dtype == object
            assert found.tolist() == texts.tolist()

    with_client(served.port, work, unwrap=True)


def test_texts_of_which_one_is_long_are_written(served: Served, group: str) -> None:
    texts = np.full(200, "short", object)
    texts[7] = "x" * 300_000

    async def work(client: ndstream.HDF5Client) -> None:
        await client.write(group, texts)
        await client.append(group, texts)
        assert (await client.read(group)).tolist() == [*texts, *texts]

    with_client(served.port, work, unwrap=True)


def test_a_list_alone_is_one_of_the_first_axis(served: Served, group: str) -> None:
    values = np.arange(12).reshape(3, 4)

    async def work(client: ndstream.HDF5Client) -> None:
        await client.write(group, values)
        asked: list[tuple[Any, Any]] = [
            ([0, 2], values[[0, 2]]),
            ([True, False, True], values[[0, 2]]),
            ([], values[:0]),
            ([np.int64(1)], values[[1]]),
            (np.array([2, 0]), values[[2, 0]]),
            (([0, 2], 1), values[[0, 2], 1]),
            ([[0, 2], 1], values[0:2, 1]),
        ]
        for key, expected in asked:
            np.testing.assert_array_equal(await client.read(group, key), expected)
        np.testing.assert_array_equal(await client.read(group, selections=[[0, 2], [1]]), values[[0, 2, 1]])
        await client.update(group, np.zeros((2, 4), int), selection=[0, 2])
        await client.batch([{"command": "update", "path": group, "data": np.ones((1, 4), int), "selection": [1]}])
        assert (await client.read(group)).tolist() == [[0] * 4, [1] * 4, [0] * 4]

    with_client(served.port, work, unwrap=True)


def test_numbers_of_numpy_are_arguments_as_any(served: Served, group: str) -> None:
    two: Any = np.int64(2)

    async def work(client: ndstream.HDF5Client) -> None:
        await client.create_dataset(f"{group}/a", two, "<i4", maxshape=[None], chunks=[two])
        await client.insert(f"{group}/a", two, [7])
        await client.resize(f"{group}/a", [two + two])
        assert (await client.read(f"{group}/a", np.s_[np.int8(1) : two + 1])).tolist() == [0, 7]
        assert (await client.list(group, depth=two, limit=two))["more"] is False

    with_client(served.port, work, unwrap=True)


def test_a_single_element_is_a_scalar_of_its_type(served: Served, group: str) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        for value in (np.int32(3), np.float32(0.5), np.complex64(1j), np.uint8(7)):
            await client.write(f"{group}/one", np.asarray(value))
            await client.set_attrs(f"{group}/one", {"same": np.asarray(value)})
            attribute = (await client.get_attrs(f"{group}/one"))["attrs"]["same"]
            for found in (await client.read(f"{group}/one"), attribute):
                assert type(found) is type(value)
                assert found == value
        await client.write(f"{group}/many", np.arange(3, dtype="<i2"))
        assert type(await client.read(f"{group}/many", 1)) is np.int16

    with_client(served.port, work, unwrap=True)


def test_nothing_of_what_has_no_fixed_size_is_an_empty_array(start_own: StartOwn) -> None:
    lists = np.array([np.arange(2, dtype="<i4"), np.arange(3, dtype="<i4")], h5py.vlen_dtype("<i4"))
    served = start_own({"texts": np.array(["a", "b"], h5py.string_dtype()), "lists": lists})

    async def work(client: ndstream.HDF5Client) -> None:
        for name, kind in (("/texts", "U"), ("/lists", "O")):
            selection: Any
            for selection in (np.s_[0:0], ([],)):
                for found in (
                    await client.read(name, selection),
                    await client.read(name, selections=[selection]),
                ):
                    assert (found.shape, found.dtype.kind) == ((0,), kind)

    with_client(served.port, work, unwrap=True)


def test_numbers_that_are_no_characters_are_refused(served: Served, group: str) -> None:
    wrong = np.array([("x", 1)], [("word", "<U1"), ("n", "<i4")])
    wrong.view("<u4")[0] = 0x7FFFFFFF

    async def work(client: ndstream.HDF5Client) -> None:
        for values in (wrong, wrong["word"]):
            with pytest.raises(InvalidRequest, match="Unicode"):
                await client.write(group, values)
        with pytest.raises(NotFound):
            await client.read(group)

    with_client(served.port, work, unwrap=True)


def test_everything_that_is_added(served: Served, group: str) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        cube = np.arange(60).reshape(3, 4, 5)
        await client.create_dataset(
            f"{group}/c", data=cube, chunks=[1, 4, 5], maxshape=[None, 4, 5], compression="gzip"
        )
        np.testing.assert_array_equal(await client.read(f"{group}/c", np.s_[::2, [3, 0], ...]), cube[::2][:, [3, 0]])
        mask = np.array([True, False, True, False])
        np.testing.assert_array_equal(await client.read(f"{group}/c", (0, mask)), cube[0, mask])
        rows = await client.read(f"{group}/c", selections=[np.s_[0:1], np.s_[2:3]])
        np.testing.assert_array_equal(rows, cube[[0, 2]])
        await client.update(f"{group}/c", np.zeros((4, 5), int), selection=1)
        assert (await client.read(f"{group}/c", 1)).sum() == 0
        assert (await client.append(f"{group}/c", cube[:1]))["shape"] == [4, 4, 5]
        assert (await client.resize(f"{group}/c", (2, 4, 5), shrink=True))["shape"] == [2, 4, 5]
        await client.set_attrs(f"{group}/c", {"unit": "m", "n": np.arange(3)})
        found = (await client.get_attrs(f"{group}/c"))["attrs"]
        assert (found["unit"], found["n"].tolist()) == ("m", [0, 1, 2])
        assert (await client.delete_attrs(f"{group}/c", ["unit"]))["deleted"] is True
        assert [item["name"] for item in (await client.list(group))["items"]] == ["c"]
        assert (await client.stat(f"{group}/c"))["maxshape"] == [None, 4, 5]
        await client.ping()
        await client.flush(sync=True)
        batch: list[dict[str, Any]] = [
            {"command": "update", "path": f"{group}/c", "data": np.ones((4, 5), int), "selection": np.s_[0]},
            {"command": "create_group", "path": f"{group}/g"},
        ]
        assert len((await client.batch(batch))["results"]) == 2
        assert (await client.read(f"{group}/c", 0)).sum() == 20

    with_client(served.port, work, unwrap=True)


def test_commits_are_followed(served: Served, group: str) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        async def follow() -> list[int]:
            seen: list[int] = []
            async for event in client.follow():
                begun.set()
                seen += [
                    change["shape"][0] for change in event["changes"] if change["name"] == group and change["shape"]
                ]
                if len(seen) == 3:
                    return seen
            raise AssertionError("the events ended")

        begun = asyncio.Event()
        following = asyncio.create_task(follow())
        while not begun.is_set():
            await client.write(f"{group}-begin", [1])
        for number in range(3):
            await client.append(group, np.array([number]))
        assert await asyncio.wait_for(following, 60) == [1, 2, 3]
        await client.ping()

    with_client(served.port, work, unwrap=True)


def test_the_blocking_client_follows_and_ends(served: Served, group: str) -> None:
    with ndstream.BlockingHDF5Client(port=served.port, unwrap=True) as client:
        assert client.is_connected
        number = client.batch([{"command": "write", "path": group, "data": [1]}])["commit"]
        client.append(f"{group}2", [1])
        events = client.follow(since=number)
        assert next(events)["number"] > number
        events.close()
    client.close()
    with pytest.raises(NotSupported):
        client.ping()


def test_a_read_that_is_cancelled_leaves_the_connection_usable(served: Served, group: str) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        values = np.zeros(8 * MiB)
        await client.write(group, values)
        for _ in range(3):
            reading = asyncio.create_task(client.read(group))
            await client.ping()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        np.testing.assert_array_equal(await client.read(group), values)

    with_client(served.port, work, unwrap=True)


def test_a_server_that_says_nothing_costs_its_time(served: Served) -> None:
    async def work() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            client = ndstream.HDF5Client(port=server.sockets[0].getsockname()[1], limits=Limits(read_timeout=0.2))
            with pytest.raises(TimedOut):
                await client.ping()
            await client.close()

    asyncio.run(work())


class Silent:
    """A server that says nothing to a hello until it may."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.greeted = threading.Event()
        self.may = threading.Event()
        self.left = False
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.may.set()
        self._thread.join()
        self.listener.close()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(60)
            connection.recv(1 << 16)
            self.greeted.set()
            self.may.wait(60)
            welcome = {"version": 1, "max_frame": 1 << 20, "max_inflight": 4, "features": ["ids"]}
            connection.sendall(frame(packed(status="success", **welcome)))
            self.left = connection.recv(1 << 16) == b""


def test_who_is_about_to_connect_does_not_when_the_client_is_closed() -> None:
    async def work(server: Silent) -> None:
        client = ndstream.HDF5Client(port=server.port, limits=Limits(read_timeout=10))
        asked = asyncio.create_task(client.ping())
        await asyncio.to_thread(server.greeted.wait)
        await client.close()
        server.may.set()
        with pytest.raises(ConnectionLost, match="closed"):
            await asked

    with Silent() as server:
        asyncio.run(work(server))
    assert server.left


def test_nothing_is_said_of_who_gave_up_connecting(caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Silent) -> None:
        client = ndstream.HDF5Client(port=server.port)
        asked = asyncio.create_task(client.ping())
        await asyncio.to_thread(server.greeted.wait)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await client.close()

    with Silent() as server:
        asyncio.run(work(server))
    gc.collect()
    assert not caplog.records


def test_a_blocking_client_that_is_closed_says_so_to_who_connects() -> None:
    with Silent() as server, ThreadPoolExecutor() as threads:
        client = ndstream.BlockingHDF5Client(port=server.port)
        asked = threads.submit(client.ping)
        server.greeted.wait()
        client.close()
        with pytest.raises(ConnectionLost, match="closed"):
            asked.result()


def test_nobody_listens() -> None:
    async def work() -> None:
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionLost, match="no connection"):
                await ndstream.HDF5Client(port=1).ping()

    asyncio.run(work())


def test_a_wrong_token_is_an_error(guarded: Served) -> None:
    async def refused(**options: Any) -> None:
        with pytest.raises(NotAuthenticated):
            await ndstream.HDF5Client(port=guarded.port, **options).ping()

    asyncio.run(refused())
    asyncio.run(refused(token="wrong"))

    async def work(client: ndstream.HDF5Client) -> None:
        await client.write("/x", [1])

    with_client(guarded.port, work, token=TOKEN, unwrap=True)


def test_events_are_followed_from_any_thread(served: Served, group: str) -> None:
    """Also before anything else was asked, and by a thread that does not have the connection."""

    async def first_event(client: ndstream.HDF5Client) -> int:
        async for event in client.follow(since=0):
            found: int = event["number"]
            return found
        raise AssertionError("the events ended")

    async def work() -> None:
        client = ndstream.HDF5Client(port=served.port, unwrap=True)
        number = await first_event(client)
        assert number > 0
        assert await asyncio.to_thread(lambda: asyncio.run(first_event(client))) == number
        await client.close()

    with Peer(served.port) as peer:
        peer.ask(command="write", path=group, data=[1])
    asyncio.run(work())


# -- servers of the original --


@contextmanager
def old_server(how: str) -> Iterator[int]:
    with Server(("127.0.0.1", 0), handler(how)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("how", ["polite", "rude", "first", "json", "complaining"])
def test_the_original_is_understood(how: str) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        assert client.server is None
        written = await client.write("/a", np.arange(3))
        assert written == {"status": "success", "message": "Data written to /a"}
        reply = await client.read("/a")
        assert np.asarray(reply["data"]).tolist() == [0, 1, 2]
        assert await client.read("/none") == {"status": "not_found"}
        for call in (client.stat("/a"), client.list("/"), client.read("/a", 1), client.ping(), client.batch([])):
            with pytest.raises(NotSupported):
                await call
        # Nothing of that was sent: whoever drops connections has kept this one.
        assert (await client.read("/a"))["status"] == "success"

    with old_server(how) as port:
        with_client(port, work)


def test_what_cannot_be_sent_takes_no_reply_of_others() -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        with pytest.raises(UnsupportedDType):
            await client.write("/a", b"bytes, for which JSON has no place")
        await client.write("/a", [1, 2])
        assert (await client.read("/a"))["data"] == [1, 2]

    with old_server("json") as port:
        with_client(port, work)


def test_what_is_too_long_is_not_sent(own_served: StartServed) -> None:
    """The server would answer by cutting the connection, and others wait on it."""

    async def work(port: int) -> None:
        async with ndstream.HDF5Client(port=port) as client:
            first = client._home.link if client._home else None
            with pytest.raises(TooLarge, match="accepted"):
                await client.append("/x", np.zeros(1 << 17))
            assert (await client.ping())["status"] == "success"
            assert client._home is not None
            assert client._home.link is first
            assert (await client.read("/x"))["status"] == "not_found"

    asyncio.run(work(own_served(limits={"frame": "1 MiB"}).port))


def test_a_request_has_no_id_of_its_own_and_its_reply_comes_whole(served: Served, group: str) -> None:
    big = np.arange(3 << 20)

    async def work(client: ndstream.HDF5Client) -> None:
        await client.write(group, big)
        for wrong in ({"command": "read", "path": group, "id": 5}, {"command": "follow"}, {"path": group}):
            with pytest.raises(InvalidRequest):
                await client.request(wrong)
        np.testing.assert_array_equal(await client.request({"command": "read", "path": group, "stream": True}), big)

    with_client(served.port, work, unwrap=True, limits=Limits(read_timeout=20))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def encrypted(own_served: StartServed, authority: trustme.CA, tmp_path: Path) -> Served:
    """A server that speaks TLS."""
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return own_served(server={"certificate": str(tmp_path / "server.pem")})


def test_a_certificate_is_trusted_or_it_is_an_error(encrypted: Served, authority: trustme.CA) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        await client.ping()

    context = ssl.create_default_context()
    authority.configure_trust(context)
    with_client(encrypted.port, work, unwrap=True, tls=context)
    with pytest.raises(CertificateError, match="not trusted"):
        with_client(encrypted.port, work, tls=True)


def test_without_tls_there_is_no_connection_to_a_server_that_wants_it(encrypted: Served) -> None:
    async def work(client: ndstream.HDF5Client) -> None:
        raise AssertionError("connected")

    with pytest.raises(ConnectionLost, match="TLS"):
        with_client(encrypted.port, work)
