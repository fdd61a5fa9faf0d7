"""``get`` against a real server: what arrives is what h5py reads from the served file."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from tests.cli.conftest import Run, Tree

pytestmark = pytest.mark.keeps_open("the client keeps connections for the next request")


def test_a_file_arrives_as_it_is(tree: Tree, run: Run) -> None:
    assert run("get", tree.file).code == 0
    assert Path("a.h5").read_bytes() == (tree.path / "runs/a.h5").read_bytes()
    assert run("get", f"{tree.file}::/", "-o", "root.h5").code == 0
    assert Path("root.h5").read_bytes() == (tree.path / "runs/a.h5").read_bytes()


@pytest.mark.parametrize("selection", ["", "[3]", "[2:9:3, ::-1]", "[[4, 0, 4], 1:3]", "[0:0]"])
def test_a_part_becomes_an_array_file(selection: str, tree: Tree, run: Run) -> None:
    assert run("get", f"{tree.file}::/g/table{selection}", "-o", "part.npy").code == 0
    with h5py.File(tree.path / "runs/a.h5") as file:
        expected = eval(f"array{selection}", {"array": file["g/table"][:]})
    got = np.load("part.npy")
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["g/big", "g/pairs", "g/vectors", "scalar"])
def test_array_files_keep_the_element_type(name: str, tree: Tree, run: Run) -> None:
    assert run("get", f"{tree.file}::/{name}", "-o", "whole.npy").code == 0
    with h5py.File(tree.path / "runs/a.h5") as file:
        expected = np.asarray(file[name][()])
    got = np.load("whole.npy")
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_a_dataset_becomes_an_hdf5_file_with_its_storage(tree: Tree, run: Run) -> None:
    assert run("get", f"{tree.file}::/g/table", "-o", "table.h5").code == 0
    with h5py.File("table.h5") as copied, h5py.File(tree.path / "runs/a.h5") as served:
        ours, theirs = copied["table"], served["g/table"]
        np.testing.assert_array_equal(ours[:], theirs[:])
        assert (ours.dtype, ours.chunks, ours.compression) == (theirs.dtype, theirs.chunks, theirs.compression)
        assert dict(ours.attrs) == dict(theirs.attrs)


def test_filters_of_the_filters_extra_are_kept(tree: Tree, run: Run) -> None:
    assert run("get", f"{tree.file}::/g/frames", "-o", "frames.h5").code == 0
    with h5py.File("frames.h5") as copied:
        with h5py.File(tree.path / "runs/a.h5") as served:
            assert copied["frames"]._filters == served["g/frames"]._filters
        assert list(copied["frames"]._filters) == [str(hdf5plugin.Bitshuffle.filter_id)]
        assert copied["frames"][3].tolist() == [[3] * 8] * 8


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("selection", ["[2:9:3, ::-1]", "[3]", "[0:0]", "[..., 0]"])
def test_a_part_becomes_an_hdf5_file(selection: str, local: bool, tree: Tree, run: Run) -> None:
    place = tree.path / "runs/a.h5" if local else tree.file
    assert run("get", f"{place}::/g/table{selection}", "-o", "part.h5").code == 0
    with h5py.File("part.h5") as copied, h5py.File(tree.path / "runs/a.h5") as served:
        expected = eval(f"array{selection}", {"array": served["g/table"][:]})
        assert copied["table"].dtype == expected.dtype
        np.testing.assert_array_equal(copied["table"][()], expected)
        assert copied["table"].attrs["units"] == "m"


def test_a_part_of_vectors_becomes_an_hdf5_file(tree: Tree, run: Run) -> None:
    assert run("get", f"{tree.file}::/g/vectors[1:3]", "-o", "part.h5").code == 0
    with h5py.File("part.h5") as copied:
        assert copied["vectors"][()].tolist() == [[3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("local", [False, True])
def test_a_group_becomes_an_hdf5_file(local: bool, tree: Tree, run: Run) -> None:
    place = tree.path / "runs/a.h5" if local else tree.file
    assert run("get", f"{place}::/g", "-o", "group.h5").code == 0
    with h5py.File("group.h5") as copied, h5py.File(tree.path / "runs/a.h5") as served:
        assert copied["g"].attrs["title"] == "a group"
        assert set(copied["g"]) == set(served["g"])
        for name in served["g"]:
            np.testing.assert_array_equal(copied["g"][name][()], served["g"][name][()])


def test_a_directory_becomes_a_directory(tree: Tree, run: Run) -> None:
    assert run("get", tree.url, "-o", "all").code == 0
    assert sorted(str(path.relative_to("all")) for path in Path("all").rglob("*")) == ["README.md", "runs", "runs/a.h5"]
    assert Path("all/runs/a.h5").read_bytes() == (tree.path / "runs/a.h5").read_bytes()


def test_a_directory_becomes_a_tar_file(tree: Tree, run: Run) -> None:
    assert run("get", f"{tree.url}/runs", "-o", "runs.tar").code == 0
    with tarfile.open("runs.tar") as archive:
        assert archive.getnames() == ["runs/a.h5"]
    assert run("get", f"{tree.url}/runs", "-o", "-").raw == Path("runs.tar").read_bytes()


def test_names_are_found_for_what_has_none_given(tree: Tree, run: Run) -> None:
    Path("here").mkdir()
    assert run("get", f"{tree.file}::/g/table", f"{tree.file}::/g", tree.file, "-o", "here").code == 0
    assert sorted(path.name for path in Path("here").iterdir()) == ["a.h5", "g.h5", "table.npy"]


def test_standard_output_is_a_place(tree: Tree, run: Run) -> None:
    got = np.load(io.BytesIO(run("get", f"{tree.file}::/g/table", "-o", "-").raw))
    assert got.shape == (12, 5)
    assert run("get", f"{tree.url}/README.md", "-o", "-").out == "What is here\n"


def test_nothing_is_replaced_unless_told(tree: Tree, run: Run) -> None:
    Path("part.npy").write_text("mine")
    done = run("get", f"{tree.file}::/g/table", "-o", "part.npy")
    assert done.code == 1
    assert "--force" in done.error
    assert Path("part.npy").read_text() == "mine"
    assert run("get", "--force", f"{tree.file}::/g/table", "-o", "part.npy").code == 0
    assert np.load("part.npy").shape == (12, 5)


def test_a_directory_that_is_there_is_filled_when_told(tree: Tree, run: Run) -> None:
    Path("all/all").mkdir(parents=True)
    Path("all/runs").mkdir()
    Path("all/runs/a.h5").write_text("old")
    assert run("get", f"{tree.url}/runs", "-o", "all").code == 1
    assert run("get", "--force", f"{tree.url}/runs", "-o", "all").code == 0
    assert Path("all/runs/a.h5").read_bytes() == (tree.path / "runs/a.h5").read_bytes()


@pytest.mark.parametrize(
    ("place", "output", "reason"),
    [
        ("/runs/a.h5::/g/names", "names.npy", "variable length"),
        ("/runs/a.h5::/g", "g.npy", "written as .h5"),
        ("/runs/a.h5::/g/table", "table.txt", ".npy or .h5"),
        ("/runs/a.h5::/g", "-", "cannot be a stream"),
        ("/runs/a.h5::/g/table[99]", "part.npy", "99"),
        ("/README.md", "absent/README.md", "no directory"),
        ("", ".", "no name"),
    ],
)
def test_what_cannot_be_copied_leaves_nothing_behind(
    place: str, output: str, reason: str, tree: Tree, run: Run
) -> None:
    done = run("get", tree.url + place, "-o", output)
    assert done.code == 1
    assert reason in done.error
    assert list(Path().iterdir()) == []


def _start(*arguments: str, **options: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "ndstream", *arguments], stderr=subprocess.PIPE, **options)  # type: ignore[call-overload, no-any-return]  # Popen's overloads do not see through **options


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(tree: Tree) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    with _start("cat", "--all", f"{tree.file}::/g/big", stdout=writable) as process:
        os.close(writable)
        _, error = process.communicate()
    assert error == b""
    assert process.returncode == 1


def test_numbers_of_an_enumeration_become_an_array_file(run: Run) -> None:
    with h5py.File("local.h5", "w") as file:
        file["state"] = np.array([0, 1, 1], h5py.enum_dtype({"off": 0, "on": 1}, "i2"))
    assert run("get", "local.h5::/state", "-o", "state.npy").error == ""
    assert np.load("state.npy").tolist() == [0, 1, 1]


def test_a_pipe_is_not_waited_for(run: Run) -> None:
    os.mkfifo("pipe")
    assert run("ls", "pipe").error == "ndstream: pipe: a pipe is no HDF5 file\n"


def test_dates_become_an_array_file(run: Run) -> None:
    dates = np.array(["2020-01-01", "1969-12-31"], "M8[s]")
    with h5py.File("local.h5", "w") as file:
        file["dates"] = dates.astype(h5py.opaque_dtype(dates.dtype))
    assert run("get", "local.h5::/dates", "-o", "dates.npy").error == ""
    np.testing.assert_array_equal(np.load("dates.npy"), dates)
    assert run("cat", "--raw", "local.h5::/dates").raw == dates.tobytes()
