"""What every store must do, as tests to inherit.

>>> class TestMyStore(StoreSuite):
...     @classmethod
...     def make(cls, tree, place, limits):
...         write_tree(tree, place)
...         return MyStore({"": place}, limits=limits)

`StoreSuite` asks the store about the tree of `suite_tree`, and compares with numpy and with the values in it.
"""

# ruff: noqa: D102  (the names of the tests say it)

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs
from numpy.typing import NDArray

from ndstream.core import model
from ndstream.core.dtypes import from_numpy, is_fixed, to_numpy
from ndstream.core.elements import restore
from ndstream.core.limits import KiB, Limits
from ndstream.core.model import Directory, ExternalLink, File, HardLink, SoftLink
from ndstream.core.ports import ANYBODY, Access, Detail, Store
from ndstream.core.selection import Selection, ranges, select
from ndstream.errors import DataError, InvalidSelection, NotFound
from ndstream.stores.memory import Array, Group, Null, Tree, Values
from ndstream.testing.arrays import collect, same
from ndstream.testing.strategies import expected, keys, numbered, selections

__all__ = ["StoreSuite", "collect", "same", "suite_tree", "write_tree"]

T = TypeVar("T")

LIMITS = Limits(piece=64 * KiB, request_memory=256 * KiB, workers=2, worker_timeout=20.0)
BIG = (300, 200, 5)
NOTE = b"What is in here, and who made it.\n"


def suite_tree() -> Tree:
    """Make the tree that `StoreSuite` asks about: values of every kind, in files in directories."""
    return {
        "README": NOTE,
        "empty": {},
        "runs": {
            "one.h5": Group(_members(), attributes={"title": _text("größer"), "number": np.array(7, ">i4")}),
            "other.h5": Group({"inner": Group({"there": Array(np.arange(6, dtype="<i2"))})}),
            "secret": {"hidden.h5": Group({"x": Array(np.arange(3))}), "deeper": {"note.txt": b"psst"}},
        },
    }


def _members() -> dict[str, Group | Array | SoftLink | ExternalLink]:
    shared = Array(np.arange(12, dtype="<f8").reshape(3, 4), {"unit": _text("m")})
    return {
        "big": Array((np.arange(np.prod(BIG)) * 7919 % 65521).astype("<i4").reshape(BIG)),
        "odd": Array(np.arange(60_000, dtype="<f4").view("V20")),
        "shared": shared,
        "again": Group({"shared": shared}),
        "types": Group({name: Array(values) for name, values in _values().items()}, attributes=_values()),
        "null": Array(Null(np.dtype("<f4")), {"nothing": Null(np.dtype("<i8"))}),
        "soft": SoftLink(target="/shared"),
        "broken": SoftLink(target="/nowhere"),
        "circle": SoftLink(target="circle"),
        "outside": ExternalLink(filename="other.h5", target="/inner"),
        "lost": ExternalLink(filename="nowhere.h5", target="/"),
        "wide": Group({f"{number:02}": Array(np.array(number)) for number in range(21)}),
        "deep": Group(
            {"a": Group({"b": Group({"c": Array(np.arange(2)), "back": SoftLink(target="../../../shared")})})}
        ),
        "größe, m²": Array(np.arange(2)),
        "nd": Array(np.arange(4)),
        "vlen": Group(),
    }


def _text(value: str) -> NDArray[Any]:
    return _objects([value.encode()], h5py.string_dtype()).reshape(())


