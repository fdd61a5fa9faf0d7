"""Writing to a served file through ndstream.open and ndstream.aopen; what plain h5py reads afterwards is the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.client.settings import Config
from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.errors import Conflict, Exists, Forbidden, InvalidRequest, NotFound, OutOfBounds, UnsupportedDType
from ndstream.testing.fixtures import ServerFactory

pytestmark = pytest.mark.keeps_open("the tests share a server")


@pytest.fixture(scope="module")
def served(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("served")
    # What a file needs, and no more: each test has one, and a process that owns it.
    return ndstream_module_server(path, writable={"/": []}, limits={"workers": 1, "writer_idle": 5}).url, path


@pytest.fixture
def url(served: tuple[str, Path], request: pytest.FixtureRequest) -> str:
    """A directory of the test alone, with one file."""
    name = request.node.name
    (served[1] / name).mkdir()
    with h5py.File(served[1] / name / "f.h5", "w") as file:
        file.create_dataset("rows", data=np.arange(12.0).reshape(4, 3), maxshape=(None, 3))
        file["g/x"] = np.zeros(5, ">i4")
    return f"{served[0]}/{name}"


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


def test_what_many_require_is_made_once(url: str) -> None:
    """Each has looked before the first has made it."""
    files = [ndstream.open(url, "f.h5", mode="r+") for _ in range(3)]
    assert not any("new" in file or "deep" in file["g"] for file in files)
    made = [
        (file.require_dataset("new", (3,), "<i4"), file["g"].require_dataset("deep", (3,), "<i4")) for file in files
    ]
    assert {each.shape for pair in made for each in pair} == {(3,)}
    assert len({file.require_group("a/b") for file in files}) == 1
    with pytest.raises(UnsupportedDType):
        files[0].require_dataset("new", (4,), "<i4")

    async def use(file: Any) -> None:
        found = await asyncio.gather(*[file.require_dataset("other", (2,), "<i4") for _ in range(10)])
        assert {each.name for each in found} == {"/other"}

    awaited(url, "f.h5", use)


def test_attributes_that_are_held_know_of_their_changes(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    for owner in [file["rows"], file["g"], file]:
        attributes = owner.attrs
        attributes["n"] = 1
        attributes["n"] += 1
        attributes["unit"] = "mm"
        assert dict(attributes) == dict(owner.attrs) == {"n": 2, "unit": "mm"}
        assert attributes.pop("n") == 2
        attributes.update(a=1, b=2)
        attributes.clear()
        assert not attributes
        assert not owner.attrs

    async def use(file: Any) -> None:
        for owner in [await file["rows"], await file["g"]]:
            attributes = owner.attrs
            await attributes.update(n=1, unit="mm")
            await attributes.delete("unit")
            assert dict(attributes) == dict(owner.attrs) == {"n": 1}

    awaited(url, "f.h5", use)


def test_a_transaction_may_require_what_it_or_somebody_else_has_made(url: str) -> None:
    file, other = [ndstream.open(url, "f.h5", mode="r+") for _ in range(2)]
    with file.transaction():
        for _ in range(2):
            file.require_dataset("new", (3,), "<i4")
            file.require_group("group")
        file.require_dataset("theirs", (2,), "<f4")
        other["theirs"] = np.array([1, 2], "<f4")
    assert file["new"].shape == (3,)
    assert file["theirs"][1] == 2

    async def use(file: Any) -> None:
        async with file.transaction():
            for _ in range(2):
                await file.require_dataset("more", (3,), "<i4")
        assert (await file["more"]).shape == (3,)

    awaited(url, "f.h5", use)


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


def test_a_file_that_was_written_to_since_it_was_opened_is_downloaded(url: str, tmp_path: Path) -> None:
    reading, file = ndstream.open(url, "f.h5"), ndstream.open(url, "f.h5", mode="r+")
    file["large"] = np.arange(10_000)
    for number, each in enumerate((reading, file)):
        with h5py.File(each.download(tmp_path / f"{number}.h5")) as copy:
            np.testing.assert_array_equal(copy["large"][()], np.arange(10_000))


def test_data_may_be_those_of_another_dataset(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    ragged = file.create_dataset("ragged", data=[[1, 2], [3]], dtype=h5py.vlen_dtype("<i2"))
    again = file.create_dataset("again", data=ragged)
    assert h5py.check_vlen_dtype(again.dtype) == "<i2"
    again[0] = [7]
    ragged[...] = again
    assert [each.tolist() for each in plain(url, "ragged")[...]] == [[7], [3]]
    file["g/x"][:3] = file["rows"][0]
    file.create_dataset("copy", data=file["rows"].astype("<f4"))
    np.testing.assert_array_equal(plain(url, "copy")[...], plain(url, "rows")[...])


def test_what_made_a_commit_fail_is_seen(url: str) -> None:
    file, other = [ndstream.open(url, "f.h5", mode="r+") for _ in range(2)]
    assert "new" not in file
    assert "deep" not in file["g"]
    other["new"] = 1
    other["g/deep"] = 2
    with pytest.raises(Exists):
        file["new"] = 3
    assert file["new"][()] == 1
    assert file["g/deep"][()] == 2


def test_an_array_that_was_given_to_a_transaction_may_be_used_again(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    row = np.zeros(3)
    with file.transaction():
        for number in range(4):
            row[:] = number
            file["rows"][number] = row
            file["rows"].append(row)
            file["rows"].attrs[f"row{number}"] = row
    np.testing.assert_array_equal(plain(url, "rows")[:, 0], [0, 1, 2, 3, 0, 1, 2, 3])
    assert [plain(url, "rows").attrs[f"row{number}"][0] for number in range(4)] == [0, 1, 2, 3]

    async def use(file: Any) -> None:
        rows = await file["rows"]
        async with file.transaction():
            for number in range(4):
                row[:] = 10 + number
                await rows.write(number, row)

    awaited(url, "f.h5", use)
    np.testing.assert_array_equal(plain(url, "rows")[:4, 0], [10, 11, 12, 13])


def test_an_operation_sees_the_shape_that_one_before_it_in_the_transaction_gave(url: str) -> None:
    rows = ndstream.open(url, "f.h5", mode="r+")["rows"]
    with rows.file.transaction():
        rows.resize((6, 3))
        rows[5] = 7
        rows.resize(8, axis=0)
        rows[-1] = 8
        assert rows.shape == (4, 3)
    np.testing.assert_array_equal(plain(url, "rows")[4:, 0], [0, 7, 0, 8])
    with pytest.raises(ZeroDivisionError), rows.file.transaction():
        rows.resize((20, 3))
        raise ZeroDivisionError
    with pytest.raises(OutOfBounds):
        rows[15] = 1

    async def use(file: Any) -> None:
        rows = await file["rows"]
        async with file.transaction():
            await rows.resize(10, axis=0)
            await rows.write(9, 9)
        with pytest.raises(OutOfBounds):
            await rows.write(10, 9)

    awaited(url, "f.h5", use)
    np.testing.assert_array_equal(plain(url, "rows")[8:, 0], [0, 9])


def test_a_file_can_be_made(url: str) -> None:
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


def test_who_may_not_write_is_told(url: str, ndstream_server: ServerFactory, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.zeros(3)
    server = ndstream_server(tmp_path)
    with pytest.raises(Forbidden):
        ndstream.open(server.url, "f.h5", mode="r+")["x"][0] = 1
    with pytest.raises(InvalidRequest):
        ndstream.open(url, "f.h5", mode="w")


def test_a_commit_on_a_condition(url: str) -> None:
    file = ndstream.open(url, "f.h5")
    first = file.connection.apply(file.file_path, [])
    file.connection.apply(file.file_path, [], condition=str(first.number))
    with pytest.raises(Conflict):
        file.connection.apply(file.file_path, [], condition="99")


def test_followers_see_commits_in_order(url: str) -> None:
    async def main() -> None:
        async with ndstream.aopen(url, "f.h5", mode="r+") as file:
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
        async with ndstream.aopen(url, "f.h5", mode="r+") as file:
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


def test_what_was_refreshed_shows_what_others_have_done(url: str) -> None:
    writing = ndstream.open(url, "f.h5", mode="r+")
    file = ndstream.open(url, "f.h5")
    group, x, rows = file["g"], file["g/x"], file["rows"]
    assert (x[...].tolist(), rows.shape, dict(x.attrs), list(file)) == ([0] * 5, (4, 3), {}, ["g", "rows"])
    writing["g/x"][0] = 9
    writing["g/x"].attrs["unit"] = "mm"
    writing["rows"].append([7, 7, 7])
    writing["g/y"] = 1
    writing.attrs["new"] = 2
    for each in (x, rows, group, file):
        each.refresh()
    assert (x[...].tolist(), dict(x.attrs)) == ([9, 0, 0, 0, 0], {"unit": "mm"})
    assert (rows.shape, rows[-1].tolist()) == ((5, 3), [7, 7, 7])
    assert (sorted(group), sorted(file["g"]), dict(file.attrs)) == (["x", "y"], ["x", "y"], {"new": 2})

    async def use(file: Any) -> None:
        x = await file["g/x"]
        assert (await x[0]) == 9
        writing["g/x"][0] = 10
        writing["g/x"].attrs["unit"] = "cm"
        await x.refresh()
        assert (await x[0], x.attrs["unit"]) == (10, "cm")

    awaited(url, "f.h5", use, "r")


def test_a_dataset_can_be_followed(url: str) -> None:
    rows = ndstream.open(url, "f.h5", mode="r+")["rows"]
    with closing(ndstream.open(url, "f.h5")["rows"].follow()) as following:
        for n in range(5):
            rows.append(np.full((1, 3), n))
        found = next(following)
        while len(found) < 5:
            found = np.concatenate([found, next(following)])
        np.testing.assert_array_equal(found[:, 0], range(5))
        rows.resize(4, axis=0)
        rows.append([[9, 9, 9]])
        np.testing.assert_array_equal(next(following), [[9, 9, 9]])
        del ndstream.open(url, "f.h5", mode="r+")["rows"]
        with pytest.raises(NotFound, match="rows"):
            next(following)


def test_modes_are_those_of_h5py_but_for_the_one_that_empties(url: str) -> None:
    with pytest.raises(InvalidRequest, match="'x' makes a new one"):
        ndstream.open(url, "f.h5", mode="w")
    with pytest.raises(InvalidRequest, match="not 'rw'"):
        ndstream.open(url, "f.h5", mode="rw")
    with pytest.raises(InvalidRequest, match="directory"):
        ndstream.open(url, mode="a")
    with pytest.raises(Exists):
        ndstream.open(url, "f.h5", mode="x")
    with ndstream.open(url, "made.h5", mode="x") as file:
        assert (file.mode, list(file)) == ("r+", [])
        file.flush()
    with pytest.raises(Exists):
        ndstream.open(url, "made.h5", mode="w-")
    with pytest.raises(InvalidRequest, match="opens for writing"):
        ndstream.open(url).File("f.h5", "r+")


def test_attributes_are_made_and_changed_as_with_h5py(url: str) -> None:
    dataset = ndstream.open(url, "f.h5", mode="r+")["rows"]
    dataset.attrs.update({"a": 1, "b": "text"}, c=[1.5, 2])
    dataset.attrs.create("d", [1, 2, 3, 4], shape=(2, 2), dtype="<i2")
    dataset.attrs.modify("a", 2.9)
    dataset.attrs.modify("new", b"x")
    dataset.attrs["null"] = ndstream.Empty("<f4")
    found = plain(url, "rows").attrs
    assert (found["a"], found["b"], found["c"].tolist(), found["new"]) == (2, "text", [1.5, 2], "x")
    assert (found["d"].dtype, found["d"].tolist()) == (np.dtype("<i2"), [[1, 2], [3, 4]])
    assert found["null"].shape is None
    with pytest.raises(InvalidRequest):
        dataset.attrs.create("e", [1, 2, 3], shape=(2, 2))
    with pytest.raises(UnsupportedDType, match="path"):
        dataset.attrs["reference"] = np.array([h5py.Reference()], h5py.ref_dtype)


def test_what_is_made_like_something_is_like_it(url: str) -> None:
    file = ndstream.open(url, "f.h5", mode="r+")
    first = file.create_dataset("a", (10, 4), ">f4", maxshape=(None, 4), chunks=(5, 2), compression=32008, shuffle=True)
    again = file.create_dataset_like("b", first)
    for dataset in (again, plain(url, "b")):
        assert (dataset.dtype, dataset.shape, dataset.maxshape, dataset.chunks) == (
            first.dtype, (10, 4), (None, 4), (5, 2),
        )  # fmt: skip
        assert dataset.described.filters == first.described.filters
    file["second"] = first
    again.write_direct(np.ones((2, 8), ">f4"), np.s_[:, :4], np.s_[3:5])
    assert (plain(url, "b")[3:5] == 1).all()
    assert plain(url, "second") == plain(url, "a")
    other = ndstream.open(url, "other.h5", mode="a")
    with pytest.raises(InvalidRequest, match=r"other\.h5"):
        other["x"] = first


def test_every_form_of_index_is_written_and_broadcast_as_numpy_does(url: str) -> None:
    dataset = ndstream.open(url, "f.h5", mode="r+")["rows"]
    expected = np.arange(12.0).reshape(4, 3)
    keys: list[Any] = [np.s_[1], np.s_[::2, -1], np.s_[[3, 0], 1:], np.s_[..., [2, 0, 0]], np.s_[::-1], expected > 5]
    for key in keys:
        for value in (np.arange(expected[key].size).reshape(expected[key].shape) + 0.5, -1.0):
            dataset[key] = expected[key] = value
            np.testing.assert_array_equal(dataset[...], expected)


def awaited(url: str, name: str, use: Callable[[Any], Awaitable[None]], mode: str = "r+") -> None:
    async def main() -> None:
        async with ndstream.aopen(url, name, mode=mode) as file:
            await use(file)

    asyncio.run(main())


def test_asynchronous_programs_have_the_same_words(url: str) -> None:
    async def use(file: Any) -> None:
        root = await file.root()
        made = await root.create_dataset("new/deep", (3, 4), "<i2", chunks=(1, 4), compression="gzip")
        await made.write(np.s_[1], 7)
        assert (await made[1]).tolist() == [7] * 4
        await file.set("texts", ["one", "zwei ü"])
        await root.set("soft", ndstream.SoftLink("/g/x"))
        await root.set("second", made)
        await root.move("rows", "a/rows")
        await root.copy("g", "a/copy")
        # What was done through the group is known to it without asking again.
        assert list(root) == ["a", "g", "new", "second", "soft"]
        await root.refresh()
        assert list(root) == ["a", "g", "new", "second", "soft", "texts"]
        await root.delete("g")
        assert list(root) == ["a", "new", "second", "soft", "texts"]
        assert (await (await root["a/copy/x"])[...]).tolist() == [0] * 5
        group = await file.require_group("a/b")
        assert [*await file["a"]] == ["b", "copy", "rows"]
        with pytest.raises(Exists):
            await file.create_group("a/b")
        await group.attrs.update({"unit": "mm"}, n=1)
        await made.attrs.update(a=1.5, b=[1, 2])
        await made.attrs.modify("a", 3)
        await made.attrs.create("c", [1, 2, 3, 4], (2, 2), "<i8")
        await made.attrs.delete("b")
        for each in (made, await file["new/deep"]):
            assert {name: np.asarray(value).tolist() for name, value in each.attrs.items()} == {
                "a": 3.0, "c": [[1, 2], [3, 4]],
            }  # fmt: skip
        assert dict((await file["a/b"]).attrs) == dict(group.attrs) == {"unit": "mm", "n": 1}
        like = await file.create_dataset_like("like", made)
        assert (like.chunks, like.compression, like.shape) == ((1, 4), "gzip", (3, 4))
        assert (await file.require_dataset("like", (3, 4), "<i2")).shape == (3, 4)
        assert (await file.require_dataset("made", (2,), "f4")).shape == (2,)
        with pytest.raises(TypeError):
            await file.require_dataset("like", (4, 4), "<i2")
        rows = await file["a/rows"]
        await rows.insert(0, [[9, 9, 9]])
        await rows.resize(2, axis=0)
        assert (await rows[...]).tolist() == [[9, 9, 9], [0, 1, 2]]
        with pytest.raises(NotFound):
            await file.delete("g")

    awaited(url, "f.h5", use)


def test_a_transaction_belongs_to_the_task_that_began_it(url: str) -> None:
    async def use(file: Any) -> None:
        x, rows = await file["g/x"], await file["rows"]
        inside, outside = asyncio.Event(), asyncio.Event()
        late: list[asyncio.Task[Any]] = []

        async def batch() -> None:
            async with file.transaction():
                assert await file.create_dataset("y", data=[1, 2]) is None
                await asyncio.gather(x.write(0, 5), x.write(1, 6))
                inside.set()
                await outside.wait()
                with pytest.raises(InvalidRequest, match="under way"):
                    await file.transaction().__aenter__()
                late.append(asyncio.create_task(never.wait()))
                assert (await x[...]).tolist() == [0] * 5

        never = asyncio.Event()
        task = asyncio.create_task(batch())
        await inside.wait()
        assert await rows.append([1, 1, 1]) == 4
        outside.set()
        await task
        assert (await x[...]).tolist() == [5, 6, 0, 0, 0]
        assert (await (await file["y"])[...]).tolist() == [1, 2]
        never.set()
        await asyncio.gather(*late)

        for error in (ZeroDivisionError, asyncio.CancelledError):
            with pytest.raises(error):
                async with file.transaction():
                    await x.write(0, 99)
                    left = asyncio.create_task(x.write(1, 99))
                    raise error
            with pytest.raises(InvalidRequest, match="has ended"):
                await left
        assert (await x[...]).tolist() == [5, 6, 0, 0, 0]

    awaited(url, "f.h5", use)


def test_asynchronous_programs_open_with_a_mode(url: str) -> None:
    async def refused(file: Any) -> None:
        with pytest.raises(Forbidden, match=r"f\.h5.*opened to be read"):
            await (await file["rows"]).append([1, 2, 3])
        with pytest.raises(Forbidden):
            await file.transaction().__aenter__()

    async def made(file: Any) -> None:
        assert list(await file.root()) == []

    awaited(url, "f.h5", refused, "r")
    awaited(url, "new.h5", made, "x")
    for name, mode, error in [
        ("new.h5", "w-", Exists),
        ("absent.h5", "r+", NotFound),
        ("f.h5", "w", InvalidRequest),
        ("/", "a", InvalidRequest),
    ]:
        with pytest.raises(error):
            awaited(url, name, made, mode)


def test_a_dataset_can_be_followed_by_a_task_that_is_cancelled(url: str) -> None:
    async def use(file: Any) -> None:
        rows = await file["rows"]
        found: list[Any] = []
        seen = asyncio.Condition()

        async def watch() -> None:
            async for new in (await file["rows"]).follow():
                async with seen:
                    found.extend(new[:, 0])
                    seen.notify()

        watching = asyncio.create_task(watch())
        number = 0
        async with asyncio.timeout(60):
            # What is there before the follower looks is not new to it.
            while not found:
                await rows.append(np.full(3, number))
                number += 1
            async with seen:
                await seen.wait_for(lambda: found[-1] == number - 1)
        assert found == list(range(int(found[0]), number))
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await rows.append([1, 2, 3]) == 4 + number

    awaited(url, "f.h5", use)


def test_following_goes_on_when_the_server_was_started_again(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    ndstream.set_config(Config(limits=replace(DEFAULT_LIMITS, connect_timeout=60)))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("rows", data=np.arange(4.0), maxshape=(None,))
    # Who follows does not keep the server from its end.
    server = ndstream_server(tmp_path, server={"drain": 600}, limits={"workers": 1}, writable={"/": []})
    with closing(ndstream.open(server.url, "f.h5")["rows"].follow()) as following:
        ndstream.open(server.url, "f.h5", mode="r+")["rows"].append([1])
        assert next(following).tolist() == [1]
        ndstream.open(server.url, "f.h5", mode="r+")["rows"].append([2])
        server.stop()
        server = ndstream_server(
            tmp_path, server={"drain": 600}, limits={"workers": 1}, writable={"/": []}, port=server.port
        )
        ndstream.open(server.url, "f.h5", mode="r+")["rows"].append([3, 4])
        found = next(following).tolist()
        while len(found) < 3:
            found += next(following).tolist()
        assert found == [2, 3, 4]
