"""How data are read from a server of ours: in parts, decoded here, and from what is kept; h5py is the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.client import connections
from ndstream.client.settings import Config
from ndstream.core.limits import DEFAULT_LIMITS, KiB
from ndstream.errors import Conflict, Corrupt, NotFound
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.wire.flow import Flow

pytestmark = pytest.mark.keeps_open("the tests share a server")

KEYS: list[Any] = [..., np.s_[30:1700:3, ::-1], np.s_[[1500, 3, 3, 900]], np.s_[5:, 7], np.s_[:0], np.s_[17, 90]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served")
    _write(path / "f.h5", np.random.default_rng(3).integers(0, 99, (2000, 100)).astype("<f4"))
    return path


@pytest.fixture(scope="module")
def served(ndstream_module_server: ServerFactory, root: Path) -> LocalServer:
    return ndstream_module_server(root, writable={"/written": []}, limits={"workers": 1})


@pytest.fixture
def limited() -> Iterator[Callable[..., None]]:
    """Set limits for what is opened from now on."""
    yield lambda **limits: ndstream.set_config(Config(limits=replace(DEFAULT_LIMITS, **limits)))
    connections.forget()


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".new")
    with h5py.File(temporary, "w") as file:
        file["plain"] = values
        file.create_dataset("packed", data=values, chunks=(64, 30), compression="gzip", shuffle=True)
        file["texts"] = np.array([f"text {n}" for n in range(500)], object)
    temporary.replace(path)


def _requests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the reads that are asked for from now on, in elements."""
    sizes: list[int] = []
    read, stored = NativeFlows.read, NativeFlows.read_stored

    def count(self: NativeFlows, path: str, wanted: Sequence[Wanted], state: str | None = None) -> Flow[str | None]:
        sizes.append(sum(each.selection.count for each in wanted))
        return read(self, path, wanted, state)

    def count_stored(self: NativeFlows, path: str, wanted: Wanted, *rest: Any) -> Flow[None]:
        sizes.append(wanted.selection.count)
        return stored(self, path, wanted, *rest)

    monkeypatch.setattr(NativeFlows, "read", count)
    monkeypatch.setattr(NativeFlows, "read_stored", count_stored)
    return sizes


