"""Downloads, from a real server over a real socket."""

from __future__ import annotations

import asyncio
import http.client
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from ndstream.core.operations import Write
from ndstream.core.ports import ANYBODY, Access, Message, Writing
from ndstream.errors import Replaced
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.stores.memory import MemoryStore
from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.testing.payloads import WRITER, dataset, payload

from .conftest import Peer, peak_memory

LARGE = 1 << 30
HUGE = 9 << 30
LONG = os.urandom(3 * (1 << 20) + 17)
DEEP = "/".join(["a long name of a directory"] * 8)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    (root / "d" / "empty").mkdir(parents=True)
    (root / "d" / DEEP).mkdir(parents=True)
    (root / "secret").mkdir()
    for name, content in {
        "long.bin": LONG,
        "d/notes.txt": b"notes",
        "d/none": b"",
        "d/größe und mehr.txt": b"x",
        f"d/{DEEP}/{'n' * 120}.h5": b"y" * 513,
    }.items():
        (root / name).write_bytes(content)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    return root


@pytest.fixture(scope="module")
def server(tree: Path, ndstream_module_server: ServerFactory) -> LocalServer:
    return ndstream_module_server(tree)


@pytest.fixture(scope="module")
def address(server: LocalServer) -> str:
    return urlsplit(server.url).netloc


Ask = Callable[..., tuple[int, http.client.HTTPMessage, bytes]]


@pytest.fixture
def ask(address: str) -> Iterator[Ask]:
    connection = http.client.HTTPConnection(address, timeout=30)

    def exchange(
        path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection.request(method, f"/hdfstream/download{path}", headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    yield exchange
    connection.close()


def test_a_file_comes_whole_with_its_name_and_type(ask: Ask) -> None:
    status, headers, body = ask("/long.bin")
    assert (status, body) == (200, LONG)
    assert headers["content-length"] == str(len(LONG))
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == 'attachment; filename="long.bin"'
    assert headers["accept-ranges"] == "bytes"
    status, headers, body = ask("/d/notes.txt/")
    assert (status, body, headers["content-type"]) == (200, b"notes", "text/plain;charset=UTF-8")
    status, headers, body = ask("/d/none")
    assert (status, body, headers["content-length"]) == (200, b"", "0")
    _, headers, body = ask("/d/gr%C3%B6%C3%9Fe%20und%20mehr.txt")
    assert body == b"x"
    assert "filename*=utf-8''gr%C3%B6%C3%9Fe" in headers["content-disposition"]


def test_head_says_the_same_and_sends_nothing(ask: Ask) -> None:
    for path in ("/long.bin", "/d"):
        _, wanted, _ = ask(path)
        status, headers, body = ask(path, "HEAD")
        assert (status, body) == (200, b"")
        for name in ("content-length", "content-type", "content-disposition", "etag"):
            assert headers[name] == wanted[name]


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("0-0", 0, 1), ("5-9", 5, 10), ("2000000-", 2_000_000, len(LONG)), ("-17", len(LONG) - 17, len(LONG))],
)
def test_a_range_is_a_part_of_the_file(ask: Ask, asked: str, first: int, end: int) -> None:
    status, headers, body = ask("/long.bin", headers={"range": f"bytes={asked}"})
    assert (status, body) == (206, LONG[first:end])
    assert headers["content-range"] == f"bytes {first}-{end - 1}/{len(LONG)}"


def test_several_ranges_come_in_one_answer(ask: Ask) -> None:
    status, headers, body = ask("/long.bin", headers={"range": "bytes=0-3,1000-1003"})
    assert status == 206
    assert headers["content-type"].startswith("multipart/byteranges")
    assert LONG[:4] in body
    assert LONG[1000:1004] in body


def test_a_range_beyond_the_end_cannot_be_had(ask: Ask) -> None:
    assert ask("/long.bin", headers={"range": f"bytes={len(LONG)}-"})[0] == 416


def test_a_client_that_has_it_is_told_so(ask: Ask) -> None:
    etag = ask("/long.bin", "HEAD")[1]["etag"]
    assert not etag.startswith("W/")
    for tags in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        status, headers, body = ask("/long.bin", headers={"if-none-match": tags})
        assert (status, body, headers["etag"]) == (304, b"", etag)
    assert ask("/long.bin", headers={"if-none-match": '"other"'})[0] == 200


def test_a_range_of_another_state_of_the_file_is_not_sent(ask: Ask) -> None:
    etag = ask("/long.bin", "HEAD")[1]["etag"]
    assert ask("/long.bin", headers={"range": "bytes=0-3", "if-range": etag})[0] == 206
    assert ask("/long.bin", headers={"range": "bytes=0-3", "if-range": '"other"'})[2] == LONG


def test_a_file_that_was_replaced_has_another_tag_and_the_new_bytes(ask: Ask, tree: Path) -> None:
    changing = tree / "changing.bin"
    changing.write_bytes(b"before")
    _, headers, body = ask("/changing.bin")
    assert body == b"before"
    (tree / "new").write_bytes(b"after it")
    (tree / "new").rename(changing)
    status, after, body = ask("/changing.bin", headers={"if-none-match": headers["etag"]})
    assert (status, body) == (200, b"after it")
    assert after["etag"] != headers["etag"]
    changing.unlink()


