"""A file that changes while it is read, or is broken: one state of it arrives, or nothing is said to be whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from numpy.typing import NDArray

import ndstream
from ndstream.errors import ConnectionLost, DataError, NDStreamError
from ndstream.testing.damage import damaged
from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.testing.sample import write_sample
from ndstream.transports.http import HTTPTransport

from .conftest import MiB, asked, get, post, rest

ROWS = 64

pytestmark = pytest.mark.keeps_open(reason="the client keeps its connections")


def rows(seed: int) -> NDArray[np.int32]:
    """Data that no filter makes small: what is on its way of them does not fit into the buffers of a socket."""
    return np.random.default_rng(seed).integers(0, 1 << 31, (ROWS, MiB // 4), np.int32)


def write(path: Path, seed: int, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=rows(seed), **options)


@pytest.fixture(params=["contiguous", "chunked"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    options = {"chunks": (1, MiB // 4), "compression": "lzf"} if request.param == "chunked" else {}
    write(tmp_path / "data.h5", 1, **options)
    return tmp_path / "data.h5"


class Interrupted(HTTPTransport):
    """HTTP that lets the test do something when the first megabyte of an array has come."""

    def __init__(self, inner: HTTPTransport, act: Any) -> None:
        self.__dict__ = inner.__dict__
        self._act = act

    def drive(self, start: Any, watch: Any = None) -> Any:
        def acting(count: int) -> None:
            if self._act is not None:
                act, self._act = self._act, None
                act()

        return super().drive(start, acting)


def read_while(server: LocalServer, act: Any) -> Any:
    """Read all, and `act` when the first part is here."""
    data = ndstream.open(server.url, "data.h5", data_size_limit=0)["data"]
    assert data[0, 0] == rows(1)[0, 0]
    connection = data.connection
    inner = connection._http
    connection._http = Interrupted(inner, act)
    try:
        return data[...]
    finally:
        connection._http = inner


def test_a_file_that_is_replaced_is_read_as_the_one_that_it_was(path: Path, ndstream_server: ServerFactory) -> None:
    server = ndstream_server(path.parent)

    def replace() -> None:
        write(path.with_name("next"), 2)
        path.with_name("next").rename(path)

    assert np.array_equal(read_while(server, replace), rows(1))
    # A new look sees the new one.
    assert np.array_equal(ndstream.open(server.url, "data.h5", data_size_limit=0)["data"][...], rows(2))


def test_a_file_that_is_removed_is_read_to_its_end(path: Path, ndstream_server: ServerFactory) -> None:
    server = ndstream_server(path.parent)
    assert np.array_equal(read_while(server, path.unlink), rows(1))
    with pytest.raises(KeyError):
        ndstream.open(server.url, "data.h5")


def test_a_file_that_is_cut_short_is_never_read_as_whole(path: Path, ndstream_server: ServerFactory) -> None:
    server = ndstream_server(path.parent)
    with pytest.raises((ConnectionLost, DataError, KeyError)):
        read_while(server, lambda: os.truncate(path, 4096))
    assert get(server, "/healthz")[0] == 200


def test_a_file_that_is_written_to_is_never_read_half_old_half_new(path: Path, ndstream_server: ServerFactory) -> None:
    """The answer that was under way breaks off; the client asks again, and gets the new one."""
    server = ndstream_server(path.parent)

    def overwrite() -> None:
        with h5py.File(path, "r+") as file:
            file["data"][...] = rows(3)

    found = read_while(server, overwrite)
    assert np.array_equal(found, rows(1)) or np.array_equal(found, rows(3))


def test_damaged_files_among_good_ones_cost_themselves_only(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    with h5py.File(tmp_path / "good.h5", "w", libver="latest") as file:
        file.create_dataset("chunked", data=np.arange(1000), chunks=(100,), compression="gzip")
        file["group/text"] = ["a", "b"]
        file["group"].attrs["unit"] = "m"
    content = (tmp_path / "good.h5").read_bytes()
    for number, copy in enumerate(damaged(content, 40, seed=3)):
        (tmp_path / f"damaged {number}.h5").write_bytes(copy)
    server = ndstream_server(tmp_path, limits={"worker_timeout": 5.0})
    for number in range(40):
        for body in ({"object": "/", "max_depth": 5}, {"object": "chunked", "slice": "0:1000"}):
            request = post(server, f"damaged%20{number}.h5", body)
            assert rest_of(server, request) > 0
        good = ndstream.open(server.url, "good.h5", data_size_limit=0)
        assert good["chunked"][17] == 17
    assert get(server, "/healthz")[0] == 200


def test_nothing_is_remembered_of_what_a_file_was_before_it_was_written_to_in_place(
    tmp_path: Path, ndstream_server: ServerFactory
) -> None:
    """Also not when it was damaged for a while, so that the library could not close all that it had opened."""
    content = write_sample(tmp_path / "sample.h5").read_bytes()
    server = ndstream_server(tmp_path, limits={"workers": 1, "worker_timeout": 5.0})
    for copy in damaged(content, 20, seed=11):
        (tmp_path / "sample.h5").write_bytes(copy)
        for name in ("/", "/types", "/attributes"):
            rest_of(server, post(server, "sample.h5", {"object": name, "max_depth": 5}))
    (tmp_path / "sample.h5").write_bytes(content[:1000])
    assert get(server, "/hdfstream/msgpack/sample.h5?object=/")[0] == 404
    (tmp_path / "sample.h5").write_bytes(content)
    assert get(server, "/hdfstream/msgpack/sample.h5?object=/&max_depth=9")[0] == 200


def rest_of(server: LocalServer, request: bytes) -> int:
    with asked(server, request.replace(b"Host", b"Connection: close\r\nHost")) as connection:
        return rest(connection)


def test_what_is_no_hdf5_is_an_error_map_that_names_no_path_of_the_machine(
    tmp_path: Path, ndstream_server: ServerFactory
) -> None:
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    server = ndstream_server(tmp_path)
    code, body = get(server, "/hdfstream/msgpack/text.h5?object=/")
    assert code == 404
    assert list(msgpack.unpackb(body)) == ["error"]
    assert str(tmp_path).encode() not in body
    with pytest.raises(NDStreamError):
        ndstream.open(server.url, "text.h5").root.load()


@pytest.fixture(autouse=True)
def _few_attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients ask again at once."""
    monkeypatch.setattr("ndstream.transports.http.FIRST_PAUSE", 0.001)
    yield
