"""ndstream.open against a server of ours over a real socket, in the native protocol; h5py is the oracle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.client.hdfstream import HDFStreamConnection
from ndstream.client.native import NativeConnection
from ndstream.errors import NotFound, OutOfBounds
from ndstream.testing.fixtures import ServerFactory


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "f.h5"
    rng = np.random.default_rng(7)
    with h5py.File(path, "w") as file:
        file["plain"] = np.arange(600, dtype=">i4").reshape(20, 30)
        file["texts"] = np.array(["one", "zwei ü", ""] * 5, h5py.string_dtype()).reshape(3, 5)
        file["records"] = np.array([(1, 2.5), (3, -1)], np.dtype([("n", "<i2"), ("x", "<f8")], align=True))
        file["arrays"] = np.zeros(4, np.dtype(("<i2", (3,)))) if False else np.arange(12, dtype="<i2").reshape(4, 3)
        packed = file.create_dataset(
            "packed", (400, 1000), "<f4", chunks=(64, 300), compression="gzip", shuffle=True, fillvalue=3
        )
        packed[:250] = rng.integers(0, 99, (250, 1000))
        file["scalar"] = 7.5
        file["g/deep/x"] = np.arange(5)
        file["g"].attrs["unit"] = "mm"
        file["null"] = h5py.Empty("<f8")
    return path


@pytest.fixture(scope="module")
def url(ndstream_module_server: ServerFactory, local: Path) -> str:
    return ndstream_module_server(local.parent).url


@pytest.fixture
def remote(url: str) -> Any:
    return ndstream.open(url, "f.h5")


KEYS = [..., np.s_[3:9:2, ::-1], np.s_[[5, 1, 1]], np.s_[7], np.s_[2, 3], np.s_[:0], np.s_[[1, 3], :, None][:2]]


@pytest.mark.parametrize("name", ["plain", "texts", "records", "packed", "scalar", "g/deep/x"])
def test_everything_is_as_h5py_reads_it(remote: Any, local: Path, name: str) -> None:
    with h5py.File(local) as file:
        expected = file[name][()]
        found = remote[name][()]
        assert remote[name].dtype == file[name].dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_selections_are_as_numpy_makes_them(remote: Any, local: Path, key: Any) -> None:
    with h5py.File(local) as file:
        for name in ("plain", "packed"):
            np.testing.assert_array_equal(remote[name][key], file[name][()][key])


def test_the_native_protocol_is_chosen_unless_the_address_says_otherwise(url: str) -> None:
    native = ndstream.open(url, "f.h5")
    assert type(native.connection) is NativeConnection
    assert ndstream.open(url).connection is native.connection
    other = ndstream.open(url + "/hdfstream", "f.h5")
    assert type(other.connection) is HDFStreamConnection
    np.testing.assert_array_equal(native["plain"][3], other["plain"][3])


def test_attributes_groups_and_null_dataspaces_come_along(remote: Any) -> None:
    assert remote["g"].attrs["unit"] == "mm"
    assert list(remote["g"]) == ["deep"]
    assert remote["null"].shape is None
    assert "g/deep/x" in remote
    with pytest.raises(NotFound, match="nothing"):
        remote["nothing"]
    with pytest.raises(OutOfBounds):
        remote["plain"][20]


def test_reading_into_an_array_of_another_type_converts(remote: Any) -> None:
    target = np.zeros((20, 30), "<f8")
    remote["plain"].read_direct(target)
    np.testing.assert_array_equal(target, np.arange(600.0).reshape(20, 30))


def test_pickles_come_back_in_the_same_protocol(remote: Any) -> None:
    again = pickle.loads(pickle.dumps(remote["plain"]))
    assert type(again.connection) is NativeConnection
    np.testing.assert_array_equal(again[:2], remote["plain"][:2])


def test_files_can_be_downloaded(remote: Any, local: Path, tmp_path: Path) -> None:
    target = remote.download(tmp_path / "copy.h5")
    assert target.read_bytes() == local.read_bytes()
