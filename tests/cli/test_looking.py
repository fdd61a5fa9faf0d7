"""``ls``, ``info`` and ``cat`` against a real server, with h5py and numpy as oracles."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
from tests.cli.conftest import Run, Tree

pytestmark = pytest.mark.keeps_open("the client keeps connections for the next request")


def test_directories_are_listed(tree: Tree, run: Run) -> None:
    assert run("ls", tree.url).out == "runs/\nREADME.md\n"
    assert run("ls", f"{tree.url}/runs").out == "a.h5\n"


def test_the_long_form_tells_sizes(tree: Tree, run: Run) -> None:
    lines = run("ls", "-l", "-R", tree.url).out.splitlines()
    assert [line.split()[-1] for line in lines] == ["runs/", "runs/a.h5", "README.md"]
    assert lines[2].split()[:2] == ["13", "B"]


def test_files_and_groups_are_listed_with_what_links_lead_to(tree: Tree, run: Run) -> None:
    assert run("ls", tree.file).out.splitlines() == [
        "dangling", "g/", "kind", "nothing", "outside", "scalar", "soft",
    ]  # fmt: skip
    shown = {line.split()[-1]: line for line in run("ls", "-l", tree.file).out.splitlines()}
    assert "soft link" in shown["/nowhere"]
    assert "external link" in shown["other.h5::/x"]
    assert shown["kind"].startswith("datatype")
    assert shown["nothing"].startswith("null float32")
    assert shown["scalar"].startswith("() int64")


def test_types_are_named_for_people(tree: Tree, run: Run) -> None:
    shown = {
        line.split()[-1]: line.rpartition("  ")[0].strip()
        for line in run("ls", "-l", f"{tree.file}::/g").out.splitlines()
    }
    assert shown == {
        "big": "(100, 200) >u4",
        "cube": "(2, 3, 4) int16",
        "frames": "(4, 8, 8) uint16",
        "names": "(2) str",
        "pairs": "(2) {n: int32, x: float32}",
        "table": "(12, 5) float64",
        "vectors": "(4) int32[3]",
    }


def test_a_listing_goes_into_groups_and_not_through_links(tree: Tree, run: Run) -> None:
    names = run("ls", "-R", tree.file).out.splitlines()
    assert {"g/", "g/table", "soft"} <= set(names)
    assert not [name for name in names if name.startswith("soft/")]


def test_a_listing_is_json_for_programs(tree: Tree, run: Run) -> None:
    entries = json.loads(run("ls", "--json", f"{tree.file}::/g").out)
    assert {entry["path"]: entry.get("shape") for entry in entries}["table"] == [12, 5]
    assert set(json.loads(run("ls", "--json", tree.url, tree.file).out)) == {tree.url, tree.file}
    assert json.loads(run("ls", "--json", f"{tree.url}/runs").out)[0]["modified"].endswith("+00:00")


def test_local_files_are_listed_in_the_same_way(tree: Tree, run: Run) -> None:
    local = tree.path / "runs/a.h5"
    assert run("ls", "-lR", f"{local}::/g").out == run("ls", "-lR", f"{tree.file}::/g").out
    assert run("ls", local).out == run("ls", tree.file).out


def test_a_dataset_is_described(tree: Tree, run: Run) -> None:
    found = json.loads(run("info", "--json", f"{tree.file}::/g/table").out)
    assert found == {
        "url": f"{tree.file}::/g/table",
        "kind": "dataset",
        "shape": [12, 5],
        "type": "float64",
        "maxshape": [12, 5],
        "chunks": [5, 2],
        "compression": "gzip",
        "compression_opts": 4,
        "attributes": {"units": "m"},
    }
    text = run("info", f"{tree.file}::/g/table").out
    assert "chunks            [5, 2]" in text
    assert "units  m" in text


def test_a_selection_is_described_without_reading_it(tree: Tree, run: Run) -> None:
    assert json.loads(run("info", "--json", f"{tree.file}::/g/table[::5, 0]").out)["selected"] == [3]


@pytest.mark.parametrize("name", ["", "/runs", "/runs/a.h5", "/README.md", "/runs/a.h5::/g", "/runs/a.h5::/kind"])
def test_everything_can_be_described(name: str, tree: Tree, run: Run) -> None:
    done = run("info", tree.url + name)
    assert done.code == 0
    assert "url" in done.out


@pytest.mark.parametrize("selection", ["", "[3]", "[2:9:3, ::-1]", "[[4, 0, 4], 1:3]", "[..., 2]", "[[1, 2], [3, 4]]"])
@pytest.mark.parametrize("local", [False, True])
def test_values_are_printed_as_numpy_prints_them(selection: str, local: bool, tree: Tree, run: Run) -> None:
    with h5py.File(tree.path / "runs/a.h5") as file:
        values = eval(f"array{selection}", {"array": file["g/table"][:]})
    place = tree.path / "runs/a.h5" if local else tree.file
    assert run("cat", f"{place}::/g/table{selection}").out == np.array2string(values, max_line_width=120) + "\n"


def test_of_many_values_the_corners_are_printed(tree: Tree, run: Run) -> None:
    with h5py.File(tree.path / "runs/a.h5") as file:
        expected = np.array2string(file["g/big"][:], max_line_width=120, threshold=1000)
    assert run("cat", f"{tree.file}::/g/big").out == expected + "\n"
    assert len(re.findall(r"\d+", run("cat", "--all", f"{tree.file}::/g/big").out)) == 20000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scalar", "7"),
        ("g/names", "[b'eins' b'zwei']"),
        ("g/pairs", "[(1, 0.5) (2, 1.5)]"),
        ("g/vectors[1:3]", "[[3 4 5]\n [6 7 8]]"),
        ("g/vectors[1:1]", "[]"),
    ],
)
def test_every_kind_of_value_is_printed(name: str, text: str, tree: Tree, run: Run) -> None:
    assert run("cat", f"{tree.file}::/{name}").out == text + "\n"


def test_rows_are_printed_as_csv(tree: Tree, run: Run) -> None:
    assert run("cat", "--csv", f"{tree.file}::/g/table[:2, :3]").out == "0.0,1.0,2.0\n5.0,6.0,7.0\n"
    assert run("cat", "--csv", f"{tree.file}::/g/names").out == "eins\nzwei\n"
    assert run("cat", "--csv", f"{tree.file}::/scalar").out == "7\n"


def test_a_single_text_is_printed_as_csv(run: Run) -> None:
    with h5py.File("single.h5", "w") as file:
        file["title"] = "one, two"
    assert run("cat", "--csv", "single.h5::/title").out == '"one, two"\n'


def test_three_axes_are_no_csv(tree: Tree, run: Run) -> None:
    done = run("cat", "--csv", f"{tree.file}::/g/cube")
    assert (done.code, done.out) == (1, "")
    assert "select two" in done.error


def test_raw_bytes_are_little_endian_and_in_c_order(tree: Tree, run: Run) -> None:
    expected = np.arange(20000, dtype="<u4").reshape(100, 200)[5:7, ::-1]
    assert run("cat", "--raw", f"{tree.file}::/g/big[5:7, ::-1]").raw == expected.tobytes()


def test_elements_of_variable_length_are_no_raw_bytes(tree: Tree, run: Run) -> None:
    assert run("cat", "--raw", f"{tree.file}::/g/names").code == 1


def test_a_file_is_written_as_it_is(tree: Tree, run: Run) -> None:
    assert run("cat", f"{tree.url}/README.md").out == "What is here\n"
    assert run("cat", tree.file).raw == (tree.path / "runs/a.h5").read_bytes()


@pytest.mark.parametrize(
    ("command", "place", "reason"),
    [
        ("ls", "/nothing", "nothing"),
        ("ls", "/runs/a.h5::/absent", "absent"),
        ("info", "/runs::/x", "a directory has no objects"),
        ("cat", "/README.md::/x", "not HDF5"),
        ("cat", "/runs/a.h5::/g", "a group has no elements"),
        ("cat", "/runs/a.h5::/nothing", "null dataspace"),
        ("cat", "/runs/a.h5::/dangling", "nowhere"),
        ("cat", "/runs/a.h5::/g/table[99]", "99"),
        ("cat", "/runs/a.h5::/g/table[1,2,3]", "3 indices"),
        ("cat", "/runs/a.h5::/g/table[x]", "character 1"),
    ],
)
def test_what_cannot_be_had_is_one_line(command: str, place: str, reason: str, tree: Tree, run: Run) -> None:
    done = run(command, tree.url + place)
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith("ndstream: ")
    assert done.error.count("\n") == 1
    assert reason in done.error


def test_a_missing_object_of_a_local_file_is_one_line(tree: Tree, run: Run) -> None:
    done = run("cat", f"{tree.path}/runs/a.h5::/nowhere")
    assert (done.code, done.error) == (1, f"ndstream: {tree.path}/runs/a.h5::/nowhere: no such object\n")
    assert run("ls", f"{tree.path}/runs").code == 1
    assert run("ls", f"{tree.path}/absent.h5").code == 1
