"""``put`` to a real server: what plain h5py reads from the served file afterwards is what was here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from tests.cli.conftest import Run

import ndstream
from ndstream.cli import upload
from ndstream.errors import ConnectionLost
from ndstream.testing.fixtures import ServerFactory

pytestmark = pytest.mark.keeps_open("the client keeps connections for the next request")

Written = Callable[[], Any]
Member = Callable[..., Any]


@pytest.fixture(scope="module")
def served(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("writable")
    (path / "below").mkdir()
    return ndstream_module_server(path, writable={"/": []}).url, path


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Name of a served file that is not there yet, or of a group in one that is: each test has its own."""
    return str(request.node.name.translate({ord(each): "-" for each in "[]:, /"}))


@pytest.fixture
def url(served: tuple[str, Path], name: str) -> str:
    """A file that is to be made. Each costs a process, so most tests put into groups of one file."""
    return f"{served[0]}/{name}.h5"


@pytest.fixture
def written(served: tuple[str, Path], name: str) -> Written:
    """Open the file of the test as other programs do, while the server has it."""
    return lambda: h5py.File(served[1] / f"{name}.h5", "r", locking=False)


@pytest.fixture
def group(served: tuple[str, Path], name: str) -> str:
    """A group that is to be made, of a file that all tests share."""
    return f"{served[0]}/shared.h5::/{name}"


@pytest.fixture
def member(served: tuple[str, Path], name: str) -> Iterator[Member]:
    """Look at something in that group with h5py, as it is now."""
    with ExitStack() as files:

        def look(below: str = "") -> Any:
            files.close()
            return files.enter_context(h5py.File(served[1] / "shared.h5", "r", locking=False))[f"{name}/{below}"]

        yield look


def _local(path: str = "local.h5") -> None:
    """A file with everything that can be copied."""
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "all of it"
        group = file.create_group("g")
        group.attrs["names"] = np.array(["eins", "zwei"], object)
        table = group.create_dataset(
            "table", data=np.arange(60.0).reshape(12, 5), chunks=(5, 2), maxshape=(None, 5), compression="gzip",
            shuffle=True, fillvalue=7,
        )  # fmt: skip
        table.attrs["units"] = "m"
        group["texts"] = np.array(["a", "zwei ü", ""], object)
        group["pairs"] = np.array([(1, 0.5), (2, 1.5)], np.dtype([("n", "i2"), ("x", ">f4")], align=True))
        group["ragged"] = np.array([np.arange(3), np.arange(0), np.arange(5)], h5py.vlen_dtype("i4"))
        colours = group.create_dataset("colours", (3,), h5py.enum_dtype({"RED": 1, "GREEN": 2}, "u1"))
        colours[...] = [1, 2, 1]
        frames = np.repeat(np.arange(4, dtype="u2"), 64).reshape(4, 8, 8)
        group.create_dataset("frames", data=frames, chunks=(1, 8, 8), **hdf5plugin.Bitshuffle())
        group.create_dataset("triples", (2,), np.dtype(("i4", (3,))))[...] = np.arange(6).reshape(2, 3)
        file["again"] = table
        file["soft"] = h5py.SoftLink("/g/table")
        file["nothing"] = h5py.Empty("f4")
        file["scalar"] = 7
        scale = group.create_dataset("scale", data=np.arange(12.0))
        scale.make_scale("row")
        table.dims[0].attach_scale(scale)
        file["refers"] = np.array([scale.ref, h5py.Reference()], h5py.ref_dtype)
        file.attrs["refers"] = np.array([scale.ref, file.ref], h5py.ref_dtype)


