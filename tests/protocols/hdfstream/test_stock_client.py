"""The stock client, in a process of its own, against a real server: it must see what h5py sees.

The client is only run, as a peer: it is under another licence.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.testing.sample import write_sample

PROGRAM = Path(__file__).with_name("stock_client.py")
SIMULATIONS = Path(__file__).parents[4] / "shared" / "data" / "simulations"  # beside the repository, where it is made
Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write_sample(root / "sample.h5")
    with h5py.File(root / "many.h5", "w") as file:
        file["table"] = np.zeros(4, [(f"column number {n}", "<f4") for n in range(80)])
        file["table_of_tables"] = np.ones(4, [("inner", [("x", "<f4"), ("y", "<i8", (2,))], (3,))])
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        scalar = h5py.h5d.create(file.id, b"array", h5py.h5t.py_create(np.dtype(("<i4", (5,)))), space)
        scalar.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(5, dtype="<i4"), scalar.get_type())
    return root


@pytest.fixture(scope="module")
def server(tree: Path, ndstream_module_server: ServerFactory) -> LocalServer:
    real = [f"real={SIMULATIONS}"] if SIMULATIONS.is_dir() else []
    return ndstream_module_server(f"made={tree}", *real)


def walk(server: LocalServer, path: str, limit: int, depth: int) -> Seen:
    command = [sys.executable, str(PROGRAM), f"{server.url}/hdfstream", path, str(limit), str(depth)]
    result = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
    seen: Seen = pickle.loads(result.stdout)
    return seen


@pytest.fixture(scope="module", params=[(0, 0), (1 << 20, 5)], ids=["bare", "with data"])
def seen(server: LocalServer, request: pytest.FixtureRequest) -> Seen:
    return walk(server, "made/sample.h5", *request.param)


@pytest.fixture(scope="module")
def local(tree: Path) -> Any:
    with h5py.File(tree / "sample.h5") as file:
        yield file


def h5py_value(dataset: h5py.Dataset) -> Any:
    if h5py.check_string_dtype(dataset.dtype) and dataset.dtype.kind == "O":
        return dataset.asstr()[()]
    return dataset[()]


def equal(got: Any, wanted: Any) -> bool:
    got, wanted = np.asarray(got), np.asarray(wanted)
    if wanted.dtype.kind == "O":
        return got.shape == wanted.shape and all(
            np.array_equal(a, b) for a, b in zip(got.ravel(), wanted.ravel(), strict=True)
        )
    return np.array_equal(got, wanted)


NUMBERS = ("i2", "u4", "i8", "f2", "f4", "f8", "c8", "c16")
PLAIN = (
    *(f"/types/{order}_{kind}" for order in ("little", "big") for kind in NUMBERS),
    "/types/i1",
    "/types/u1",
    "/types/long_double",
    "/types/boolean",
    "/types/enumeration",
    "/types/fixed_ascii",
    "/types/fixed_utf8",
    "/types/text",
    "/types/text_ascii",
    "/types/record",
    "/types/array",
    "/types/sequence",
    "/types/bitfield",
    "/types/integer_20_bits",
    "/types/bfloat16",
    "/types/of_committed",
    "/layouts/contiguous",
    "/layouts/chunked",
    "/layouts/compact",
    "/layouts/never_written",
    "/layouts/sparse",
    "/layouts/virtual",
    "/filters/gzip_shuffle_fletcher32",
    "/filters/lzf",
    "/filters/scale_offset",
    "/spaces/scalar",
    "/spaces/scalar_text",
    "/spaces/scalar_record",
    "/spaces/empty",
    "/spaces/empty_middle",
    "/spaces/empty_text",
    "/spaces/eight_axes",
    "/links/hard",
    "/names/größe",
    "/names/日本語",
    "/names/with space",
    "/names/a:b;c,d?e#f%20",
    "/dimensions/field",
    "/dimensions/time",
)  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_values_are_those_of_h5py(seen: Seen, local: h5py.File, name: str) -> None:
    found, wanted = seen[name], h5py_value(local[name])
    assert "error" not in found
    assert equal(found["value"], wanted)
    if "part" in found:
        assert equal(found["part"], wanted[1:3])


def test_nothing_in_the_file_is_out_of_reach(seen: Seen, local: h5py.File) -> None:
    """What the client could not open leads nowhere, or is no dataset and no group."""
    failed = {name: found["error"] for name, found in seen.items() if "error" in found}
    assert all("HDFStreamRequestError" in error for error in failed.values()), failed
    assert {name for name in failed if not name.startswith(("/links/external", "/links/below/cycle/external"))} == {
        "/types/committed",
        "/types/time",
    }
    for name, found in seen.items():
        if found["kind"] == "group":
            group = local[name.replace("nd~", "nd").replace("vlen~", "vlen")]
            shown = {key.replace("nd~", "nd").replace("vlen~", "vlen") for key in found["members"]}
            assert len(found["members"]) == len(group)
            assert {
                key for key in group if isinstance(key, str)
            } <= shown  # h5py gives bytes that are not UTF-8 as they are


def test_compounds_arrive_packed_with_their_names(seen: Seen, local: h5py.File) -> None:
    gaps, wanted = seen["/types/record_gaps"]["value"], local["/types/record_gaps"][()]
    for name in ("a", "b"):
        assert np.array_equal(gaps[name], wanted[name])
    nested, wanted = seen["/types/record_nested"]["value"], local["/types/record_nested"][()]
    assert np.array_equal(nested["inner"]["y"], wanted["inner"]["y"])
    assert np.array_equal(nested["flag"], wanted["flag"])


def test_compounds_with_text_arrive_as_maps(seen: Seen) -> None:
    found = seen["/types/record_text"]["value"]
    assert list(found) == [{"id": 1, "name": "one"}, {"id": 2, "name": ""}, {"id": 3, "name": "drei"}]


def test_references_arrive_as_paths(seen: Seen) -> None:
    assert list(seen["/types/object_reference"]["value"]) == ["/types/boolean", "/types", ""]
    first, _ = seen["/types/region_reference"]["value"]
    assert first["name"] == "/types/u1"


def test_opaque_elements_arrive_as_bytes(seen: Seen, local: h5py.File) -> None:
    for name in ("opaque", "date"):
        found = seen[f"/types/{name}"]["value"]
        assert found.dtype.kind == "V"
        assert found.tobytes() == local[f"/types/{name}"][()].tobytes()


def test_a_null_dataspace_is_an_empty_dataset(seen: Seen) -> None:
    assert seen["/spaces/null"]["shape"] == (0,)
    assert seen["/spaces/null_text"]["value"].size == 0


def test_members_called_nd_and_vlen_are_there_under_another_name(seen: Seen, local: h5py.File) -> None:
    for name in ("nd", "vlen"):
        assert np.array_equal(seen[f"/names/{name}~"]["value"], local[f"/names/{name}"][()])


def test_soft_links_are_told_as_stored(seen: Seen) -> None:
    assert {name.rpartition("/")[2]: found["target"] for name, found in seen.items() if found["kind"] == "soft"} == {
        "soft": "/links/data",
        "soft_relative": "below/data",
        "soft_to_group": "below",
        "soft_chain": "soft",
        "soft_broken": "/nowhere",
        "soft_cycle": "soft_cycle",
    }


def test_external_links_lead_to_objects_in_the_tree_only(seen: Seen) -> None:
    assert seen["/links/external"]["shape"] == (7, 5)
    assert seen["/links/external_group"]["attributes"]["where"] == "in the other file"
    for name in ("external_absolute", "external_out", "external_broken_file", "external_broken_object"):
        assert seen[f"/links/{name}"]["kind"] == "error"


@pytest.mark.parametrize("name", ["/attributes", "/attributes/dataset"])
def test_attributes_are_those_of_h5py_without_what_cannot_be_carried(seen: Seen, local: h5py.File, name: str) -> None:
    found, wanted = seen[name]["attributes"], local[name].attrs
    missing = set(wanted) - {key.rstrip("~") for key in found}
    assert missing == {"null", "reference", "references"}
    for key, value in found.items():
        if key != "fixed":
            assert equal(value, wanted[key.rstrip("~")]), key
    assert found["fixed"] == b"ab"
    assert isinstance(found["text"], str)


def test_members_are_in_the_order_of_the_file(seen: Seen, local: h5py.File) -> None:
    assert seen["/groups/wide"]["members"] == list(local["/groups/wide"])
    assert seen["/groups/ordered"]["members"] == sorted(local["/groups/ordered"])  # by name, whatever else is tracked


def test_what_has_no_place_in_the_first_kilobyte_is_read_all_the_same(server: LocalServer, tree: Path) -> None:
    seen = walk(server, "made/many.h5", 0, 0)
    with h5py.File(tree / "many.h5") as file:
        table, wanted = seen["/table"], file["table"][()]
        assert "column number 79" in table["dtype"]
        assert table["value"].tobytes() == wanted.tobytes()
        nested = seen["/table_of_tables"]["value"]
        assert nested.tobytes() == file["table_of_tables"][()].tobytes()
    assert seen["/array"]["value"].tolist() == list(range(5))


@pytest.mark.skipif(not SIMULATIONS.is_dir(), reason="the sample of real simulations is not here")
def test_real_simulations_are_read_like_h5py_reads_them(server: LocalServer) -> None:
    name = "Tests/SWIFT/IOExamples/ssio_ci_04_2025/EagleSingle.hdf5"
    seen = walk(server, f"real/{name}", 1 << 20, 5)
    compared = 0
    with h5py.File(SIMULATIONS / name) as file:
        for path, found in seen.items():
            for key, value in found.get("attributes", {}).items():
                assert equal(value, file[path].attrs[key]), (path, key)
            if found["kind"] == "dataset":
                assert equal(found["value"], h5py_value(file[path])), path
                compared += 1
        everything: list[str] = []
        file.visit(everything.append)
    assert compared > 10
    assert {path.strip("/") for path in seen} >= set(everything)
