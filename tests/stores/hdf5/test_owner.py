"""One process for a file that many write: what is wrong with the batch of one is nobody else's trouble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5f, h5o

from ndstream.core.dtypes import Array, from_numpy
from ndstream.core.model import Filter
from ndstream.core.operations import (
    Append,
    Copy,
    CreateDataset,
    CreateGroup,
    Delete,
    Operation,
    Outcome,
    Payload,
    Resize,
    SetAttributes,
    Write,
)
from ndstream.stores.hdf5.messages import Describe, Done, Refused
from ndstream.stores.hdf5.writer import Writer
from ndstream.testing.payloads import dataset, payload, table

from .conftest import Owning


@pytest.fixture
def owning(tmp_path: Path) -> Iterator[Owning]:
    owning = Owning(tmp_path / "a.h5")
    yield owning
    owning.close()


@pytest.mark.parametrize("changed", [False, True])
def test_a_mistake_of_ours_is_told_to_one_and_logged(
    owning: Owning, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changed: bool
) -> None:
    right = Writer.carry_out

    def wrong(writer: Writer, operation: Operation) -> Outcome:
        if getattr(operation, "name", "") == "/wrong":
            if changed:
                right(writer, operation)
            raise ZeroDivisionError
        return right(writer, operation)

    owning.apply(table("/t", "<i8"))
    row: Any = [Append(name="/t", data=payload([1], "<i8"))]
    monkeypatch.setattr(Writer, "carry_out", wrong)
    results = owning.commit(row, [CreateGroup(name="/g")], [CreateGroup(name="/wrong")], row)
    assert [type(result) for result in results] == [Done, Done, Refused]  # the last one comes with the next commit
    assert isinstance(results[2], Refused)
    assert "ZeroDivisionError" in results[2].message
    assert caplog.records[0].exc_info is not None
    owning.commit(row)
    with h5py.File(owning.path, locking=False) as file:
        assert sorted(file) == ["g", "t"]
        assert np.array_equal(file["t"], [1, 1])


def test_who_looks_at_a_reference_to_nothing_is_not_in_the_way_of_writers(owning: Owning) -> None:
    reference = Payload(dtype=from_numpy(h5py.ref_dtype), shape=(), data=["/x"])
    owning.apply(dataset("/x", range(5)), SetAttributes(name="/", values={"r": reference}))
    owning.apply(Delete(name="/x"))
    described = owning.answer(Describe(target=owning.target(), depth=0, wide=20, data=0))
    assert described.node.attributes["r"].value == [None]
    owning.apply(dataset("/y", [1]))
    owning.apply(dataset("/z", [2]))
    with h5py.File(owning.path, locking=False) as file:
        assert {name: each[:].tolist() for name, each in file.items()} == {"y": [1], "z": [2]}


_GAPS = np.dtype({"names": ["a", "b"], "formats": [">i2", "<f8"], "offsets": [2, 8], "itemsize": 24})


@pytest.mark.parametrize("dtype", [">i8", "<i8", ">f4", ">c8", "?", "S3", [("a", ">u2"), ("b", "<f8")], _GAPS])
def test_what_many_append_at_once_is_what_each_has_sent(owning: Owning, dtype: Any) -> None:
    kind = np.dtype(dtype)
    rows = np.zeros(5, kind)
    for column in [rows[name] for name in kind.names] if kind.names else [rows]:
        column[...] = [1, 0, 3, 4, 5]
    owning.apply(table("/t", kind))
    some = [[Append(name="/t", data=payload(rows[part]))] for part in (slice(2), slice(2, 2), slice(2, 5))]
    results = owning.commit(*some)
    assert [isinstance(result, Done) and result.outcomes[0] for result in results] == [
        Outcome(shape=(2,), start=0),
        Outcome(shape=(2,), start=2, done=False),
        Outcome(shape=(5,), start=2),
    ]
    changes = [isinstance(result, Done) and [change.appended for change in result.changes] for result in results]
    assert changes == [[(0, 2)], [], [(2, 5)]]
    with h5py.File(owning.path, locking=False) as file:
        assert np.array_equal(file["t"][:], rows)


@pytest.mark.parametrize("inner", [(1,), (3,)])
def test_arrays_as_elements_are_appended_by_many_at_once(owning: Owning, inner: tuple[int, ...]) -> None:
    dtype = Array(base=from_numpy(np.dtype(">i4")), shape=inner)
    rows = np.arange(4 * inner[0], dtype=">i4").reshape(4, *inner)
    owning.apply(CreateDataset(name="/t", dtype=dtype, shape=(0,), maxshape=(None,)))
    each = [Append(name="/t", data=Payload(dtype=dtype, shape=(1,), data=row.tobytes())) for row in rows]
    assert all(isinstance(result, Done) for result in owning.commit(*([append] for append in each)))
    with h5py.File(owning.path, locking=False) as file:
        assert np.array_equal(file["t"][:], rows)


def test_elements_of_which_a_filter_makes_nothing_are_refused_and_forgotten(owning: Owning) -> None:
    szip = (Filter(id=4, name="szip", options=(141, 32)),)  # not optional, as few programs have it
    noise = np.random.default_rng(1).integers(0, 256, 100, "u1")
    flat = np.zeros(100, "u1")
    owning.apply(table("/t", "u1", chunks=(64,), filters=szip), CreateGroup(name="/g"))
    files = h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_FILE)
    some: list[list[Operation]] = [
        [Append(name="/t", data=payload(noise))],
        [Append(name="/t", data=payload(noise)), CreateGroup(name="/h")],
        [dataset("/n", noise, chunks=(64,), filters=szip)],
    ]
    for wrong in some:
        good: Any = [Append(name="/t", data=payload(flat))]
        results = owning.commit(good, wrong)
        assert [type(result) for result in results] == [Done, Refused]
        assert isinstance(results[1], Refused)
        assert results[1].code == "invalid"
    assert h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_FILE) == files  # none that the library cannot close any more
    with h5py.File(owning.path, locking=False) as file:
        assert sorted(file) == ["g", "t"]
        assert np.array_equal(file["t"], np.zeros(300, "u1"))


def test_what_is_left_of_a_chunk_has_to_pass_its_filters(owning: Owning) -> None:
    szip = (Filter(id=4, name="szip", options=(141, 32)),)
    noise = np.random.default_rng(1).integers(0, 256, 64, "u1")
    noise[16:] = 0
    owning.apply(dataset("/t", noise, maxshape=(None,), chunks=(64,), filters=szip, fill=b"\0"))
    owning.apply(Resize(name="/t", shape=(16,)), CreateGroup(name="/g"))
    with h5py.File(owning.path, locking=False) as file:
        assert np.array_equal(file["t"], noise[:16])


def test_lzf_stores_as_it_is_what_does_not_become_shorter(owning: Owning) -> None:
    noise = np.random.default_rng(1).integers(0, 256, 100, "u1")
    owning.apply(table("/t", "u1", chunks=(64,), filters=(Filter(id=32000, name="lzf"),)))
    for number in range(3):
        owning.apply(Append(name="/t", data=payload(noise)), CreateGroup(name=f"/{number}"))
    with h5py.File(owning.path, locking=False) as file:
        assert np.array_equal(file["t"], np.tile(noise, 3))


@pytest.mark.parametrize("name", ["/t", "/g"])
def test_the_library_has_no_decoded_chunks_of_what_it_copies(
    owning: Owning, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # It would write beyond its memory, which is not always noticed.
    packed = Filter(id=1, name="deflate", options=(1,))
    filters = (Filter(id=2, name="shuffle"), packed, Filter(id=3, name="fletcher32"))
    opened = []

    class Watched:
        def __getattr__(self, function: str) -> Any:
            return getattr(h5o, function)

        def copy(self, source: Any, *rest: Any, **options: Any) -> None:
            opened.append(h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_DATASET) - isinstance(source, h5py.h5d.DatasetID))
            h5o.copy(source, *rest, **options)

    monkeypatch.setattr("ndstream.stores.hdf5.writer.h5o", Watched())
    owning.apply(table("/t", "<i4", chunks=(16,), filters=filters), CreateGroup(name="/g"))
    owning.apply(table("/g/t", "<i4", chunks=(16,), filters=filters))
    rows = payload(np.arange(40, dtype="<i4"))
    before = h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_DATASET)
    owning.apply(
        Append(name="/t", data=rows),
        Append(name="/g/t", data=rows),
        Write(name="/t", data=payload(5, "<i4"), selection={"axes": [[3, 7, 1]]}),
        Copy(name=name, target="/copy"),
    )
    assert opened == [before]
    with h5py.File(owning.path, locking=False) as file:
        copied, source = (file["copy"], file["t"]) if name == "/t" else (file["copy/t"], file["g/t"])
        assert np.array_equal(copied, source)