def _objects(items: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    made = np.empty(len(items), dtype)
    made[:] = items
    return made


def _values() -> dict[str, Values]:
    record = np.dtype([("a", "<i4"), ("b", ">f8", (2,)), ("c", "S3")])
    gaps = np.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [1, 8], "itemsize": 24})
    plain: dict[str, Values] = {
        kind: np.arange(1, 13).reshape(3, 4).astype(kind) for kind in ("i1", ">u2", "<u8", "<f2", ">f4", "<f8", "<c16")
    }
    return plain | {
        "boolean": np.array([True, False, True]),
        "enumeration": np.array([0, 2, 1], h5py.enum_dtype({"A": 0, "B": 1, "Z": 2}, "i1")),
        "fixed text": np.array([b"", b"abc", b"abcd"], "S4"),
        "fixed utf-8": np.array(["ä".encode(), b"x"], h5py.string_dtype("utf-8", 3)),
        "record": np.array([(1, (2, 3), b"x"), (4, (5, 6), b"xyz")], record),
        "record with gaps": np.array([(1, 2.5), (3, 4.5)], gaps),
        "opaque": np.array([b"ab", b"\0\1"], "V2"),
        "scalar": np.array(1.5),
        "no rows": np.zeros((0, 3), "<i4"),
        "text": _objects([b"", b"one", "größer".encode()], h5py.string_dtype()),
        "text ascii": _objects([b"one", b"two"], h5py.string_dtype("ascii")),
        "sequences": _objects([np.arange(n, dtype="<i4") for n in (0, 3, 1)], h5py.vlen_dtype(np.dtype("<i4"))),
    }


def write_tree(tree: Tree, place: Path, **options: Any) -> None:
    """Write a tree to disk, HDF5 files where it says so.

    Parameters
    ----------
    tree
        As of `ndstream.stores.memory.MemoryStore`.
    place : Path
        Directory to write into; made if needed.
    **options
        For `h5py.Group.create_dataset`, for every dataset that can be chunked.
    """
    place.mkdir(parents=True, exist_ok=True)
    for name, child in tree.items():
        if isinstance(child, Mapping):
            write_tree(child, place / name, **options)
        elif isinstance(child, bytes):
            (place / name).write_bytes(child)
        else:
            with h5py.File(place / name, "w") as file:
                _write_group(file, child, {}, options)


def _write_group(target: h5py.Group, group: Group, known: dict[int, Any], options: dict[str, Any]) -> None:
    _write_attributes(target, group.attributes)
    for name, member in group.members.items():
        if isinstance(member, SoftLink):
            target[name] = h5py.SoftLink(member.target)
        elif isinstance(member, ExternalLink):
            target[name] = h5py.ExternalLink(member.filename, member.target)
        elif id(member) in known:
            target[name] = known[id(member)]
        elif isinstance(member, Group):
            known[id(member)] = target.create_group(name)
            _write_group(target[name], member, known, options)
        else:
            known[id(member)] = _write_array(target, name, member, options)


def _write_array(target: h5py.Group, name: str, array: Array, options: dict[str, Any]) -> h5py.Dataset:
    if isinstance(array.values, Null):
        dataset = target.create_dataset(name, data=h5py.Empty(array.values.dtype))
    else:
        fixed = is_fixed(from_numpy(array.values.dtype))  # checksums of strings of variable length are refused
        chunkable = options if array.values.size and array.values.ndim and fixed else {}
        dataset = target.create_dataset(name, data=array.values, dtype=array.values.dtype, **chunkable)
    _write_attributes(dataset, array.attributes)
    return dataset


def _write_attributes(target: h5py.HLObject, attributes: Mapping[str, Values]) -> None:
    for name, values in attributes.items():
        if isinstance(values, Null):
            target.attrs[name] = h5py.Empty(values.dtype)
        else:
            target.attrs.create(name, values, dtype=values.dtype)


