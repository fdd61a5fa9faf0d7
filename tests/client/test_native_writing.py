"""Writing to a served file through ndstream.open and ndstream.aopen; what plain h5py reads afterwards is the oracle."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.errors import Conflict, Exists, Forbidden, InvalidRequest, NotFound


@pytest.fixture
def url(ndstream_server: Any, tmp_path: Path) -> str:
    (tmp_path / "served").mkdir()
    with h5py.File(tmp_path / "served" / "f.h5", "w") as file:
        file.create_dataset("rows", data=np.arange(12.0).reshape(4, 3), maxshape=(None, 3))
        file["g/x"] = np.zeros(5, ">i4")
    server = ndstream_server(tmp_path / "served", writable={"/": []})
    found: str = server.url
    return found


def plain(url: str, name: str) -> Any:
    """What another program is served, without anything that this one remembers."""
    return ndstream.open(url, "f.h5")[name]


def test_statements_are_those_of_h5py(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    file["g/x"][1:3] = [7, 8]
    file["g/x"][[4, 0]] = 1.9
    np.testing.assert_array_equal(plain(url, "g/x")[...], [1, 7, 8, 0, 1])
    file["texts"] = ["one", "zwei ü"]
    assert plain(url, "texts").asstr()[...].tolist() == ["one", "zwei ü"]
    made = file.create_dataset("new/deep", (100, 10), "<i2", chunks=(10, 10), compression="gzip", shuffle=True)
    made[...] = np.arange(1000).reshape(100, 10)
    np.testing.assert_array_equal(plain(url, "new/deep")[...], np.arange(1000).reshape(100, 10))
    assert plain(url, "new/deep").compression == "gzip"
    made.attrs["unit"] = "mm"
    made.attrs["scale"] = np.float32(2)
    assert dict(plain(url, "new/deep").attrs) == {"unit": "mm", "scale": 2}
    del made.attrs["scale"]
    assert list(made.attrs) == ["unit"]


def test_datasets_grow(url: str) -> None:
    rows = ndstream.open(url, "f.h5", mode="r+")["rows"]
    assert rows.append(np.ones((2, 3))) == 4
    assert rows.append([5, 6, 7]) == 6
    assert rows.shape == (7, 3)
    np.testing.assert_array_equal(plain(url, "rows")[4:], [[1, 1, 1], [1, 1, 1], [5, 6, 7]])
    rows.insert(0, [[9, 9, 9]])
    np.testing.assert_array_equal(rows[0], [9, 9, 9])
    rows.resize(2, axis=0)
    assert rows.shape == (2, 3)


def test_members_are_made_moved_and_deleted(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    group = file.require_group("a/b")
    assert file.require_group("a/b") == group
    with pytest.raises(Exists):
        file.create_group("a/b")
    file["soft"] = ndstream.SoftLink("/g/x")
    file.move("rows", "a/rows")
    file.root.copy("g", "a/copy")
    assert sorted(file) == ["a", "g", "soft"]
    assert sorted(file["a"]) == ["b", "copy", "rows"]
    np.testing.assert_array_equal(file["soft"][...], file["a/copy/x"][...])
    del file["g"]
    assert "g" not in file
    with pytest.raises(NotFound):
        del file["g"]
    assert file.require_dataset("a/rows", (4, 3), "<f8").shape == (4, 3)
    with pytest.raises(TypeError):
        file.require_dataset("a/rows", (4, 4), "<f8")


def test_a_transaction_is_there_as_a_whole_or_not_at_all(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    with file.transaction():
        file["g/x"][0] = 5
        assert file.create_dataset("y", data=[1, 2]) is None
        assert plain(url, "g/x")[0] == 0
    assert (plain(url, "g/x")[0], plain(url, "y")[1]) == (5, 2)
    with pytest.raises(Exists), file.transaction():
        file["g/x"][0] = 6
        file.create_dataset("y", data=[1, 2])
    with pytest.raises(ZeroDivisionError), file.transaction():
        file["g/x"][0] = 6
        raise ZeroDivisionError
    assert plain(url, "g/x")[0] == 5
    with file.transaction(), pytest.raises(InvalidRequest):
        file.transaction().__enter__()


def test_a_file_can_be_made(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        ndstream.open(url, "new.h5", mode="r+")
    file = ndstream.open(url, "new.h5", mode="a")
    file["x"] = np.arange(3)
    np.testing.assert_array_equal(ndstream.open(url, "new.h5")["x"][...], [0, 1, 2])


def test_large_payloads_are_spooled(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    big = np.random.default_rng(0).random((300, 1000))
    file.create_dataset("big", data=big, chunks=(100, 1000), compression="gzip", compression_opts=1)
    np.testing.assert_array_equal(plain(url, "big")[...], big)


def test_who_may_not_write_is_told(url: str, ndstream_server: Any, tmp_path: Path) -> None:
    server = ndstream_server(tmp_path / "served")
    with pytest.raises(Forbidden):
        ndstream.open(server.url, "f.h5", mode="r+")["g/x"][0] = 1
    with pytest.raises(InvalidRequest):
        ndstream.open(url, "f.h5", mode="w")


def test_a_commit_on_a_condition(url: str) -> None:
    connection = ndstream.open(url, "f.h5").connection
    first = connection.apply("f.h5", [])
    connection.apply("f.h5", [], condition=str(first.number))
    with pytest.raises(Conflict):
        connection.apply("f.h5", [], condition="99")


def test_followers_see_commits_in_order(url: str) -> None:
    async def main() -> None:
        async with ndstream.aopen(url, "f.h5") as file:
            seen = []

            async def watch() -> None:
                async for event in file.follow(since=0):
                    seen.append(event)
                    if len(seen) == 3:
                        return

            watching = asyncio.ensure_future(watch())
            rows = await file["rows"]
            for n in range(3):
                assert await rows.append(np.full((1, 3), n)) == 4 + n
            await asyncio.wait_for(watching, 20)
            assert [event.number for event in seen] == [1, 2, 3]
            assert [event.changes[0].appended for event in seen] == [(4, 5), (5, 6), (6, 7)]
            await rows.write(np.s_[0], [1, 2, 3])
            np.testing.assert_array_equal((await rows[...])[[0, -1]], [[1, 2, 3], [2, 2, 2]])

    asyncio.run(main())


def test_appends_of_many_tasks_are_all_there_once(url: str) -> None:
    async def main() -> None:
        async with ndstream.aopen(url, "f.h5") as file:
            rows = await file["rows"]
            starts = await asyncio.gather(*[rows.append(np.full((1, 3), 100 + n)) for n in range(60)])
            assert sorted(starts) == list(range(4, 64))
            found = (await rows[4:])[:, 0]
            assert sorted(found) == list(range(100, 160))

    asyncio.run(main())


def test_what_others_appended_is_not_in_the_way_of_who_knows_the_old_shape(url: str) -> None:
    old = ndstream.open(url, "f.h5", mode="r+")["rows"]
    ndstream.open(url, "f.h5", mode="r+")["rows"].append(np.ones((2, 3)))
    assert old[...].shape == (4, 3)
    old[...] = 0
    old.refresh()
    np.testing.assert_array_equal(old[:, 0], [0, 0, 0, 0, 1, 1])


def test_a_dataset_can_be_followed(url: str) -> None:
    rows = ndstream.open(url, "f.h5", mode="r+")["rows"]
    following = ndstream.open(url, "f.h5")["rows"].follow()
    found: list[Any] = []

    def watch() -> None:
        for new in following:
            found.append(new)
            if sum(map(len, found)) == 5:
                return

    watching = threading.Thread(target=watch)
    watching.start()
    for n in range(5):
        # Those that are appended before the follower looks are not new to it: go on until it has seen five.
        rows.append(np.full((1, 3), n))
    while watching.is_alive() and len(rows) < 1000:
        rows.append(np.full((1, 3), len(rows)))
    watching.join(20)
    following.close()
    whole = plain(url, "rows")[...]
    start = next(n for n in range(4, len(whole)) if whole[n, 0] == found[0][0, 0])
    seen = np.concatenate(found)
    np.testing.assert_array_equal(seen, whole[start : start + len(seen)])