def test_a_directory_is_a_tar_of_known_length(ask: Ask, tree: Path) -> None:
    status, headers, body = ask("/d")
    assert status == 200
    assert headers["content-type"] == "application/x-tar"
    assert headers["content-disposition"] == 'attachment; filename="d.tar"'
    assert int(headers["content-length"]) == len(body)
    assert len(body) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        members = {member.name: member for member in archive}
        files = {f"d/{path.relative_to(tree / 'd')}": path for path in (tree / "d").rglob("*") if path.is_file()}
        assert set(members) == set(files)
        for name, path in files.items():
            member = members[name]
            assert member.isfile()
            assert member.mtime == 1_700_000_000
            extracted = archive.extractfile(member)
            assert extracted is not None
            assert extracted.read() == path.read_bytes()


def test_the_name_of_a_tar_is_its_path(ask: Ask) -> None:
    path = "/d/" + DEEP.split("/", maxsplit=1)[0].replace(" ", "%20")
    assert ask(path, "HEAD")[1]["content-disposition"] == (
        'attachment; filename="d_a%20long%20name%20of%20a%20directory.tar"'
    )
    empty = ask("/d/empty")
    assert len(empty[2]) == 10240
    assert not any(empty[2])


def test_a_file_beyond_8_gib_is_in_an_archive_like_any_other(ask: Ask, address: str, tree: Path) -> None:
    (tree / "huge").mkdir()
    with (tree / "huge" / "sparse.bin").open("wb") as file:
        file.truncate(HUGE)
    path = "/hdfstream/download/huge"
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        with tarfile.open(fileobj=response, mode="r|") as archive:
            member = archive.next()
            assert member is not None
            assert (member.name, member.size) == ("huge/sparse.bin", HUGE)
        assert int(response.headers["content-length"]) == -(-(member.offset_data + HUGE + 1024) // 10240) * 10240
    end = {"range": f"bytes={HUGE - 3}-"}
    assert ask("/huge/sparse.bin", headers=end)[2] == bytes(3)


def test_a_download_takes_no_memory_for_its_length(address: str, tree: Path, server: LocalServer) -> None:
    with (tree / "sparse.bin").open("wb") as file:
        file.truncate(LARGE)
    before = peak_memory(server)
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", "/hdfstream/download/sparse.bin")
        response = connection.getresponse()
        piece = bytearray(1 << 20)
        assert sum(iter(lambda: response.readinto(piece), 0)) == LARGE
    assert peak_memory(server) - before < 64 << 20


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("", 400), ("/", 400), ("/d/..", 400), ("/nothing", 404), ("/%2e%2e/x", 404), ("/d//notes.txt", 404)],
)
def test_errors_are_pages_for_people(ask: Ask, path: str, wanted: int) -> None:
    status, headers, body = ask(path)
    assert status == wanted
    assert headers["content-type"].startswith("text/html")
    assert body.startswith(b"<!doctype html>")
    assert ask("/%3Cscript%3E")[2].count(b"<script>") == 0


def test_what_a_user_may_not_see_is_not_there_and_in_no_tar() -> None:
    talk = Peer(MemoryStore({"d": {"open.txt": b"1", "secret": {"t.txt": b"2"}}}))
    access = Access(hidden=frozenset({"d/secret"}))
    with tarfile.open(fileobj=io.BytesIO(talk.get("/download/d", access=access).body)) as archive:
        assert archive.getnames() == ["d/open.txt"]
    forbidden = talk.get("/download/d/secret", access=access)
    assert (forbidden.status, forbidden.body) == (404, talk.get("/download/d/secret~").body.replace(b"~", b""))
    with tarfile.open(fileobj=io.BytesIO(talk.get("/download/d").body)) as archive:
        assert archive.getnames() == ["d/open.txt", "d/secret/t.txt"]


@pytest.mark.parametrize("path", ["changing/1.bin", "changing"])
def test_what_changes_while_it_is_sent_is_never_complete(address: str, tree: Path, path: str) -> None:
    """The client stops reading, the file changes, the client reads on: its answer must break off."""
    (tree / "changing").mkdir()
    for name in ("1.bin", "2.bin"):
        with (tree / "changing" / name).open("wb") as file:
            file.truncate(64 << 20)
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", f"/hdfstream/download/{path}")
    response = connection.getresponse()
    length = int(response.headers["content-length"])
    taken = len(response.read(1 << 20))
    for name in ("1.bin", "2.bin"):
        with (tree / "changing" / name).open("ab") as file:
            file.write(b"more")
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert taken + len(caught.value.partial) < length
    connection.close()
    shutil.rmtree(tree / "changing")


@pytest.mark.parametrize("path", ["runs/a.h5", "runs"])
def test_a_commit_ends_a_download_though_size_and_time_stay(tmp_path: Path, path: str) -> None:
    """The system sets the time of a file before it copies the bytes: who looks in between sees no difference."""
    (tmp_path / "runs").mkdir()
    file = tmp_path / "runs" / "a.h5"
    sizes = [0]

    async def work() -> None:
        store = HDF5Store({"": tmp_path}, writing=Writing(durability="flush"))

        async def during(message: Message) -> None:
            size = len(message.get("body", b""))
            if size > 1 << 16 >= max(sizes):
                before = file.stat()
                both = [Write(name=name, data=payload(1, "<i4")) for name in ("/a", "/b")]
                await store.apply("runs/a.h5", WRITER, both)
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            sizes.append(size)

        try:
            make = [dataset(name, np.zeros(1 << 18, "<i4")) for name in ("/a", "/between", "/b")]
            await store.apply("runs/a.h5", WRITER, make, create=True)
            peer = Peer(store)
            whole = await peer.exchange("GET", f"/download/{path}", access=ANYBODY)
            assert max(whole.pieces) > 1 << 16
            with pytest.raises(Replaced):
                await peer.exchange("GET", f"/download/{path}", during=during)
            assert sum(sizes) < 2 << 20
        finally:
            await store.aclose()

    asyncio.run(work())