class Bench:
    """A store that runs, the tree that it serves, and the event loop that it runs in."""

    def __init__(self, store: Store, tree: Tree, runner: asyncio.Runner) -> None:
        self.store = store
        self.tree = tree
        self.runner = runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end."""
        return self.runner.run(work)

    def array(self, name: str) -> NDArray[Any]:
        """Values of a dataset of ``runs/one.h5`` as they were put in."""
        found: Any = self.tree
        for part in ("runs", "one.h5", *name.strip("/").split("/")):
            found = found.members[part] if isinstance(found, Group) else found[part]
        assert isinstance(found.values, np.ndarray)
        return found.values

    def read(self, name: str, selection: Any = None, path: str = "runs/one.h5") -> NDArray[Any]:
        """Read all that is selected."""

        async def work() -> NDArray[Any]:
            return await collect(await self.store.read(path, name, ANYBODY, selection))

        return self.run(work())

    def reads_elsewhere(self, name: str) -> bool:
        """Whether other files have a part in what is read."""

        async def work() -> bool:
            reading = await self.store.read("runs/one.h5", name, ANYBODY, None)
            await reading.aclose()
            return reading.elsewhere

        return self.run(work())

    def describe(self, name: str, detail: Detail = Detail(), path: str = "runs/one.h5") -> model.Node:  # noqa: B008
        """Describe an object."""
        return self.run(self.store.describe(path, name, ANYBODY, detail))

    def group(self, name: str, detail: Detail = Detail()) -> model.Group:  # noqa: B008
        """Describe a group."""
        found = self.describe(name, detail)
        assert isinstance(found, model.Group)
        return found

    def directory(self, path: str, access: Access = ANYBODY, depth: int = 0) -> Directory:
        """List a directory."""
        found = self.run(self.store.lookup(path, access, depth=depth))
        assert isinstance(found, Directory)
        return found


VALUE_NAMES = sorted(_values())
NAMES = st.sampled_from(["big", "shared", *(f"types/{name}" for name in VALUE_NAMES)])
MISSING = ["nothing", "runs/nothing", "README/x", "runs/one.h5/x", "/runs", "runs/", "runs//one.h5", "runs/../README"]
MISSING += [".", "..", "runs/./one.h5", "runs\0", "\udcff", "x" * 5000]


class StoreSuite:
    """Tests of `ndstream.core.ports.Store`; a subclass says in `make` how its store comes to be."""

    @classmethod
    def make(cls, tree: Tree, place: Path, limits: Limits) -> Store:
        """Make a store that serves `tree`; `place` is an empty directory to use."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        """Serve the tree as long as the tests of the class run."""
        tree = suite_tree()
        with asyncio.Runner() as runner:
            store = cls.make(tree, tmp_path_factory.mktemp("tree"), LIMITS)
            runner.run(store.start())
            yield Bench(store, tree, runner)
            runner.run(store.aclose())

    # -- lookup --

    def test_the_root_lists_files_and_directories(self, bench: Bench) -> None:
        root = bench.directory("")
        assert (list(root.files), list(root.directories)) == (["README"], ["empty", "runs"])
        assert root.directories == {"empty": None, "runs": None}
        assert root.path == ""
        assert root.files["README"].size == len(NOTE)

    def test_sizes_are_totals_of_what_is_below(self, bench: Bench) -> None:
        root, runs = bench.directory(""), bench.directory("runs")
        secret = bench.directory("runs/secret")
        assert root.size == len(NOTE) + runs.size
        assert runs.size == sum(file.size for file in runs.files.values()) + secret.size
        assert bench.directory("empty").size == 0

    def test_directories_are_expanded_as_deep_as_asked(self, bench: Bench) -> None:
        runs = bench.directory("", depth=1).directories["runs"]
        assert runs == bench.directory("runs")
        runs = bench.directory("", depth=9).directories["runs"]
        assert runs == bench.directory("runs", depth=9)
        assert runs is not None
        secret = runs.directories["secret"]
        assert secret is not None
        assert secret.directories["deeper"] == bench.directory("runs/secret/deeper")

    def test_a_file_looks_alike_by_itself_and_in_its_directory(self, bench: Bench) -> None:
        file = bench.run(bench.store.lookup("runs/one.h5", ANYBODY))
        assert isinstance(file, File)
        assert file == bench.directory("runs").files["one.h5"]
        assert file.is_hdf5
        assert not bench.directory("").files["README"].is_hdf5

    @pytest.mark.parametrize("path", MISSING)
    def test_what_is_not_there_is_not_found_by_any_question(self, bench: Bench, path: str) -> None:
        for ask in _questions(bench.store, path, ANYBODY):
            with pytest.raises(NotFound):
                bench.run(_awaited(ask))

    @pytest.mark.parametrize("hidden", ["runs/secret", "runs", ""])
    def test_what_is_hidden_does_not_exist(self, bench: Bench, hidden: str) -> None:
        access = Access(hidden=frozenset({hidden}))
        for path in ("runs/secret", "runs/secret/hidden.h5", "runs/secret/deeper/note.txt"):
            for ask in _questions(bench.store, path, access):
                with pytest.raises(NotFound):
                    bench.run(_awaited(ask))
        if hidden == "":
            with pytest.raises(NotFound):
                bench.directory("", access)
            return
        root = bench.directory("", access, depth=9)
        gone = bench.directory(hidden)
        assert root.size == bench.directory("").size - gone.size
        assert ("runs" in root.directories) == (hidden != "runs")
        runs = root.directories.get("runs")
        assert runs is None or "secret" not in runs.directories

    def test_files_can_be_opened(self, bench: Bench) -> None:
        opened = bench.run(bench.store.open("README", ANYBODY))
        with os.fdopen(opened.descriptor, "rb") as content:
            assert content.read() == NOTE
            bench.run(_awaited(opened.check))
        assert opened.file == bench.run(bench.store.lookup("README", ANYBODY))

    # -- describe --

    @pytest.mark.parametrize("name", VALUE_NAMES)
    def test_datasets_are_described_with_their_values(self, bench: Bench, name: str) -> None:
        values = bench.array(f"types/{name}")
        found = bench.describe(f"/types/{name}", Detail(data=1 << 20))
        assert isinstance(found, model.Dataset)
        assert found.dtype == from_numpy(values.dtype)
        assert found.shape == values.shape
        assert same(_array_of(found.dtype, values.shape, found.data), values)

    def test_data_comes_along_only_when_it_is_small(self, bench: Bench) -> None:
        size = bench.array("shared").nbytes
        for limit, there in ((size, True), (size - 1, False), (0, False)):
            found = bench.describe("/shared", Detail(data=limit))
            assert isinstance(found, model.Dataset)
            assert (found.data is not None) == there
        found = bench.describe("/big", Detail(data=1 << 40))
        assert isinstance(found, model.Dataset)
        assert found.data is None
        found = bench.describe("/types/no rows")
        assert isinstance(found, model.Dataset)
        assert found.data == b""

    def test_attributes_are_sorted_and_keep_their_declared_type(self, bench: Bench) -> None:
        attributes = bench.group("/types").attributes
        assert list(attributes) == VALUE_NAMES
        for name, attribute in attributes.items():
            values = bench.array(f"types/{name}")
            assert attribute.problem is None
            assert attribute.dtype == from_numpy(values.dtype)
            assert attribute.shape == values.shape
            assert same(_array_of(attribute.dtype, values.shape, attribute.value), values)
        assert list(bench.group("/").attributes) == ["number", "title"]

    def test_null_dataspaces_have_no_shape_and_no_values(self, bench: Bench) -> None:
        found = bench.describe("/null", Detail(data=1 << 20))
        assert isinstance(found, model.Dataset)
        assert (found.shape, found.maxshape, found.data) == (None, None, None)
        nothing = found.attributes["nothing"]
        assert (nothing.shape, nothing.value) == (None, None)
        assert nothing.dtype == from_numpy(np.dtype("<i8"))

    def test_members_of_the_named_group_are_described_groups_only_by_kind(self, bench: Bench) -> None:
        members = bench.group("/").members
        assert set(members) == set(_members())
        assert isinstance(members["shared"], model.Dataset)
        assert isinstance(members["null"], model.Dataset)
        assert members["soft"] == SoftLink(target="/shared")
        assert members["broken"] == SoftLink(target="/nowhere")
        assert members["lost"] == ExternalLink(filename="nowhere.h5", target="/")
        assert members["types"] == HardLink(kind="group")
        assert members["outside"] == HardLink(kind="group")

    def test_external_links_are_told_besides_what_they_lead_to(self, bench: Bench) -> None:
        links = {name: member for name, member in _members().items() if isinstance(member, ExternalLink)}
        assert bench.group("/").links == links
        assert bench.group("/deep").links == {}

    def test_groups_are_described_as_deep_as_asked(self, bench: Bench) -> None:
        deep = bench.group("/deep", Detail(depth=1)).members["a"]
        assert isinstance(deep, model.Group)
        assert isinstance(deep.members["b"], HardLink)
        deep = bench.group("/deep", Detail(depth=2)).members["a"]
        assert isinstance(deep, model.Group)
        deep = deep.members["b"]
        assert isinstance(deep, model.Group)
        assert isinstance(deep.members["c"], HardLink)  # at the limit: names only
        whole = bench.group("/deep", Detail(depth=9))
        assert whole.members["a"] == bench.group("/deep/a", Detail(depth=9))

    def test_wide_groups_below_the_named_one_stay_closed(self, bench: Bench) -> None:
        for wide, looked_into in ((20, False), (21, True)):
            below = bench.group("/", Detail(depth=5, wide=wide)).members["wide"]
            assert isinstance(below, model.Group)
            assert len(below.members) == 21
            assert all(isinstance(member, model.Dataset) == looked_into for member in below.members.values())
        assert all(isinstance(member, model.Dataset) for member in bench.group("/wide").members.values())

    @pytest.mark.parametrize(
        "name", ["/soft", "/again/shared", "shared", "/deep/../shared", "//again//./shared", "/deep/a/b/back"]
    )
    def test_an_object_is_the_same_by_all_its_names(self, bench: Bench, name: str) -> None:
        assert bench.describe(name) == bench.describe("/shared")

    def test_external_links_are_followed_to_the_other_file(self, bench: Bench) -> None:
        assert same(bench.read("/outside/there"), np.arange(6, dtype="<i2"))
        there = bench.describe("/outside/there")
        assert isinstance(there, model.Dataset)
        assert structs.replace(there, elsewhere=UNSET) == bench.describe("/inner/there", path="runs/other.h5")

    def test_it_is_told_where_other_files_have_a_part(self, bench: Bench) -> None:
        for name, elsewhere in (("/", True), ("/shared", False), ("/outside/there", True), ("/deep", False)):
            found = bench.describe(name)
            assert isinstance(found, model.Group | model.Dataset)
            assert bool(found.elsewhere) == elsewhere
            if isinstance(found, model.Dataset):
                assert bench.reads_elsewhere(name) == elsewhere

    def test_names_of_all_kinds_are_found(self, bench: Bench) -> None:
        for name in ("größe, m²", "nd"):
            assert same(bench.read(f"/{name}"), bench.array(name))
        assert bench.group("/vlen").members == {}

    @pytest.mark.parametrize(
        "name", ["/nothing", "/shared/below", "/broken", "/circle", "/lost", "/outside/nothing", "/deep/A", "/\0"]
    )
    def test_objects_that_are_not_there_are_not_found(self, bench: Bench, name: str) -> None:
        with pytest.raises(NotFound):
            bench.describe(name)
        with pytest.raises(NotFound):
            bench.read(name)

    def test_a_file_of_another_kind_holds_no_objects(self, bench: Bench) -> None:
        with pytest.raises((NotFound, DataError)):
            bench.describe("/", path="README")
        with pytest.raises((NotFound, DataError)):
            bench.read("/x", path="README")

    # -- read --

    @pytest.mark.parametrize("name", VALUE_NAMES)
    def test_whole_arrays_come_as_they_are_stored(self, bench: Bench, name: str) -> None:
        assert same(bench.read(f"/types/{name}"), bench.array(f"types/{name}"))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.data())
    def test_index_expressions_give_what_numpy_gives(self, bench: Bench, data: st.DataObject) -> None:
        name = data.draw(NAMES)
        array = bench.array(name)
        key = data.draw(keys(array.shape))
        positions = np.asarray(expected(numbered(array.shape), key))
        assert same(bench.read(name, select(key, array.shape)), _taken(array, positions))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.data())
    def test_selections_of_all_kinds_give_what_they_select(self, bench: Bench, data: st.DataObject) -> None:
        name = data.draw(NAMES)
        array = bench.array(name)
        selection = data.draw(selections(array.shape))
        assert same(bench.read(name, selection), _taken(array, selection.apply(numbered(array.shape))))

    def test_many_ranges_come_one_behind_the_other(self, bench: Bench) -> None:
        array = bench.array("big")
        starts, counts = np.array([250, 0, 7, 7, 100]), np.array([50, 3, 0, 20, 150])
        selection = ranges(BIG, starts, counts, ((10, 5), (0, 5)))
        parts = [array[start : start + count, 10:15] for start, count in zip(starts, counts, strict=True)]
        assert same(bench.read("big", selection), np.concatenate(parts))

    def test_the_selection_may_be_chosen_when_the_shape_is_known(self, bench: Bench) -> None:
        seen = []

        def last(shape: tuple[int, ...]) -> Selection:
            seen.append(shape)
            return select(-1, shape)

        assert same(bench.read("/shared", last), bench.array("shared")[-1])
        assert set(seen) == {(3, 4)}

    def test_what_the_selection_refuses_is_refused(self, bench: Bench) -> None:
        with pytest.raises(InvalidSelection):
            bench.read("/shared", lambda shape: select((0, 0, 0), shape))
        with pytest.raises(InvalidSelection):
            bench.read("/shared", select(0, (4, 3)))
        with pytest.raises(InvalidSelection):
            bench.read("/null")

    def test_a_group_cannot_be_read(self, bench: Bench) -> None:
        with pytest.raises(NotFound):
            bench.read("/types")

    # -- many at once --

    def test_many_may_ask_at_once(self, bench: Bench) -> None:
        async def one(number: int) -> bool:
            name = ("/big", "/shared", "/types/text", "/soft", "/outside/there")[number % 5]
            if number % 3 == 0:
                return isinstance(await bench.store.describe("runs/one.h5", name, ANYBODY, Detail()), model.Dataset)
            values = np.arange(6, dtype="<i2") if number % 5 == 4 else bench.array(name.replace("soft", "shared"))
            return same(await collect(await bench.store.read("runs/one.h5", name, ANYBODY, None)), values)

        async def all_of_them() -> list[bool]:
            return await asyncio.gather(*(one(number) for number in range(60)))

        assert all(bench.run(all_of_them()))

    def test_pieces_are_of_whole_elements(self, bench: Bench) -> None:
        async def work() -> list[int]:
            reading = await bench.store.read("runs/one.h5", "/odd", ANYBODY, None)
            return [len(buffer) async for buffer in reading.buffers()]

        sizes = bench.run(work())
        assert sum(sizes) == 240_000
        assert [size % 20 for size in sizes] == [0] * len(sizes)

    def test_readings_may_be_given_up_at_any_point(self, bench: Bench) -> None:
        async def work(pieces: int) -> None:
            reading = await bench.store.read("runs/one.h5", "/big", ANYBODY, None)
            buffers = reading.buffers()
            for _ in range(pieces):
                assert len(await anext(buffers))
            await reading.aclose()
            await reading.aclose()

        for pieces in range(4):
            bench.run(work(pieces))
        assert same(bench.read("/big"), bench.array("big"))

    def test_cancelled_requests_leave_the_others_alone(self, bench: Bench) -> None:
        async def read(name: str) -> NDArray[Any]:
            return await collect(await bench.store.read("runs/one.h5", name, ANYBODY, None))

        async def work() -> None:
            names = ["/big", "/types/text"] * 6
            tasks = [asyncio.create_task(read(name)) for name in names]
            for turn, task in enumerate(tasks):
                for _ in range(turn % 4):
                    await asyncio.sleep(0)
                if turn % 2 == turn // 2 % 2:
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for name, result in zip(names, results, strict=True):
                if not isinstance(result, asyncio.CancelledError):
                    assert not isinstance(result, BaseException)
                    assert same(result, bench.array(name))

        bench.run(work())


def _taken(array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """Elements at flat positions, as an array even where it is one element that is an array itself."""
    return array.reshape(-1)[positions.reshape(-1)].reshape(positions.shape)


def _array_of(dtype: Any, shape: tuple[int, ...], value: bytes | list[Any] | None) -> NDArray[Any]:
    """Array from a value as it stands in descriptions."""
    assert value is not None
    if isinstance(value, list):
        return restore(value, dtype, shape)
    return np.frombuffer(value, to_numpy(dtype)).reshape(shape)


def _questions(store: Store, path: str, access: Access) -> list[Callable[[], Awaitable[Any]]]:
    """Everything that can be asked about a path."""
    return [
        lambda: store.lookup(path, access),
        lambda: store.lookup(path, access, depth=3),
        lambda: store.open(path, access),
        lambda: store.describe(path, "/", access, Detail()),
        lambda: store.read(path, "/x", access, None),
    ]


async def _awaited(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
