"""What every store that is written to must do, as tests to inherit.

>>> class TestMyStore(WritableStoreSuite):
...     def make(self, place):
...         return MyStore({"": place}, writing=Writing())

The store begins with an empty directory ``runs``. `ndstream.stores.memory.MemoryStore` says what operations mean.
"""

# ruff: noqa: D102  (the names of the tests say it)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndstream.core import model
from ndstream.core.dtypes import from_numpy
from ndstream.core.model import Filter
from ndstream.core.operations import (
    Append,
    Committed,
    Copy,
    CreateDataset,
    CreateGroup,
    Delete,
    DeleteAttributes,
    Event,
    Insert,
    Link,
    Move,
    Operation,
    Payload,
    Resize,
    SetAttributes,
    Write,
    WriteChunk,
)
from ndstream.core.ports import ANYBODY, Detail
from ndstream.core.selection import select, to_plain
from ndstream.errors import Conflict, Exists, Forbidden, InvalidRequest, NDStreamError, NotFound, UnsupportedDType
from ndstream.stores.memory import Group, MemoryStore
from ndstream.testing.arrays import collect, same
from ndstream.testing.payloads import WRITER, dataset, payload, table
from ndstream.testing.strategies import keys

__all__ = ["WRITER", "WritableStoreSuite", "dataset", "payload", "table"]

T = TypeVar("T")

FILE = "runs/new.h5"
GZIP = (Filter(id=2, name="shuffle"), Filter(id=1, name="deflate", options=(4,)))


