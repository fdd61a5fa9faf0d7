"""One process for a file that many write: what is wrong with the batch of one is nobody else's trouble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.core.dtypes import from_numpy
from ndstream.core.operations import Append, CreateGroup, Delete, Operation, Outcome, Payload, SetAttributes
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
