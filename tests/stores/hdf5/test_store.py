"""The HDF5 store serves what h5py reads, keeps what it found, and sees what changed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import hdf5plugin  # noqa: F401  (h5py finds the filters of the sample by it)
import numpy as np
import pytest

from ndstream.core import model, registry
from ndstream.core.counters import Counters
from ndstream.core.dtypes import Reference, item_size, memory_size, readable, to_numpy
from ndstream.core.elements import restore
from ndstream.core.limits import KiB, Limits
from ndstream.core.operations import Append
from ndstream.core.ports import ANYBODY, Access, Detail, HealthCheck, Reading, Writing
from ndstream.core.selection import select
from ndstream.errors import Busy, InvalidSelection, NotFound, Replaced, UnsupportedDType
from ndstream.stores.hdf5.pool import Pool
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.arrays import collect, same
from ndstream.testing.payloads import WRITER, payload
from ndstream.testing.sample import counted, write_sample

T = TypeVar("T")
LIMITS = Limits(workers=1)


class Served:
    """A store over one directory, in an event loop of its own."""

    def __init__(self, root: Path, runner: asyncio.Runner, limits: Limits) -> None:
        self.root = root
        self.counters = Counters()
        self.store = HDF5Store({"": root}, limits=limits, counters=self.counters)
        self.run = runner.run

    def describe(self, path: str, name: str = "/", detail: Detail = Detail(), access: Access = ANYBODY) -> model.Node:  # noqa: B008
        return self.run(self.store.describe(path, name, access, detail))

    def read(self, path: str, name: str, key: Any = ..., access: Access = ANYBODY) -> np.ndarray[Any, Any]:
        async def work() -> np.ndarray[Any, Any]:
            return await collect(await self.store.read(path, name, access, lambda shape: select(key, shape)))

        return self.run(work())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with asyncio.Runner() as runner:
        served = Served(tmp_path, runner, LIMITS)
        yield served
        runner.run(served.store.aclose())


def write(path: Path, value: int, shape: tuple[int, ...] = (1000,)) -> Path:
    """Put a file in place at once, as careful writers do."""
    new = path.with_suffix(".new")
    with h5py.File(new, "w") as file:
        file["x"] = np.full(shape, value, "<i4")
        file["x"].attrs["value"] = value
        file["soft"] = h5py.SoftLink("/x")
    return new.replace(path)


# -- everything that h5py reads --


@pytest.fixture(scope="module", params=["earliest", "latest"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("sample")
    write_sample(root / "sample.h5", libver=request.param)
    with asyncio.Runner() as runner:
        served = Served(root, runner, LIMITS)
        yield served
        runner.run(served.store.aclose())


def objects(root: Path, kind: type[T]) -> list[T]:
    """All objects of a kind in the sample that h5py can name."""
    found: list[T] = []

    def visit(name: str | bytes, item: Any) -> None:
        if isinstance(name, str) and isinstance(item, kind):
            found.append(item)

    h5py.File(root / "sample.h5").visititems(visit)
    return found


def expected_of(dataset: h5py.Dataset) -> np.ndarray[Any, Any]:
    """What h5py reads; what was written where it cannot."""
    if dataset.name == "/layouts/external":  # h5py looks for it in the directory of the process
        return counted("<i4")
    if dataset.name == "/types/integer_3_bytes":
        return counted("<i4")
    return plain(np.asarray(dataset[()], None if dataset.dtype.subdtype else dataset.dtype), dataset.file)


def plain(values: np.ndarray[Any, Any], names: h5py.File) -> np.ndarray[Any, Any]:
    """Values of h5py as they can travel: references become the path of what they refer to."""
    if h5py.check_ref_dtype(values.dtype) is h5py.Reference:
        paths = [names[item].name if item else None for item in values.reshape(-1)]
        return np.fromiter(paths, object, len(paths)).reshape(values.shape)
    return values


@pytest.mark.keeps_open("the worker processes that the tests of this sample share")
def test_every_dataset_reads_as_h5py_reads_it(sample: Served) -> None:
    compared = 0
    for dataset in objects(sample.root, h5py.Dataset):
        name = dataset.name
        if dataset.shape is None:
            with pytest.raises(InvalidSelection):
                sample.read("sample.h5", name)
            continue
        if name == "/types/time":
            with pytest.raises(UnsupportedDType):
                sample.read("sample.h5", name)
            continue
        if name == "/types/region_reference":
            assert sample.read("sample.h5", name)[0]["name"] == "/types/u1"
            continue
        expected = expected_of(dataset)
        found = sample.read("sample.h5", name)
        assert found.shape == expected.shape, name
        assert same(found.astype(expected.dtype), expected), name
        compared += 1
    assert compared > 150


@pytest.mark.keeps_open("the worker processes that the tests of this sample share")
def test_every_dataset_is_described_as_h5py_describes_it(sample: Served) -> None:
    for dataset in objects(sample.root, h5py.Dataset):
        found = sample.describe("sample.h5", dataset.name)
        assert isinstance(found, model.Dataset), dataset.name
        assert (found.shape, found.maxshape) == (dataset.shape, dataset.maxshape), dataset.name
        assert found.chunks == dataset.chunks, dataset.name
        assert list(found.attributes) == sorted(dataset.attrs), dataset.name
        assert (found.storage == "virtual") == dataset.is_virtual, dataset.name
        assert (found.storage == "external") == bool(dataset.external), dataset.name
        if dataset.name not in ("/types/time", "/types/integer_3_bytes"):
            assert to_numpy(found.dtype, references=(h5py.Reference, h5py.RegionReference)).base == dataset.dtype.base


@pytest.mark.keeps_open("the worker processes that the tests of this sample share")
def test_every_attribute_reads_as_h5py_reads_it(sample: Served) -> None:
    compared = 0
    for item in objects(sample.root, h5py.HLObject):
        if isinstance(item, h5py.Datatype):
            continue
        found = sample.describe("sample.h5", item.name)
        assert isinstance(found, model.Group | model.Dataset)
        for name, attribute in found.attributes.items():
            assert attribute.problem is None, (item.name, name)
            handle = item.attrs.get_id(name)
            if attribute.shape is None:
                assert isinstance(item.attrs[name], h5py.Empty)
                continue
            assert attribute.shape == handle.shape, (item.name, name)
            assert attribute.dtype is not None
            if isinstance(attribute.dtype, Reference) or not isinstance(attribute.value, bytes):
                assert attribute.value is not None
                restore(list(attribute.value), attribute.dtype, attribute.shape)
                continue
            assert len(attribute.value) == memory_size(attribute.dtype) * int(np.prod(attribute.shape))
            spelled = to_numpy(attribute.dtype)
            values = np.frombuffer(attribute.value, spelled.base).reshape(attribute.shape + spelled.shape)
            raw = item.attrs[name]
            if not spelled.shape:  # as declared: h5py strips the end of strings
                raw = np.empty(attribute.shape, spelled)
                handle.read(raw)
            assert same(values, raw), (item.name, name)
            compared += 1
    assert compared > 150


@pytest.mark.keeps_open("the worker processes that the tests of this sample share")
@pytest.mark.parametrize("part", "types layouts filters spaces links attributes names groups dimensions".split())  # noqa: SIM905
def test_every_group_can_be_described_with_all_below_it(sample: Served, part: str) -> None:
    with h5py.File(sample.root / "sample.h5") as file:
        found = sample.describe("sample.h5", f"/{part}", Detail(depth=5, wide=1000, data=1 << 20))
        assert isinstance(found, model.Group)
        assert len(found.members) == len(file[part])
        unreadable = [name for name, member in found.members.items() if isinstance(member, model.Unreadable)]
        assert unreadable == []


@pytest.mark.keeps_open("the worker processes that the tests of this sample share")
def test_names_that_are_not_text_can_be_asked_for_as_they_are_listed(sample: Served) -> None:
    group = sample.describe("sample.h5", "/names")
    assert isinstance(group, model.Group)
    (name,) = [name for name in group.members if name.startswith("not utf-8")]
    found = sample.describe("sample.h5", f"/names/{name}")
    assert isinstance(found, model.Dataset)
    assert found.shape == (2,)


@pytest.mark.keeps_open("the worker processes that the tests of this sample share")
def test_unusual_numbers_come_as_the_library_converts_them(sample: Served) -> None:
    for name in ("integer_20_bits", "integer_3_bytes", "bfloat16"):
        found = sample.describe("sample.h5", f"/types/{name}")
        assert isinstance(found, model.Dataset)
        converted = readable(found.dtype)
        assert converted is not None
        assert sample.read("sample.h5", f"/types/{name}", 0).nbytes == 5 * (item_size(converted) or 0)


# -- what is kept, and what is not --


def test_what_was_described_is_not_asked_for_again_until_the_file_changes(served: Served) -> None:
    write(served.root / "a.h5", 1)
    first = served.describe("a.h5", "/x")
    assert served.describe("a.h5", "x") == first
    assert served.counters["worker_calls", "describe"] == 1
    assert served.counters["cache_hits", "describe"] == 1
    write(served.root / "a.h5", 2)
    second = served.describe("a.h5", "/x")
    assert isinstance(second, model.Dataset)
    assert second.attributes["value"].value == np.int64(2).tobytes()
    assert served.counters["worker_calls", "describe"] == 2


def test_a_replaced_file_is_read_anew_at_once(served: Served) -> None:
    for value in range(5):
        write(served.root / "a.h5", value)
        assert served.read("a.h5", "/x", 3) == value
        assert served.read("a.h5", "/soft", -1) == value


def test_a_file_written_in_place_is_read_anew_at_once(served: Served) -> None:
    path = write(served.root / "a.h5", 1)
    assert served.read("a.h5", "/x", 3) == 1
    with h5py.File(path, "r+") as file:
        file["x"][3] = 77
    assert served.read("a.h5", "/x", 3) == 77


def test_a_file_that_went_away_is_not_found(served: Served) -> None:
    path = write(served.root / "a.h5", 1)
    assert served.read("a.h5", "/x", 3) == 1
    path.unlink()
    with pytest.raises(NotFound):
        served.read("a.h5", "/x", 3)
    with pytest.raises(NotFound):
        served.describe("a.h5")


def test_a_change_behind_an_external_link_is_seen_at_once(served: Served) -> None:
    write(served.root / "target.h5", 1)
    with h5py.File(served.root / "link.h5", "w") as file:
        file["out"] = h5py.ExternalLink("target.h5", "/")
    for value in range(1, 4):
        write(served.root / "target.h5", value)
        for _ in range(2):
            assert served.read("link.h5", "/out/x", 5) == value
            described = served.describe("link.h5", "/out/x")
            assert isinstance(described, model.Dataset)
            assert described.attributes["value"].value == np.int64(value).tobytes()
    (served.root / "target.h5").unlink()
    with pytest.raises(NotFound):
        served.read("link.h5", "/out/x", 5)


@pytest.mark.parametrize("way", ["a symbolic link", "another link"])
def test_a_link_that_is_led_elsewhere_on_the_way_is_followed_anew(served: Served, way: str) -> None:
    with h5py.File(served.root / "link.h5", "w") as file:
        file["out"] = h5py.ExternalLink("way.h5", "/out" if way == "another link" else "/")
    for value in (1, 2):
        write(served.root / f"{value}.h5", value)
        if way == "another link":
            with h5py.File(served.root / "new", "w") as file:
                file["out"] = h5py.ExternalLink(f"{value}.h5", "/")
        else:
            (served.root / "new").symlink_to(f"{value}.h5")
        (served.root / "new").rename(served.root / "way.h5")
        for _ in range(2):
            assert served.read("link.h5", "/out/x", 5) == value


def test_where_a_link_leads_outright_is_asked_once(served: Served) -> None:
    write(served.root / "target.h5", 1)
    (served.root / "below").mkdir()
    with h5py.File(served.root / "below" / "link.h5", "w") as file:
        file["out"] = h5py.ExternalLink("../target.h5", "/")
    for _ in range(3):
        assert served.read("below/link.h5", "/out/x", 5) == 1
    assert served.counters["worker_calls", "locate"] == 1


def virtual_without_end(path: Path, source: str) -> None:
    """Make a virtual dataset that is as long as its source."""
    layout = h5py.VirtualLayout((4,), "<i4", maxshape=(None,))
    layout[0 : h5py.h5s.UNLIMITED] = h5py.VirtualSource(source, "x", (4,), maxshape=(None,))[0 : h5py.h5s.UNLIMITED]
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("v", layout)


def test_a_virtual_dataset_grows_with_its_source(served: Served) -> None:
    with h5py.File(served.root / "source.h5", "w") as file:
        file.create_dataset("x", data=np.arange(4, dtype="<i4"), maxshape=(None,))
    virtual_without_end(served.root / "v.h5", "source.h5")
    for count in (4, 6, 9):
        with h5py.File(served.root / "source.h5", "r+") as file:
            file["x"].resize((count,))
            file["x"][:] = np.arange(count)
        described = served.describe("v.h5", "/v")
        assert isinstance(described, model.Dataset)
        assert described.shape == (count,)
        for _ in range(2):
            assert served.read("v.h5", "/v").tolist() == list(range(count))


def test_it_is_told_where_other_files_have_a_part(served: Served) -> None:
    (served.root / "raw").write_bytes(bytes(4))
    virtual_without_end(served.root / "v.h5", "source.h5")
    with h5py.File(served.root / "v.h5", "r+") as file:
        file["x"] = np.arange(4, dtype="<i4")
        file.create_dataset("external", (4,), "u1", external=[("raw", 0, 4)])
        file.create_virtual_dataset("own", _virtual("."))
    for name, elsewhere in (("v", True), ("external", True), ("own", False), ("x", False)):
        described = served.describe("v.h5", f"/{name}")
        assert isinstance(described, model.Dataset)
        reading = served.run(served.store.read("v.h5", f"/{name}", ANYBODY, None))
        assert (bool(described.elsewhere), reading.elsewhere) == (elsewhere, elsewhere), name


def _virtual(source: str) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((4,), "<i4")
    layout[:] = h5py.VirtualSource(source, "x", (4,))
    return layout


def test_a_virtual_dataset_in_a_file_that_is_written_grows_with_its_source(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("x", data=np.arange(4, dtype="<i4"), maxshape=(None,))
    virtual_without_end(tmp_path / "v.h5", ".")

    async def work() -> None:
        store = HDF5Store({"": tmp_path}, limits=LIMITS, writing=Writing(durability="flush"))
        try:
            await store.hold("v.h5", ANYBODY)
            for count in (4, 5, 6):
                for _ in range(2):
                    assert (await collect(await store.read("v.h5", "/v", ANYBODY, None))).tolist() == list(range(count))
                await store.apply("v.h5", WRITER, [Append(name="/x", data=payload([count], "<i4"))])
        finally:
            await store.aclose()

    asyncio.run(work())


def test_what_is_kept_stays_within_its_limit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(200):
            file.create_dataset(f"d{number}", data=np.arange(100), chunks=(1,))
    limits = Limits(workers=1, layout_cache=256 * KiB)
    with asyncio.Runner() as runner:
        served = Served(tmp_path, runner, limits)
        for number in range(200):
            served.describe("a.h5", f"/d{number}")
            served.read("a.h5", f"/d{number}", 0)
        assert 100 * KiB < served.store._kept.nbytes <= 256 * KiB
        runner.run(served.store.aclose())


def test_equal_questions_at_once_cost_one_call(served: Served) -> None:
    write(served.root / "a.h5", 1)

    async def ask() -> None:
        describe = [served.store.describe("a.h5", "/x", ANYBODY, Detail()) for _ in range(20)]
        read = [served.store.read("a.h5", "/x", ANYBODY, None) for _ in range(20)]
        nodes = await asyncio.gather(*describe)
        readings = await asyncio.gather(*read)
        assert all(node == nodes[0] for node in nodes)
        for reading in readings:
            assert (await collect(reading)).sum() == 1000

    served.run(ask())
    assert served.counters["worker_calls", "describe"] == 1
    assert served.counters["worker_calls", "locate"] == 1


def test_users_who_see_different_things_do_not_share_answers(served: Served) -> None:
    (served.root / "secret").mkdir()
    write(served.root / "secret" / "target.h5", 1)
    with h5py.File(served.root / "link.h5", "w") as file:
        file["out"] = h5py.ExternalLink("secret/target.h5", "/x")
    outsider = Access(user="o", hidden=frozenset({"secret"}))
    assert served.read("link.h5", "/out", 0) == 1
    with pytest.raises(NotFound):
        served.read("link.h5", "/out", 0, outsider)
    with pytest.raises(NotFound):
        served.describe("link.h5", "/out", access=outsider)


# -- speed --


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end what must not wait for anything."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the coroutine returned
    work.close()
    raise AssertionError("it was suspended")


@pytest.mark.parametrize("options", [{}, {"chunks": (100,)}, {"chunks": (100,), "compression": "gzip"}])
def test_a_small_read_of_a_known_dataset_is_never_suspended(served: Served, options: dict[str, Any]) -> None:
    with h5py.File(served.root / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(10_000, dtype="<i4"), **options)
    served.read("a.h5", "/x", slice(250, 260))

    async def read() -> Reading:
        return await served.store.read("a.h5", "/x", ANYBODY, lambda shape: select(slice(250, 260), shape))

    async def twice() -> None:
        await read()  # the reader belongs to the running loop
        reading = at_once(read())
        assert reading.ready is not None
        assert bytes(reading.ready) == np.arange(250, 260, dtype="<i4").tobytes()
        described = at_once(served.store.describe("a.h5", "/x", ANYBODY, Detail()))
        assert isinstance(described, model.Dataset)

    served.describe("a.h5", "/x")
    served.run(twice())


# -- when files change under our hands --


def test_a_file_replaced_between_question_and_answer_is_asked_again_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(served.root / "a.h5", 1)
    genuine = Pool.call
    replacements = iter([2, 3])

    async def call(pool: Pool, request: Any) -> Any:
        value = next(replacements, None)
        if value is not None:
            write(path, value)
        return await genuine(pool, request)

    monkeypatch.setattr(Pool, "call", call)
    with pytest.raises(Replaced):  # twice in a row
        served.describe("a.h5", "/x")
    replacements = iter([4])
    assert served.read("a.h5", "/x", 0) == 4


def test_a_file_that_shrinks_during_a_read_ends_it_with_an_error(served: Served) -> None:
    path = write(served.root / "a.h5", 1, (8, 1 << 20))

    async def work() -> None:
        reading = await served.store.read("a.h5", "/x", ANYBODY, None)
        buffers = reading.buffers()
        received = len(await anext(buffers))
        with path.open("r+b") as file:
            file.truncate(1 << 20)
        with pytest.raises(Replaced):
            async for buffer in buffers:
                received += len(buffer)
        await reading.aclose()
        assert reading.nbytes is not None
        assert received < reading.nbytes

    served.run(work())


def test_a_read_in_progress_survives_the_file_being_replaced_or_removed(served: Served) -> None:
    path = write(served.root / "a.h5", 1, (8, 1 << 20))

    async def work(change: Any) -> np.ndarray[Any, Any]:
        reading = await served.store.read("a.h5", "/x", ANYBODY, None)
        change()
        return await collect(reading)

    assert (served.run(work(lambda: write(path, 2))) == 1).all()
    assert (served.run(work(path.unlink)) == 2).all()


# -- as a whole --


def test_the_registry_makes_one(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 5)
    counters = Counters()

    async def work() -> None:
        store = registry.load(registry.STORES, "hdf5")(
            {"data": tmp_path}, limits=LIMITS, counters=counters, media_types={"*.new": "text/plain"}
        )
        assert isinstance(store, HDF5Store)
        assert isinstance(store, HealthCheck)
        assert store.problem() == "no worker process is running"
        await store.start()
        assert store.problem() is None
        assert (await collect(await store.read("data/a.h5", "/x", ANYBODY, None)) == 5).all()
        await store.aclose()
        await store.aclose()
        with pytest.raises(Busy):
            await store.describe("data/a.h5", "/", ANYBODY, Detail())

    asyncio.run(work())
    assert counters["worker_calls", "locate"] == 1


def test_the_server_never_loads_the_hdf5_library(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", 5)
    program = f"""
import asyncio, pathlib, sys
from ndstream.core.ports import ANYBODY, Detail
from ndstream.stores.hdf5.store import HDF5Store

async def main():
    store = HDF5Store({{"": pathlib.Path({str(tmp_path)!r})}})
    await store.describe("a.h5", "/x", ANYBODY, Detail())
    reading = await store.read("a.h5", "/x", ANYBODY, None)
    assert reading.ready is not None
    await store.aclose()

asyncio.run(main())
assert "h5py" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