def _same(ours: Any, theirs: Any) -> None:
    assert (ours.dtype, ours.shape, ours.chunks, ours.maxshape) == (
        theirs.dtype,
        theirs.shape,
        theirs.chunks,
        theirs.maxshape,
    )
    assert ours._filters == theirs._filters
    assert set(ours.attrs) == set(theirs.attrs)
    if ours.shape is not None and not h5py.check_ref_dtype(ours.dtype):
        for one, other in zip(np.atleast_1d(ours[()]), np.atleast_1d(theirs[()]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_file_becomes_a_file(url: str, written: Written, run: Run) -> None:
    _local()
    done = run("put", "local.h5", url)
    assert (done.code, done.error) == (0, "")
    with h5py.File("local.h5") as here, written() as there:
        assert set(there) == set(here)
        assert set(there["g"]) == set(here["g"])
        assert there.attrs["title"] == "all of it"
        assert list(there["g"].attrs["names"]) == ["eins", "zwei"]
        for each in ("nothing", "scalar", "refers", *(f"g/{name}" for name in here["g"])):
            _same(there[each], here[each])
        assert there["g/table"].attrs["units"] == "m"
        assert there["g/table"].fillvalue == 7
        assert there["again"] == there["g/table"]
        assert there.get("soft", getlink=True).path == "/g/table"
        assert there[there["refers"][0]] == there["g/scale"]
        assert not there["refers"][1]
        assert [there[each] for each in there.attrs["refers"]] == [there["g/scale"], there["/"]]
        assert there["g/table"].dims[0][0] == there["g/scale"]


def test_a_file_gets_its_name_in_a_directory(served: tuple[str, Path], name: str, written: Written, run: Run) -> None:
    _local(f"{name}.h5")
    assert run("put", f"{name}.h5", served[0]).code == 0
    assert run("put", f"{name}.h5", f"{served[0]}/below/other.h5").code == 0
    with written() as there, h5py.File(served[1] / "below/other.h5", locking=False) as other:
        assert set(there) == set(other) == {"again", "g", "nothing", "refers", "scalar", "soft"}


def test_objects_get_the_name_that_is_given_or_their_own_in_a_group(group: str, member: Member, run: Run) -> None:
    _local()
    assert run("put", "local.h5::/g", f"{group}/h").code == 0
    assert run("put", "local.h5::/g/table", "local.h5::/scalar", group).code == 0
    assert run("put", "local.h5", group).code == 0
    new = member()
    with h5py.File("local.h5") as here:
        assert set(new) == {"h", "table", "scalar", "local"}
        _same(new["h/pairs"], here["g/pairs"])
        assert new["h/table"].dims[0][0] == new["h/scale"]
        # What it refers to was not copied with it.
        assert set(new["table"].attrs) == set(here["g/table"].attrs)
        assert set(new["local/g"]) == set(here["g"])


@pytest.mark.parametrize("values", [np.arange(60, dtype=">u2").reshape(4, 15), np.float32(2.5), np.array(["a", "bü"])])
def test_an_array_file_becomes_a_dataset(values: Any, group: str, member: Member, run: Run) -> None:
    np.save("part.npy", values)
    assert run("put", "part.npy", f"{group}/a/b").code == 0
    assert run("put", "part.npy", group).code == 0
    for each in ("a/b", "part"):
        stored = member(each)
        assert stored.dtype == (values.dtype if values.dtype.kind != "U" else object)
        np.testing.assert_array_equal(stored.asstr()[()] if values.dtype.kind == "U" else stored[()], values)


def test_parts_of_datasets_and_compression(group: str, member: Member, run: Run) -> None:
    _local()
    assert run("put", "local.h5::/g/table[2:9:3, ::-1]", group, "--compression", "gzip").code == 0
    with h5py.File("local.h5") as here:
        np.testing.assert_array_equal(member()[()], here["g/table"][()][2:9:3, ::-1])
    assert member().compression == "gzip"
    assert member().attrs["units"] == "m"
    assert "no compression" in run("put", "local.h5::/g/table[2:9]", f"{group}2", "--compression", "best").error


def test_long_copies_take_several_commits_and_appear_at_once(
    group: str, member: Member, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "BATCH", 5000)
    monkeypatch.setattr(upload, "_COUNT", 9)
    monkeypatch.setattr("ndstream.cli.replica.PIECE", 1000)
    monkeypatch.setattr("ndstream.cli.extract.PIECE", 1000)
    _local()
    values = np.random.default_rng(1).random((40, 40))
    np.save("values.npy", values)
    file = ndstream.open(group.partition("::")[0], mode="a")
    before = file.connection.apply("shared.h5", []).number
    assert run("put", "values.npy", f"{group}/values").code == 0
    assert run("put", "local.h5", f"{group}/copy").code == 0
    assert file.connection.apply("shared.h5", []).number > before + 5
    np.testing.assert_array_equal(member("values")[()], values)
    with h5py.File("local.h5") as here:
        assert set(member("copy")) == set(here)
        _same(member("copy/g/frames"), here["g/frames"])
    assert not any(each.startswith(".") for each in member().file)


def test_values_go_into_a_part_of_a_dataset(group: str, member: Member, run: Run) -> None:
    expected = np.zeros((6, 4), "i4")
    np.save("zeros.npy", expected)
    assert run("put", "zeros.npy", group).code == 0
    np.save("part.npy", np.arange(8).reshape(2, 4))
    assert run("put", "part.npy", f"{group}[1:5:2]").code == 0
    np.save("row.npy", np.arange(4) * 10)
    assert run("put", "row.npy", f"{group}[-1:]").code == 0
    expected[1:5:2], expected[-1:] = np.arange(8).reshape(2, 4), np.arange(4) * 10
    np.testing.assert_array_equal(member()[()], expected)
    done = run("put", "part.npy", f"{group}[:3]")
    assert done.code == 1
    assert "(2, 4) does not go into (3, 4)" in done.error
    np.testing.assert_array_equal(member()[()], expected)


def test_rows_are_appended(group: str, member: Member, run: Run) -> None:
    _local()
    assert run("put", "local.h5::/g/table", group).code == 0
    np.save("rows.npy", np.ones((3, 5)))
    np.save("row.npy", np.full(5, 2))
    assert run("put", "--append", "rows.npy", "row.npy", group).code == 0
    assert run("put", "--append", "local.h5::/g/table[:2]", group).code == 0
    whole = np.concatenate([np.arange(60.0), np.ones(15), np.full(5, 2), np.arange(10)]).reshape(-1, 5)
    np.testing.assert_array_equal(member()[()], whole)
    np.save("other.npy", np.ones((3, 5, 1)))
    assert "axes" in run("put", "--append", "other.npy", group).error


def test_nothing_is_replaced_unless_told(url: str, written: Written, run: Run) -> None:
    _local()
    np.save("x.npy", np.arange(3))
    assert run("put", "x.npy", f"{url}::/g").code == 0
    for arguments in (("local.h5", url), ("x.npy", f"{url}::/g")):
        done = run("put", *arguments)
        assert done.code == 1
        assert "--force" in done.error
    with written() as there:
        assert list(there) == ["g"]
        assert there["g"][()].tolist() == [0, 1, 2]
    assert run("put", "--force", "local.h5", url).code == 0
    with written() as there:
        assert there["g/table"].shape == (12, 5)


def test_links_out_of_the_file_are_left_out_and_told(
    group: str, member: Member, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with h5py.File("other.h5", "w") as file:
        file["x"] = 1
    with h5py.File("local.h5", "w") as file:
        file["beyond"] = h5py.ExternalLink("other.h5", "/x")
        file["lost"] = h5py.ExternalLink("nowhere.h5", "/x")
        file["kind"] = np.dtype("f8")
        file["stays"] = 1
    assert run("put", "local.h5", group).code == 0
    assert [each.getMessage().split()[0] for each in caplog.records] == ["/beyond", "/kind", "/lost"]
    assert list(member()) == ["stays"]


def test_what_fails_on_the_way_leaves_nothing_behind(
    group: str, member: Member, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", np.arange(3000.0))
    assert run("put", "x.npy", f"{group}/x").code == 0
    monkeypatch.setattr(upload, "BATCH", 4000)
    monkeypatch.setattr("ndstream.cli.extract.PIECE", 1000)
    connection = ndstream.open(group.partition("::")[0], mode="r+").connection
    commits = []
    apply = connection.apply

    def lose(path: str, operations: Any, **options: Any) -> Any:
        commits.append(operations)
        if len(commits) == 4:
            raise ConnectionLost("the cable was cut")
        return apply(path, operations, **options)

    monkeypatch.setattr(connection, "apply", lose)
    done = run("put", "x.npy", f"{group}/y")
    assert done.code == 1
    assert "the cable was cut" in done.error
    assert len(commits) == 5
    assert list(member()) == ["x"]
    assert not any(each.startswith(".") for each in member().file)


def test_what_is_interrupted_before_its_answer_leaves_nothing_behind(
    group: str, member: Member, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", np.arange(3.0))
    assert run("put", "x.npy", f"{group}/x").code == 0
    monkeypatch.setattr(upload, "_COUNT", 1)
    connection = ndstream.open(group.partition("::")[0], mode="r+").connection
    commits = []
    apply = connection.apply

    def interrupt(path: str, operations: Any, **options: Any) -> Any:
        commits.append(operations)
        committed = apply(path, operations, **options)
        if len(commits) == 1:
            raise KeyboardInterrupt
        return committed

    monkeypatch.setattr(connection, "apply", interrupt)
    assert run("put", "x.npy", f"{group}/y").code != 0
    assert len(commits) == 2
    assert list(member()) == ["x"]
    assert not any(each.startswith(".") for each in member().file)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("local.h5::/absent", "::/x", "absent"),
        ("absent.h5", "", "no such file"),
        ("absent.npy", "::/x", "absent.npy"),
        ("bad.npy", "::/x", "bad.npy"),
        ("good.npy::/x", "::/x", "no objects"),
        ("http://127.0.0.1:1/f.h5", "::/x", "get it first"),
        ("good.npy", "::/nothing[3]", "no dataset"),
        ("local.h5::/g[3]", "::/x", "no elements"),
    ],
)
def test_what_cannot_be_put_is_told_and_makes_no_file(
    source: str, target: str, reason: str, url: str, served: tuple[str, Path], name: str, run: Run
) -> None:
    _local()
    Path("bad.npy").write_bytes(b"no array")
    np.save("good.npy", np.arange(3))
    done = run("put", source, url + target)
    assert done.code == 1
    assert reason in done.error
    assert not (served[1] / f"{name}.h5").exists()


def test_places_that_are_none(served: tuple[str, Path], run: Run) -> None:
    np.save("x.npy", np.arange(3))
    for target, reason in [
        ("here.h5::/x", "on servers"),
        (f"{served[0]}/absent/f.h5::/x", "absent"),
        (f"{served[0]}/below::/x", "a directory has no objects"),
        (f"{served[0]}/below", "name an HDF5 file in it"),
    ]:
        done = run("put", "x.npy", target)
        assert done.code == 1
        assert reason in done.error


@pytest.mark.parametrize("pickled", [True, False])
def test_what_is_no_array_file_is_told_without_advice_to_trust_it(group: str, run: Run, pickled: bool) -> None:
    if pickled:
        np.save("bad.npy", np.array([{}], object), allow_pickle=True)
    else:
        Path("bad.npy").touch()
    done = run("put", "bad.npy", group)
    assert (done.code, done.error.startswith("ndstream: bad.npy: no .npy file of numbers, text or records")) == (
        1,
        True,
    )