@pytest.mark.parametrize("through", [1 * KiB, 1 << 40], ids=["decoded here", "decoded there"])
def test_long_reads_are_made_in_parts(
    through: int, served: LocalServer, root: Path, limited: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndstream.client.reading.THROUGH", through)
    limited(read_part=64 * KiB, read_requests=3, read_memory=1)
    file = ndstream.open(served.url, "f.h5")
    sizes = _requests(monkeypatch)
    with h5py.File(root / "f.h5") as local:
        for name in ("plain", "packed"):
            for key in KEYS:
                np.testing.assert_array_equal(file[name][key], local[name][()][key])
            converted = np.empty((2000, 100), "<f8")
            file[name].read_direct(converted)
            np.testing.assert_array_equal(converted, local[name][()])
        assert len(sizes) > 30
        assert max(sizes) <= 64 * KiB // 4
        np.testing.assert_array_equal(file["texts"][::-1], local["texts"][()][::-1])

    async def read() -> Any:
        async with ndstream.aopen(served.url, "f.h5") as file:
            return [await (await file[name])[...] for name in ("plain", "packed")]

    with h5py.File(root / "f.h5") as local:
        for found in asyncio.run(read()):
            np.testing.assert_array_equal(found, local["plain"][()])


def test_all_parts_are_of_one_state(
    served: LocalServer, root: Path, limited: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(root / "written/state.h5", np.zeros((2000, 100), "<f4"))
    limited(read_part=64 * KiB)
    file = ndstream.open(served.url, "written/state.h5", mode="r+")
    dataset = ndstream.open(served.url, "written/state.h5")["plain"]
    state = NativeFlows.state

    def late(self: NativeFlows, path: str, known: str | None = None) -> Flow[str | None]:
        found = yield from state(self, path, known)
        # Between the look at the state and the first part of it.
        file["plain"][...] = 1
        return found

    monkeypatch.setattr(NativeFlows, "state", late)
    sizes = _requests(monkeypatch)
    assert (dataset[...] == 1).all()
    assert sizes[-1] == 2000 * 100


def test_small_reads_are_kept_and_asked_about(served: LocalServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(200000, dtype="<f4").reshape(2000, 100)
    _write(root / "written/kept.h5", values)
    writer = ndstream.open(served.url, "written/kept.h5", mode="r+")
    file = ndstream.open(served.url, "written/kept.h5", block_cache=1 << 20)
    counters = file.connection.counters
    sizes = _requests(monkeypatch)
    for _ in range(3):
        np.testing.assert_array_equal(file["packed"][100:110, 5:9], values[100:110, 5:9])
    assert counters["block_cache_checks"] == 2
    assert counters["block_cache_hits"] == 2 * counters["block_cache_misses"] > 0
    assert len(sizes) == 1
    values[103, 6] = -1
    writer["packed"][103, 6] = -1
    np.testing.assert_array_equal(file["packed"][100:110, 5:9], values[100:110, 5:9])
    assert len(sizes) == 2
    for key in KEYS:
        np.testing.assert_array_equal(file["packed"][key], values[key])
        np.testing.assert_array_equal(file["plain"][key], writer["plain"][()][key])
    assert 0 < file.connection.blocks.nbytes <= 1 << 20


def test_what_is_kept_of_a_replaced_file_is_not_given(served: LocalServer, root: Path) -> None:
    _write(root / "replaced.h5", np.zeros((2000, 100), "<f4"))

    async def read() -> None:
        async with ndstream.aopen(served.url, "replaced.h5", block_cache=1 << 20) as file:
            dataset = await file["packed"]
            for value in range(3):
                for _ in range(2):
                    assert (await dataset[7:9] == value).all()
                _write(root / "replaced.h5", np.full((2000, 100), value + 1, "<f4"))
            # Each second read, and each first one of another file.
            assert file.connection.counters["block_cache_checks"] == 5

    asyncio.run(read())


def test_what_other_files_have_a_part_in_is_not_kept(served: LocalServer, root: Path) -> None:
    _write(root / "source.h5", np.zeros((2000, 100), "<f4"))
    layout = h5py.VirtualLayout((2000, 100), "<f4")
    layout[:] = h5py.VirtualSource("source.h5", "plain", (2000, 100))
    with h5py.File(root / "links.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("source.h5", "packed")
        file.create_virtual_dataset("virtual", layout)
    links = ndstream.open(served.url, "links.h5", block_cache=1 << 20)
    for value in range(3):
        for name in ("linked", "virtual"):
            assert (links[name][7:9] == value).all()
        _write(root / "source.h5", np.full((2000, 100), value + 1, "<f4"))


def test_what_is_read_in_a_type_of_before_is_not_given_to_others(served: LocalServer, root: Path) -> None:
    _write(root / "typed.h5", np.arange(10000).reshape(100, 100))
    before = ndstream.open(served.url, "typed.h5", block_cache=1 << 20, data_size_limit=0)["plain"]
    _write(root / "typed.h5", np.arange(10000).reshape(100, 100) + 0.5)
    np.testing.assert_array_equal(before[0, :3], [0, 1, 2])
    now = ndstream.open(served.url, "typed.h5", block_cache=1 << 20, data_size_limit=0)["plain"]
    np.testing.assert_array_equal(now[0, :3], [0.5, 1.5, 2.5])


def test_nothing_is_kept_unless_it_is_asked_for(served: LocalServer) -> None:
    assert ndstream.open(served.url, "f.h5").connection.blocks is None


def test_errors_name_server_path_and_cause(served: LocalServer, root: Path) -> None:
    file = ndstream.open(served.url, "f.h5")
    with pytest.raises(NotFound, match=rf"{served.url}.*/absent\.h5"):
        ndstream.open(served.url, "absent.h5")
    with pytest.raises(NotFound, match=r"/f\.h5::/ has no member 'absent'"):
        file["absent"]
    _write(root / "broken.h5", np.arange(200000.0).reshape(2000, 100))
    dataset = ndstream.open(served.url, "broken.h5")["packed"]
    with h5py.File(root / "broken.h5") as local:
        info = local["packed"].id.get_chunk_info(9)
    with (root / "broken.h5").open("r+b") as raw:
        raw.seek(info.byte_offset)
        raw.write(bytes(info.size))
    with pytest.raises(Corrupt, match=r"broken\.h5::/packed"):
        dataset[...]


def test_many_reads_are_made_in_as_many_requests_as_it_takes(
    served: LocalServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(root / "many.h5", np.random.default_rng(5).random((2000, 2000)))
    keys = [np.s_[n % 2000, : n % 7] for n in range(5000)]
    with h5py.File(root / "many.h5") as local:
        values, texts = local["plain"][...], local["texts"][...]
    expected = [values[key] for key in keys]
    file = ndstream.open(served.url, "many.h5", data_size_limit=0)
    sizes = _requests(monkeypatch)
    found = file.read_many([(file["plain"], key) for key in keys])
    assert all(map(np.array_equal, found, expected))
    assert len(sizes) == 2
    sizes.clear()
    whole, some, last = file.read_many([(file["plain"], ...), (file["texts"], [3, 1]), (file["plain"], (5, -1))])
    assert np.array_equal(whole, values)
    assert some.tolist() == texts[[3, 1]].tolist()
    assert last == values[5, -1]
    assert len(sizes) == 2
    assert file.read_many([]) == []

    async def read() -> list[Any]:
        async with ndstream.aopen(served.url, "many.h5") as opened:
            plain = await opened["plain"]
            return list(await opened.read_many([(plain, key) for key in keys]))

    assert all(map(np.array_equal, asyncio.run(read()), expected))


def test_many_reads_of_a_file_that_changes_are_of_one_state(
    served: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ndstream.open(served.url, "written/many.h5", mode="a")
    file.create_dataset("x", data=np.zeros((3000, 1000)), chunks=(100, 1000))
    reader = ndstream.open(served.url, "written/many.h5")
    left = [2]
    state = NativeFlows.state

    def meanwhile(self: NativeFlows, path: str, *known: Any) -> Flow[str | None]:
        found = yield from state(self, path, *known)
        if left[0]:
            left[0] -= 1
            file["x"][:] = float(left[0] + 1)
        return found

    monkeypatch.setattr(NativeFlows, "state", meanwhile)
    parts = reader.read_many([(reader["x"], slice(n, n + 1000)) for n in (0, 1000, 2000)])
    assert {float(value) for part in parts for value in np.unique(part)} == {1.0}
    left[0] = 5
    with pytest.raises(Conflict):
        reader.read_many([(reader["x"], slice(n, n + 1000)) for n in (0, 1000, 2000)])


@pytest.mark.parametrize("other", [{"compression": "lzf"}, {"chunks": (64, 50)}, {"dtype": "<i8"}, {"shuffle": True}])
def test_a_dataset_that_others_made_anew_is_read_by_who_had_it_open(
    served: LocalServer, root: Path, other: dict[str, Any]
) -> None:
    values = np.arange(1 << 20).reshape(4096, 256)
    how: dict[str, Any] = {"chunks": (64, 256), "compression": "gzip", "dtype": "<i4"}
    path = root / "anew.h5"
    for number, options in enumerate((how, how | other)):
        with h5py.File(path.with_suffix(".new"), "w") as file:
            file.create_dataset("x", data=values + number, **options)
        path.with_suffix(".new").replace(path)
        if not number:
            held = ndstream.open(served.url, "anew.h5", data_size_limit=0)["x"]
        np.testing.assert_array_equal(held[...], values + number)
