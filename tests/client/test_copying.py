"""Copies into local files are the same as what was served."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.client import copying
from ndstream.errors import InvalidRequest
from ndstream.testing.fixtures import LocalServer
from ndstream.testing.sample import write_sample


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    with h5py.File(folder / "c.h5", "w") as file:
        group = file.create_group("g")
        made = group.create_dataset(
            "d", data=np.arange(300, dtype=">i2").reshape(30, 10), chunks=(7, 4), maxshape=(None, 10),
            compression="gzip", compression_opts=3, shuffle=True, fletcher32=True, fillvalue=-5,
        )  # fmt: skip
        made.attrs["fixed"] = np.bytes_(b"abc")
        made.attrs.create("kind", 1, dtype=h5py.enum_dtype({"RED": 0, "BLUE": 1}, basetype="u1"))
        group["again"] = made
        group["soft"] = h5py.SoftLink("d")
        group["dangling"] = h5py.SoftLink("/nowhere")
        group["elsewhere"] = h5py.ExternalLink("no.h5", "/x")
        group["outside"] = h5py.ExternalLink("other.h5", "/o")
        group["sub/inner"] = np.array(["a", "bc"], object)
        group["sub"].attrs["empty"] = h5py.Empty("f8")
        group["loop"] = group
    with h5py.File(folder / "other.h5", "w") as file:
        file["o/d"] = np.arange(5)
        file["o/back"] = h5py.ExternalLink("c.h5", "/g")
    return write_sample(folder / "sample.h5").parent


@pytest.fixture
def target(tmp_path: Path) -> Iterator[h5py.File]:
    with h5py.File(tmp_path / "copy.h5", "w") as file:
        yield file


@pytest.fixture
def remote(server: LocalServer) -> Any:
    return ndstream.open(server.url, "c.h5", data_size_limit=0)


def test_a_copy_keeps_everything(remote: Any, path: Path, target: h5py.File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "BLOCK", 64)
    remote.copy("g", target)
    with h5py.File(path / "c.h5") as local:
        made, source = target["g/d"], local["g/d"]
        np.testing.assert_array_equal(made[...], source[...])
        for name in ("dtype", "chunks", "maxshape", "compression", "compression_opts", "shuffle", "fletcher32"):
            assert getattr(made, name) == getattr(source, name)
        assert made.fillvalue == -5
        assert made.id.get_type() == source.id.get_type()
        for name in source.attrs:
            assert made.attrs[name] == source.attrs[name]
            assert made.attrs.get_id(name).get_type() == source.attrs.get_id(name).get_type()
        assert target["g/sub/inner"].asstr()[...].tolist() == ["a", "bc"]
        assert target["g/sub"].attrs["empty"] == h5py.Empty("f8")
    assert target["g/again"] == target["g/d"]
    assert target["g/loop"] == target["g"]
    assert target["g"].get("soft", getlink=True).path == "d"
    assert target["g"].get("dangling", getlink=True).path == "/nowhere"
    for name, filename, inside in (("elsewhere", "no.h5", "/x"), ("outside", "other.h5", "/o")):
        link = target["g"].get(name, getlink=True)
        assert isinstance(link, h5py.ExternalLink)
        assert (link.filename, link.path) == (filename, inside)


def test_a_copy_gets_the_name_it_is_given(remote: Any, target: h5py.File) -> None:
    remote["g"].copy("d", target, "new/place")
    remote["g"].copy(remote["g/sub"], target)
    remote.copy("/", target, "all")
    assert target["new/place"].shape == (30, 10)
    assert list(target["sub"]) == ["inner"]
    assert "g" in target["all"]
    with pytest.raises(InvalidRequest):
        remote.copy("g/d", target, "new/place")
    with pytest.raises(InvalidRequest):
        remote.copy("/", target)


def test_a_shallow_copy_has_groups_without_members(remote: Any, target: h5py.File) -> None:
    remote.copy("g", target, shallow=True)
    assert target["g/d"].shape == (30, 10)
    assert len(target["g/sub"]) == 0


def test_soft_links_are_copied_as_what_they_lead_to_on_demand(remote: Any, target: h5py.File) -> None:
    remote.copy("g", target, expand_soft=True)
    assert isinstance(target["g"].get("soft", getlink=True), h5py.HardLink)
    assert target["g/soft"] == target["g/d"]
    assert isinstance(target["g"].get("dangling", getlink=True), h5py.SoftLink)


def test_external_links_are_copied_as_what_they_lead_to_on_demand(remote: Any, target: h5py.File) -> None:
    remote.copy("g", target, expand_external=True)
    assert isinstance(target["g"].get("outside", getlink=True), h5py.HardLink)
    assert target["g/outside/d"][...].tolist() == [0, 1, 2, 3, 4]
    assert target["g/outside/back"] == target["g"]
    assert isinstance(target["g"].get("elsewhere", getlink=True), h5py.ExternalLink)


def test_what_a_link_leads_to_is_copied_when_the_link_itself_is_named(remote: Any, target: h5py.File) -> None:
    remote.copy("g/outside", target)
    assert list(target["outside"]) == ["back", "d"]


def test_the_sample_is_copied_whole_but_for_what_cannot_be_written(
    server: LocalServer, path: Path, target: h5py.File, caplog: pytest.LogCaptureFixture
) -> None:
    remote = ndstream.open(server.url, "sample.h5")
    with caplog.at_level(logging.WARNING):
        remote.copy("/", target, "sample")
    assert [record.getMessage() for record in caplog.records if "time" not in record.getMessage()] == []
    copied, checked = target["sample"], 0
    with h5py.File(path / "sample.h5") as local:
        for name in ("types", "filters", "spaces", "attributes", "dimensions"):
            for member in local[name]:
                if member == "time" and name == "types":
                    continue
                made, source = copied[name][member], local[name][member]
                checked += 1
                if isinstance(source, h5py.Dataset):
                    assert made.shape == source.shape
    assert checked > 50
