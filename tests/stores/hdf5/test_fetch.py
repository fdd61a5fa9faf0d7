"""Elements come through the library as they are stored, and never more than asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.dtypes import from_numpy, item_size
from ndstream.core.elements import flatten, restore
from ndstream.errors import Corrupt, InvalidSelection, OutOfBounds, TooLarge, UnsupportedDType, UnsupportedFilter

from .conftest import Asked

SHAPE = (4, 3, 5)
KINDS: dict[str, NDArray[Any]] = {
    "big": np.arange(60, dtype=">i4").reshape(SHAPE),
    "complex": np.arange(60).reshape(SHAPE).astype("<c16"),
    "record": np.array([(i, i / 2, b"x%d" % i) for i in range(60)], [("a", ">u2"), ("b", "<f8"), ("c", "S4")]).reshape(
        SHAPE
    ),
    "text": np.array([f"{i}" * (i % 4) for i in range(60)], h5py.string_dtype()).reshape(SHAPE),
}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boxes") / "f.h5"
    with h5py.File(path, "w") as file:
        for name, values in KINDS.items():
            file.create_dataset(name, data=values, chunks=(2, 2, 2))
    return path


@st.composite
def axes(draw: st.DrawFn) -> tuple[tuple[int, int, int], ...]:
    found = []
    for size in SHAPE:
        start, step = draw(st.integers(0, size - 1)), draw(st.integers(1, 3))
        found.append((start, draw(st.integers(0, (size - 1 - start) // step + 1)), step))
    return tuple(found)


@pytest.mark.keeps_open("Hypothesis asks many times in one test")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(kind=st.sampled_from(sorted(KINDS)), box=axes())
def test_any_box_is_what_numpy_takes(boxes: Path, kind: str, box: tuple[tuple[int, int, int], ...]) -> None:
    asked = Asked(boxes.parent)
    expected = KINDS[kind][tuple(slice(start, start + count * step, step) for start, count, step in box)]

    data = asked.fetch("f.h5", f"/{kind}", *box)
    asked.worker.close()

    if kind == "text":
        assert data == [text.encode() for text in expected.ravel()]
    else:
        assert data == expected.tobytes()


def test_scalars_have_one_element(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["number"] = np.int16(7)
        file["text"] = "seven"

    assert asked.fetch("f.h5", "/number") == b"\7\0"
    assert asked.fetch("f.h5", "/text") == [b"seven"]


def stored(asked: Asked, values: NDArray[Any]) -> NDArray[Any]:
    """What a dataset of `values` comes as, after the whole way."""
    with h5py.File(asked.root / "f.h5", "w") as file:
        dataset = file.create_dataset("d", data=values, dtype=values.dtype)
        dtype = from_numpy(dataset.dtype)
    data = asked.fetch("f.h5", "/d", *((0, size, 1) for size in values.shape))
    assert isinstance(data, list)
    return restore(data, dtype, values.shape)


def objects(items: list[Any], dtype: Any) -> NDArray[Any]:
    array: NDArray[Any] = np.empty(len(items), dtype)
    for index, item in enumerate(items):
        array[index] = item
    return array


RECORD = np.dtype([("id", ">i4"), ("text", h5py.string_dtype()), ("list", h5py.vlen_dtype(np.dtype("<f4")))])


@pytest.mark.parametrize(
    "values",
    [
        objects([np.array([1, 2], ">i4"), np.array([], ">i4"), np.array([3], ">i4")], h5py.vlen_dtype(np.dtype(">i4"))),
        objects([np.array([b"a", b"bc"], object), np.array([], object)], h5py.vlen_dtype(h5py.string_dtype())),
        objects([(1, b"one", np.array([1.5], "<f4")), (2, b"", np.array([], "<f4"))], RECORD),
    ],
    ids=["sequence", "sequence of text", "record"],
)
def test_variable_elements_survive_the_whole_way(asked: Asked, values: NDArray[Any]) -> None:
    dtype = from_numpy(values.dtype)

    assert flatten(stored(asked, values), dtype) == flatten(values, dtype)


def test_fixed_members_of_variable_records_keep_their_bytes(asked: Asked) -> None:
    """Bit fields and padded strings, which numpy cannot say, among members of variable length."""
    padded = h5t.C_S1.copy()
    padded.set_size(4)
    padded.set_strpad(h5t.STR_SPACEPAD)
    record = h5t.create(h5t.COMPOUND, 32)
    for offset, (name, kind) in enumerate({b"bits": h5t.STD_B16BE, b"pad": padded, b"text": None}.items()):
        record.insert(name, 8 * offset, kind or h5t.py_create(h5py.string_dtype(), logical=True))
    with h5py.File(asked.root / "f.h5", "w") as file:
        h5d.create(file.id, b"d", record, h5s.create_simple((2,)))

    assert asked.fetch("f.h5", "/d", (0, 2, 1)) == [[b"\0\0", b"\0\0\0\0", b""]] * 2


def test_sequences_of_records(asked: Asked) -> None:
    inner = np.dtype([("a", "<i2"), ("b", ">f4")])
    with h5py.File(asked.root / "f.h5", "w") as file:
        dataset = file.create_dataset("d", (2,), h5py.vlen_dtype(inner))
        dataset[0] = np.array([(1, 2.5), (3, 4.5)], inner)

    assert asked.fetch("f.h5", "/d", (0, 2, 1)) == [np.array([(1, 2.5), (3, 4.5)], inner).tobytes(), b""]


def test_what_h5py_cannot_convert_is_refused(asked: Asked) -> None:
    inner = np.dtype([("a", "<i2"), ("b", h5py.string_dtype())])
    with h5py.File(asked.root / "f.h5", "w") as file:
        file.create_dataset("sequence", (2,), h5py.vlen_dtype(inner))
        h5d.create(file.id, b"time", h5t.UNIX_D32LE, h5s.create_simple((2,)))

    for name in ("/sequence", "/time"):
        with pytest.raises(UnsupportedDType):
            asked.fetch("f.h5", name, (0, 2, 1))


@pytest.mark.parametrize("code", ["<f4", "<i4"])
def test_odd_widths_are_converted(asked: Asked, code: str) -> None:
    if code == "<f4":
        kind = h5t.IEEE_F32LE.copy()  # bfloat16
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
    else:
        kind = h5t.STD_I32BE.copy()
        kind.set_precision(24)
        kind.set_size(3)
    values = np.array([1, -2, 96], code)
    record = h5t.create(h5t.COMPOUND, 16)
    record.insert(b"odd", 3, kind)
    with h5py.File(asked.root / "f.h5", "w") as file:
        h5d.create(file.id, b"d", kind, h5s.create_simple((3,))).write(h5s.ALL, h5s.ALL, values)
        h5d.create(file.id, b"r", record, h5s.create_simple((2,)))

    assert asked.fetch("f.h5", "/d", (0, 3, 1)) == values.tobytes()
    assert asked.fetch("f.h5", "/r", (0, 2, 1)) == bytes(8)


def test_sequences_of_odd_widths_are_converted_or_refused_but_never_wrong(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        for name, base in {"little": h5t.IEEE_F32LE, "big": h5t.IEEE_F32BE}.items():
            kind = base.copy()  # bfloat16
            kind.set_fields(15, 7, 8, 0, 7)
            kind.set_size(2)
            h5d.create(file.id, name.encode(), h5t.vlen_create(kind), h5s.create_simple((1,)))
        kind = h5t.STD_I32LE.copy()
        kind.set_precision(24)
        kind.set_size(3)
        h5d.create(file.id, b"integers", h5t.vlen_create(kind), h5s.create_simple((1,)))
        file["little"][0] = np.array([1, -2], "<f4")

    assert asked.fetch("f.h5", "/little", (0, 1, 1)) == [np.array([1, -2], "<f4").tobytes()]
    for name in ("/big", "/integers"):
        with pytest.raises(UnsupportedDType):
            asked.fetch("f.h5", name, (0, 1, 1))


@pytest.mark.parametrize(
    ("box", "error"),
    [
        ([(0, 5, 1), (0, 3, 1)], OutOfBounds),
        ([(3, 2, 1), (0, 3, 1)], OutOfBounds),
        ([(0, 3, 2), (0, 3, 1)], OutOfBounds),
        ([(4, 0, 1), (9, 0, 1)], None),
        ([(-1, 1, 1), (0, 3, 1)], InvalidSelection),
        ([(0, -1, 1), (0, 3, 1)], InvalidSelection),
        ([(0, 1, 0), (0, 3, 1)], InvalidSelection),
        ([(0, 4, 1)], InvalidSelection),
        ([], InvalidSelection),
        ([(0, 2**62, 2**62), (0, 3, 1)], OutOfBounds),
    ],
)
def test_boxes_that_do_not_fit_are_refused(
    asked: Asked, box: list[tuple[int, int, int]], error: type[Exception] | None
) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["d"] = np.zeros((4, 3))

    if error is None:
        assert asked.fetch("f.h5", "/d", *box) == b""
    else:
        with pytest.raises(error):
            asked.fetch("f.h5", "/d", *box)


def test_a_null_dataspace_has_no_elements(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["d"] = h5py.Empty("<f4")

    with pytest.raises(InvalidSelection):
        asked.fetch("f.h5", "/d")


def test_no_answer_is_longer_than_allowed(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file.create_dataset("d", (1 << 40,), "<f8", chunks=(1024,))
        file.create_dataset("text", data=["x" * 1000] * 5000, dtype=h5py.string_dtype())
        file.create_dataset("short", data=["x"] * 5000, dtype=h5py.string_dtype())

    assert len(asked.fetch("f.h5", "/d", (0, 100, 1), most=800)) == 800
    for count in (101, 1 << 40):
        with pytest.raises(TooLarge):
            asked.fetch("f.h5", "/d", (0, count, 1), most=800)
    with pytest.raises(TooLarge):
        asked.fetch("f.h5", "/text", (0, 5000, 1), most=1 << 20)
    assert asked.fetch("f.h5", "/short", (0, 5000, 1), most=1 << 20) == [b"x"] * 5000


def test_a_missing_filter_has_its_own_error(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(9999, h5py.h5z.FLAG_OPTIONAL, ())
        h5d.create(file.id, b"d", h5t.STD_I32LE, h5s.create_simple((4,)), plist).write_direct_chunk((0,), bytes(16))

    with pytest.raises(UnsupportedFilter):
        asked.fetch("f.h5", "/d", (0, 4, 1))


def test_a_damaged_chunk_is_corrupt(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        dataset = file.create_dataset("d", (1000,), "<i4", chunks=(1000,), compression="gzip")
        dataset.id.write_direct_chunk((0,), b"not deflate at all")

    with pytest.raises(Corrupt):
        asked.fetch("f.h5", "/d", (0, 1000, 1))


def test_references_are_paths(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        for number in range(10):
            file.create_group(f"group{number}")
        refs = [file[f"group{number}"].ref for number in range(10)]
        file.create_dataset("refs", data=np.array(refs, h5py.ref_dtype))
        scales = np.dtype([("dataset", h5py.ref_dtype), ("dimension", "<i4")])
        file.create_dataset("record", (1,), scales)[0] = (refs[3], 1)
        file.create_dataset("sequence", (1,), h5py.vlen_dtype(h5py.ref_dtype))[0] = np.array(refs[:2], h5py.ref_dtype)

    assert asked.fetch("f.h5", "/refs", (0, 10, 1)) == [f"/group{number}" for number in range(10)]
    assert asked.fetch("f.h5", "/record", (0, 1, 1)) == [["/group3", b"\1\0\0\0"]]
    assert asked.fetch("f.h5", "/sequence", (0, 1, 1)) == [["/group0", "/group1"]]


def test_sizes_of_what_comes_are_those_of_the_type(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        for name, values in KINDS.items():
            file[name] = values

    for name, values in KINDS.items():
        dtype = from_numpy(values.dtype)

        data = asked.fetch("f.h5", f"/{name}", (0, 1, 1), (0, 1, 1), (0, 2, 1))

        assert len(data) == 2 * (item_size(dtype) or 1)