class WritableStoreSuite:
    """Tests of `ndstream.core.ports.WritableStore`."""

    def make(self, place: Path) -> Any:
        """Make a store over an empty directory ``runs``."""
        raise NotImplementedError

    def run(self, place: Path, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do `work` with a new store."""
        (place / "runs").mkdir(parents=True)

        async def whole() -> T:
            store = self.make(place)
            try:
                await store.apply(FILE, WRITER, [], create=True)
                return await work(store)
            finally:
                await store.aclose()

        return asyncio.run(whole())

    def test_what_is_made_is_there(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            values = np.arange(12, dtype="<f8").reshape(3, 4)
            done = await apply(
                store, CreateGroup(name="/a"), dataset("/b/c/d", values), dataset("/z", values, filters=GZIP)
            )
            assert (done.number, len(done.outcomes)) == (2, 3)
            assert same(await read(store, "/b/c/d"), values)
            assert same(await read(store, "/z"), values)
            root = await store.describe(FILE, "/", ANYBODY, Detail(depth=3))
            assert set(root.members) == {"a", "b", "z"}

        self.run(tmp_path, work)

    def test_numbers_of_commits_follow_each_other(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            numbers = [(await apply(store, CreateGroup(name=f"/{n}"))).number for n in range(5)]
            assert numbers == [2, 3, 4, 5, 6]
            assert (await store.state(FILE, ANYBODY)).commit == 6

        self.run(tmp_path, work)

    def test_a_batch_is_carried_out_completely_or_not_at_all(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, table("/t"), CreateGroup(name="/here"))
            for wrong in (
                Delete(name="/nothing"),
                CreateGroup(name="/here"),
                Write(name="/t", data=payload([1, 2])),
                Append(name="/t", data=payload("text")),
            ):
                with pytest.raises((NotFound, Exists, InvalidRequest, UnsupportedDType)):
                    await apply(store, Append(name="/t", data=payload([1], "<i4")), CreateGroup(name="/new"), wrong)
            assert (await read(store, "/t")).shape == (0,)
            root = await store.describe(FILE, "/", ANYBODY, Detail())
            assert set(root.members) == {"t", "here"}
            assert (await store.state(FILE, ANYBODY)).commit == 2

        self.run(tmp_path, work)

    def test_appends_say_where_they_landed(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, table("/t", "<i8"))
            done = await asyncio.gather(
                *(apply(store, Append(name="/t", data=payload([n] * 3, "<i8"))) for n in range(50))
            )
            rows = await read(store, "/t")
            assert rows.shape == (150,)
            for number, committed in enumerate(done):
                start = committed.outcomes[0].start
                assert start is not None
                assert rows[start : start + 3].tolist() == [number] * 3

        self.run(tmp_path, work)

    def test_an_append_with_a_key_replaces_rows(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            kind = np.dtype([("id", "<i4"), ("x", "<f8")])
            await apply(store, table("/t", kind))
            await apply(store, Append(name="/t", data=payload(np.array([(1, 1), (2, 2)], kind))))
            rows = np.array([(3, 3), (2, 20), (4, 4), (4, 40)], kind)
            (outcome,) = (await apply(store, Append(name="/t", data=payload(rows), key="id"))).outcomes
            assert (outcome.replaced, outcome.start, outcome.shape) == (1, 2, (4,))
            assert (await read(store, "/t")).tolist() == [(1, 1.0), (2, 20.0), (3, 3.0), (4, 40.0)]

        self.run(tmp_path, work)

    def test_keys_are_equal_when_their_values_are(self, tmp_path: Path) -> None:
        kind = np.dtype([("k", ">f8"), ("z", [("re", "<f4", (2,)), ("n", "<i2")]), ("x", "<i4")])

        async def work(store: Any) -> None:
            await apply(store, table("/t", kind))
            rows = np.array([(0.0, ([0.0, 1], 1), 1), (np.nan, ([2, 3], 1), 2)], kind)
            await apply(store, Append(name="/t", data=payload(rows)))
            rows["k"][0], rows["x"] = -0.0, (10, 20)
            (outcome,) = (await apply(store, Append(name="/t", data=payload(rows), key="k"))).outcomes
            assert (outcome.replaced, outcome.shape) == (2, (2,))
            rows["z"]["re"][0, 0], rows["x"] = -0.0, (100, 200)
            (outcome,) = (await apply(store, Append(name="/t", data=payload(rows), key="z"))).outcomes
            assert (outcome.replaced, outcome.shape) == (2, (2,))
            (outcome,) = (await apply(store, Append(name="/t", data=payload(rows[:0]), key="k"))).outcomes
            assert (outcome.replaced, outcome.shape, outcome.done) == (0, (2,), False)
            assert (await read(store, "/t"))["x"].tolist() == [100, 200]

        self.run(tmp_path, work)

    def test_insert_resize_and_fill(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, table("/t", "<i2", (2,), fill=np.int16(7).tobytes()))
            await apply(store, Append(name="/t", data=payload([[1, 2], [3, 4]], "<i2")))
            await apply(store, Insert(name="/t", index=1, data=payload([[9, 9]], "<i2")))
            assert (await read(store, "/t")).tolist() == [[1, 2], [9, 9], [3, 4]]
            await apply(store, Resize(name="/t", shape=(4, 2)))
            assert (await read(store, "/t")).tolist()[3] == [7, 7]
            with pytest.raises(InvalidRequest):
                await apply(store, Insert(name="/t", index=5, data=payload([[9, 9]], "<i2")))

        self.run(tmp_path, work)

    def test_links_are_moved_copied_and_deleted(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, dataset("/a/x", [1, 2, 3]), Link(name="/soft", target="/a/x"))
            await apply(store, Link(name="/hard", target="/soft", kind="hard"), Copy(name="/a", target="/b"))
            await apply(store, Write(name="/hard", data=payload(5)))
            assert (await read(store, "/soft")).tolist() == [5, 5, 5]
            assert (await read(store, "/b/x")).tolist() == [1, 2, 3]
            await apply(store, Move(name="/a/x", target="/moved"), Delete(name="/b"))
            assert (await read(store, "/moved")).tolist() == [5, 5, 5]
            for gone in ("/a/x", "/b/x", "/soft"):
                with pytest.raises(NotFound):
                    await read(store, gone)
            with pytest.raises(InvalidRequest):
                await apply(store, Move(name="/a", target="/a/b/c"))

        self.run(tmp_path, work)

    def test_attributes_of_all_kinds(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            values = {
                "number": payload(7, ">i4"),
                "text": payload("größer"),
                "texts": payload(["a", "bc"]),
                "record": payload(np.array([(1, 2.5)], [("a", "<i4"), ("b", ">f8")])),
                "nothing": Payload(dtype=from_numpy(np.dtype("<f4")), shape=None, data=None),
            }
            await apply(store, SetAttributes(name="/", values=values))
            await apply(store, SetAttributes(name="/", values={"number": payload("now text")}))
            node = await store.describe(FILE, "/", ANYBODY, Detail())
            assert set(node.attributes) == set(values)
            assert node.attributes["number"].value == [b"now text"]
            assert node.attributes["texts"].value == [b"a", b"bc"]
            assert node.attributes["nothing"].shape is None
            with pytest.raises(NotFound):
                await apply(store, DeleteAttributes(name="/", names=("number", "missing")))
            await apply(store, DeleteAttributes(name="/", names=("number",)))
            node = await store.describe(FILE, "/", ANYBODY, Detail())
            assert "number" not in node.attributes

        self.run(tmp_path, work)

    def test_chunks_are_stored_as_they_are(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            frames = np.arange(5 * 12, dtype=">u2").reshape(5, 3, 4)
            await apply(store, table("/f", ">u2", (3, 4), chunks=(1, 3, 4), fill=b"\x00\x07"))
            first = await apply(
                store, stored("/f", 0, frames[0]), stored("/f", 1, frames[1]), stored("/f", 4, frames[4])
            )
            assert [outcome.shape for outcome in first.outcomes] == [(1, 3, 4), (2, 3, 4), (5, 3, 4)]
            await apply(store, stored("/f", 2, frames[2]))
            found = await read(store, "/f")
            assert same(found[[0, 1, 2, 4]], frames[[0, 1, 2, 4]])
            assert (found[3] == 7).all()

        self.run(tmp_path, work)

    def test_the_last_chunk_may_reach_beyond_what_a_dataset_may_become(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            fixed = dataset("/fixed", np.zeros((5, 4), "<i4"), chunks=(2, 3))
            limited = CreateDataset(name="/limited", dtype=fixed.dtype, shape=(0, 4), maxshape=(5, 4), chunks=(2, 3))
            await apply(store, fixed, limited)
            row = np.arange(6, dtype="<i4")
            for name in ("/fixed", "/limited"):
                for start in ((4, 0), (4, 3)):
                    chunk = WriteChunk(name=name, start=start, data=payload(row.view("u1")))
                    done = await apply(store, chunk)
                    assert done.outcomes[0].shape == (5, 4)
                assert (await read(store, name))[4].tolist() == [0, 1, 2, 0]
                with pytest.raises(NDStreamError):
                    await apply(store, WriteChunk(name=name, start=(6, 0), data=payload(row.view("u1"))))

        self.run(tmp_path, work)

    def test_chunks_that_are_none_are_refused(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, table("/f", "<i4", (4,), chunks=(2, 3), filters=GZIP), dataset("/flat", [1, 2]))
            row = np.zeros(6, "<i4")
            for name, start, data, mask in (
                ("/flat", (0,), row, 0),  # not in chunks
                ("/f", (0,), row, 3),  # too few axes
                ("/f", (1, 0), row, 3),  # between two chunks
                ("/f", (-2, 0), row, 3),
                ("/f", (0, 6), row, 3),  # beyond an axis that does not grow
                ("/f", (0, 0), row[:5], 3),  # too few elements
                ("/f", (0, 0), row[:0], 0),  # nothing
                ("/f", (0, 0), row, 4),  # a filter that there is not
                ("/f", (0, 0), row, -1),
            ):
                chunk = WriteChunk(name=name, start=start, data=payload(data.view("u1")), mask=mask)
                with pytest.raises(NDStreamError) as error:
                    await apply(store, chunk)
                assert error.value.code in ("invalid", "bounds")
            with pytest.raises(InvalidRequest):
                await apply(store, WriteChunk(name="/f", start=(0, 0), data=payload(row), mask=3))
            assert (await read(store, "/f")).shape == (0, 4)
            done = await apply(store, WriteChunk(name="/f", start=(2, 3), data=payload(row.view("u1")), mask=3))
            assert done.outcomes[0].shape == (4, 4)

        self.run(tmp_path, work)

    def test_a_key_makes_a_batch_happen_once(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, table("/t"))
            batch = [Append(name="/t", data=payload([1], "<i4"))]
            both = await asyncio.gather(*(store.apply(FILE, WRITER, batch, key="once") for _ in range(5)))
            assert {done.number for done in both} == {3}
            assert sorted(done.repeated for done in both) == [False, True, True, True, True]
            assert (await store.apply(FILE, WRITER, batch, key="once")).repeated
            assert (await read(store, "/t")).tolist() == [1]

        self.run(tmp_path, work)

    def test_a_condition_is_the_number_of_the_last_commit(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await store.apply(FILE, WRITER, [CreateGroup(name="/a")], condition=1)
            with pytest.raises(Conflict):
                await store.apply(FILE, WRITER, [CreateGroup(name="/b")], condition=1)

        self.run(tmp_path, work)

    def test_a_condition_is_the_tag_of_a_state(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            known = await store.state(FILE, ANYBODY)
            done = await store.apply(FILE, WRITER, [CreateGroup(name="/a")], condition=known.tag)
            assert done.tag == (await store.state(FILE, ANYBODY)).tag != known.tag
            with pytest.raises(Conflict):
                await store.apply(FILE, WRITER, [CreateGroup(name="/b")], condition=known.tag)
            await store.apply(FILE, WRITER, [CreateGroup(name="/b")], condition=done.tag)
            await store.apply(FILE, WRITER, [CreateGroup(name="/c")], condition="*")
            with pytest.raises(NotFound):
                await store.apply("runs/none.h5", WRITER, [], condition=done.tag, create=True)

        self.run(tmp_path, work)

    def test_what_was_committed_is_not_held_to_its_condition_again(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            state = await store.state(FILE, ANYBODY)
            for number, condition in enumerate((state.tag, state.commit + 1)):
                batch = [CreateGroup(name=f"/{number}")]
                first = await store.apply(FILE, WRITER, batch, condition=condition, key=f"k{number}")
                again = await store.apply(FILE, WRITER, batch, condition=condition, key=f"k{number}")
                assert (again.number, again.repeated) == (first.number, True)

        self.run(tmp_path, work)

    def test_who_may_not_write_does_not(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            with pytest.raises(Forbidden):
                await store.apply(FILE, ANYBODY, [CreateGroup(name="/a")])
            with pytest.raises(NotFound):
                await store.apply("runs/other.h5", WRITER, [CreateGroup(name="/a")])
            with pytest.raises(NotFound):
                await store.apply("runs/other.h5", ANYBODY, [], create=True)

        self.run(tmp_path, work)

    def test_those_who_follow_hear_of_every_commit(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            heard: list[Event] = []

            async def follow() -> None:
                async for event in store.follow(FILE, ANYBODY, since=1):
                    heard.append(event)
                    if event.number == 5:
                        return

            following = asyncio.create_task(follow())
            await apply(store, table("/t"))
            for _ in range(3):
                await apply(store, Append(name="/t", data=payload([1, 2], "<i4")))
            await asyncio.wait_for(following, 20)
            assert [event.number for event in heard] == [2, 3, 4, 5]
            assert [change.appended for event in heard[1:] for change in event.changes] == [(0, 2), (2, 4), (4, 6)]

        self.run(tmp_path, work)

    def test_a_state_is_followed_by_its_tag(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            begin = (await store.state(FILE, ANYBODY)).tag
            tags = [(await apply(store, CreateGroup(name=f"/{n}"))).tag for n in range(3)]
            for known, expected in ((begin, tags), (tags[0], tags[1:])):
                events = store.follow(FILE, ANYBODY, since=known)
                found = [await asyncio.wait_for(anext(events), 20) for _ in expected]
                await events.aclose()
                assert ([event.tag for event in found], all(event.complete for event in found)) == (expected, True)
            # Between a state of another time and that of now anything may have happened, whatever its number.
            events = store.follow(FILE, ANYBODY, since="other.4")
            event = await asyncio.wait_for(anext(events), 20)
            await events.aclose()
            assert (event.number, event.complete, event.tag) == (4, False, tags[-1])

        self.run(tmp_path, work)

    def test_what_is_made_again_is_told_to_have_been_deleted(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, table("/t"), table("/other"))
            events = store.follow(FILE, ANYBODY)
            await apply(store, Delete(name="/t"), Move(name="/other", target="/t"))
            event = await asyncio.wait_for(anext(events), 20)
            await events.aclose()
            assert [(change.name, change.kind) for change in event.changes if change.name == "/t"] == [
                ("/t", "deleted"), ("/t", "created"),
            ]  # fmt: skip

        self.run(tmp_path, work)

    def test_every_selection_can_be_written(self, tmp_path: Path) -> None:
        shape = (5, 4, 3)
        examples = given(key=keys(shape), chunked=st.booleans(), compressed=st.booleans())
        limited = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

        async def work(store: Any) -> None:
            loop = asyncio.get_running_loop()

            def check(key: Any, chunked: bool, compressed: bool) -> None:
                asyncio.run_coroutine_threadsafe(_check_selection(store, key, chunked, compressed), loop).result()

            await asyncio.to_thread(limited(examples(check)))

        self.run(tmp_path, work)

    def test_data_is_broadcast_as_numpy_does_when_it_assigns(self, tmp_path: Path) -> None:
        async def work(store: Any) -> None:
            await apply(store, dataset("/x", np.zeros((2, 3), "<i4")), dataset("/one", np.int32(0)))
            for key, value in (((0,), [[1, 2, 3]]), ((1,), 4), ((1, 0), [[[5]]]), ((slice(None), 2), [[6]])):
                await apply(
                    store, Write(name="/x", data=payload(value, "<i4"), selection=to_plain(select(key, (2, 3))))
                )
            assert (await read(store, "/x")).tolist() == [[1, 2, 6], [5, 4, 6]]
            await apply(store, Write(name="/one", data=payload([[7]], "<i4")))
            assert (await read(store, "/one")).tolist() == 7
            for shape in ((3, 3), (3, 1), (2,), (2, 2, 3)):
                with pytest.raises(InvalidRequest, match="shape"):
                    await apply(store, Write(name="/x", data=payload(np.zeros(shape, "<i4"))))

        self.run(tmp_path, work)

    def test_any_operations_do_what_they_mean(self, tmp_path: Path) -> None:
        limited = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

        async def work(store: Any) -> None:
            loop = asyncio.get_running_loop()
            number = iter(range(1_000_000))

            def check(batches: list[list[Operation]]) -> None:
                path = f"runs/{next(number)}.h5"
                asyncio.run_coroutine_threadsafe(_compare(store, path, batches), loop).result()

            batches = st.lists(st.lists(operations(), min_size=1, max_size=3), min_size=1, max_size=12)
            await asyncio.to_thread(limited(given(batches=batches)(check)))

        self.run(tmp_path, work)


async def apply(store: Any, *operations: Operation) -> Committed:
    """Carry out a batch."""
    done: Committed = await store.apply(FILE, WRITER, operations)
    return done


def stored(name: str, row: int, frame: Any) -> WriteChunk:
    """Make the operation that stores one frame as it is."""
    return WriteChunk(name=name, start=(row, *(0 for _ in frame.shape)), data=payload(frame.reshape(-1).view("u1")))


async def read(store: Any, name: str, path: str = FILE) -> Any:
    """Read a dataset."""
    return await collect(await store.read(path, name, ANYBODY, None))


SHAPE = (5, 4, 3)


async def _check_selection(store: Any, key: Any, chunked: bool, compressed: bool) -> None:
    values = np.zeros(SHAPE, "<i4")
    options = {"chunks": (2, 3, 2) if chunked or compressed else None, "filters": GZIP if compressed else ()}
    await apply(store, Delete(name="/s", missing_ok=True), dataset("/s", values, **options))
    try:
        selection = select(key, SHAPE)
    except NDStreamError:
        return
    data = np.arange(1, selection.count + 1, dtype="<i4").reshape(selection.shape)
    where = selection.apply(np.arange(values.size).reshape(SHAPE)).reshape(-1)
    values.reshape(-1)[where] = data.reshape(-1)
    await apply(store, Write(name="/s", data=payload(data), selection=to_plain(selection)))
    assert same(await read(store, "/s"), values)


NAMES = st.sampled_from(["/a", "/b", "/g/a", "/g/h/b", "/g", "/l"])
ROWS = st.lists(st.integers(-5, 5), min_size=0, max_size=4).map(lambda rows: payload(rows, "<i4"))
TEXTS = st.lists(st.sampled_from(["", "a", "größer"]), min_size=1, max_size=2).map(payload)


def operations() -> st.SearchStrategy[Operation]:
    """Operations on a few names, many of which cannot be carried out."""
    made: list[st.SearchStrategy[Operation]] = [
        st.builds(CreateGroup, name=NAMES, exist_ok=st.booleans()),
        st.builds(table, NAMES, filters=st.sampled_from([(), GZIP]), exist_ok=st.booleans()),
        st.builds(lambda name, rows: dataset(name, np.frombuffer(rows.data, "<i4")), NAMES, ROWS),
        st.builds(
            lambda name, texts: CreateDataset(
                name=name, dtype=texts.dtype, shape=texts.shape, maxshape=(None,), data=texts
            ),
            NAMES,
            TEXTS,
        ),
        st.builds(Append, name=NAMES, data=ROWS),
        st.builds(Append, name=NAMES, data=TEXTS),
        st.builds(Insert, name=NAMES, index=st.integers(-1, 4), data=ROWS),
        st.builds(Write, name=NAMES, data=st.integers(-5, 5).map(lambda n: payload(n, "<i4"))),
        st.builds(Resize, name=NAMES, shape=st.tuples(st.integers(0, 6))),
        st.builds(Delete, name=NAMES, missing_ok=st.booleans()),
        st.builds(Move, name=NAMES, target=NAMES),
        st.builds(Copy, name=NAMES, target=NAMES),
        st.builds(Link, name=NAMES, target=NAMES, kind=st.sampled_from(["soft", "hard"])),
        st.builds(lambda name, rows: SetAttributes(name=name, values={"x": rows}), NAMES, st.one_of(ROWS, TEXTS)),
        st.builds(DeleteAttributes, name=NAMES, names=st.just(("x",)), missing_ok=st.booleans()),
    ]
    return st.one_of(made)


async def _compare(store: Any, path: str, batches: Sequence[Sequence[Operation]]) -> None:
    oracle = MemoryStore({"runs": {path.rpartition("/")[2]: Group()}})
    await store.apply(path, WRITER, [], create=True)
    await oracle.apply(path, WRITER, [])
    answers = await asyncio.gather(*(store.apply(path, WRITER, batch) for batch in batches), return_exceptions=True)
    for batch, answer in zip(batches, answers, strict=True):
        try:
            expected: Any = await oracle.apply(path, WRITER, batch)
        except NDStreamError as error:
            assert isinstance(answer, NDStreamError), (batch, answer, error)
            continue
        assert isinstance(answer, Committed)
        assert (answer.number, answer.outcomes) == (expected.number, expected.outcomes), batch
    await _same_file(store, oracle, path)


async def _same_file(store: Any, oracle: MemoryStore, path: str) -> None:
    detail = Detail(depth=5, wide=100)
    await _same_node(
        store, oracle, path, "/", await store.describe(path, "/", ANYBODY, detail),
        await oracle.describe(path, "/", ANYBODY, detail),
    )  # fmt: skip


async def _same_node(store: Any, oracle: MemoryStore, path: str, name: str, one: Any, other: Any) -> None:
    assert type(one) is type(other), name
    if isinstance(one, model.SoftLink | model.HardLink):
        assert one == other
        return
    assert one.attributes == other.attributes, name
    if isinstance(one, model.Dataset):
        assert (one.dtype, one.shape, one.maxshape) == (other.dtype, other.shape, other.maxshape), name
        assert same(await read(store, name, path), await read(oracle, name, path)), name
    elif isinstance(one, model.Group):
        assert set(one.members) == set(other.members), name
        for member in one.members:
            below = f"{name.rstrip('/')}/{member}"
            await _same_node(store, oracle, path, below, one.members[member], other.members[member])
