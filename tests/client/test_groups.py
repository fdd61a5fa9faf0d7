"""Groups, links and attributes, with the habits of h5py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.errors import NDStreamError, NotFound
from ndstream.testing.fixtures import LocalServer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("groups") / "g.h5"
    with h5py.File(made, "w") as file:
        file["a/b/data"] = np.arange(5)
        file["a/b"].attrs["units"] = "m"
        file["a/relative"] = h5py.SoftLink("b/data")
        file["a/absolute"] = h5py.SoftLink("/a/b")
        file["a/chain"] = h5py.SoftLink("absolute/data")
        file["a/broken"] = h5py.SoftLink("nowhere/at/all")
        file["a/loop"] = h5py.SoftLink("loop")
        file["a/up"] = h5py.SoftLink("/")
        file["a/outside"] = h5py.ExternalLink("other.h5", "/x")
        file["twice"] = file["a/b/data"]
        file["a/b/back"] = file["a"]
        file["type"] = np.dtype("f4")
        for number in range(30):
            file[f"many/deep/d{number:02}"] = np.full(3, number)
        file["many/deep/soft"] = h5py.SoftLink("d00")
    return made


@pytest.fixture
def remote(server: LocalServer) -> Any:
    return ndstream.open(server.url, "g.h5")


@pytest.fixture
def local(path: Path) -> Iterator[h5py.File]:
    with h5py.File(path) as file:
        yield file


def test_a_group_is_a_mapping(remote: Any, local: h5py.File) -> None:
    for name in ("/", "a", "a/b"):
        left, right = remote[name], local[name]
        assert isinstance(left, Mapping)
        assert list(left) == list(right) == list(left.keys())
        assert len(left) == len(right)
        assert [key for key, _ in left.items()] == list(right)
        missing = {key for key, each in left.items() if each is None}
        assert missing == {key for key, each in zip(left, left.values(), strict=True) if each is None}
        assert missing == ({"broken", "loop", "outside"} if name == "a" else set())


@pytest.mark.parametrize("name", ["a/b/data", "/a/b/data", "a//b/./data/", "a/relative", "a/chain", "a/absolute/data"])
def test_every_way_to_a_dataset_leads_there(remote: Any, local: h5py.File, name: str) -> None:
    assert name in remote
    np.testing.assert_array_equal(remote[name][:], local[name][:])
    assert remote[name] is remote["a/b/data"]


def test_paths_go_up_and_stay_in_the_file(remote: Any) -> None:
    group = remote["a/b"]
    assert group["../b/data"] is group["data"]
    assert group[".."] is remote["a"]
    assert group["/"] is remote.root
    assert group["../../../../a"] is remote["a"]
    assert group["."] is group
    assert group.parent.parent == remote.root
    assert remote.root.parent == remote.root


@pytest.mark.parametrize("name", ["no", "a/no", "a/broken", "a/loop", "a/b/data/no", "a/broken/x"])
def test_what_is_not_there_is_a_key_error(remote: Any, name: str) -> None:
    assert name not in remote
    assert remote.get(name) is None
    assert remote.get(name, 5) == 5
    with pytest.raises(KeyError) as error:
        remote[name]
    assert "g.h5" in str(error.value)


def test_links_are_values(remote: Any, local: h5py.File) -> None:
    for name in ("relative", "absolute", "broken", "loop"):
        link = remote["a"].get(name, getlink=True)
        assert link == ndstream.SoftLink(local["a"].get(name, getlink=True).path)
    assert remote.get("a", getlink=True) == ndstream.HardLink()
    assert remote["a"].get("outside", getlink=True) == ndstream.ExternalLink("other.h5", "/x")
    assert remote.get("a/relative", getclass=True, getlink=True) is ndstream.SoftLink
    assert remote.get("a/relative", getclass=True) is ndstream.RemoteDataset
    assert remote.get("no", getlink=True) is None
    with pytest.raises(KeyError):
        remote.get("/", getlink=True)


def test_an_external_link_that_leads_nowhere_is_a_member_all_the_same(remote: Any) -> None:
    assert "outside" in remote["a"]
    with pytest.raises(NDStreamError):
        remote["a/outside"]


def test_links_in_groups_of_which_only_names_came_are_known_too(remote: Any) -> None:
    assert len(remote["many/deep"]) == 31
    assert remote["many/deep"].get("soft", getlink=True) == ndstream.SoftLink("d00")
    assert remote["many/deep/soft"] is remote["many/deep/d00"]


def test_two_names_of_one_object_are_equal(remote: Any) -> None:
    assert remote["twice"] == remote["a/b/data"]
    assert hash(remote["twice"]) == hash(remote["a/b/data"])
    assert remote["a/b/back"] is remote["a"]
    assert remote["a"] != remote["a/b"]
    assert len({remote["a"], remote["a/b/back"]}) == 1


def test_visits_see_everything_and_come_back_from_cycles(remote: Any) -> None:
    seen: list[str] = []
    assert remote.visit(seen.append) is None
    assert seen[0] == "a"
    for name in ("a/b", "a/b/data", "a/b/back", "a/relative", "a/absolute/data", "a/up", "twice", "many/deep/d29"):
        assert name in seen
    assert len(seen) < 200
    assert len(set(seen)) == len(seen)


def test_a_visit_ends_when_it_has_found_something(remote: Any) -> None:
    def look(name: str, found: Any) -> str | None:
        return name if isinstance(found, ndstream.RemoteDataset) else None

    assert remote.visititems(look) == "a/absolute/data"
    assert remote["many"].visititems(look) == "deep/d00"
    assert remote.visit(lambda name: name if name.endswith("d07") else None) == "many/deep/d07"


def test_attributes_are_read_only_mappings(remote: Any) -> None:
    attrs = remote["a/b"].attrs
    assert dict(attrs) == {"units": "m"}
    assert attrs.get("no", 1) == 1
    assert "units" in attrs
    with pytest.raises(NotFound):
        attrs["no"]
    with pytest.raises(TypeError):
        attrs["new"] = 1


def test_a_committed_type_is_an_object(remote: Any) -> None:
    assert remote["type"].dtype == "f4"
    assert dict(remote["type"].attrs) == {}


def test_duck_tests_of_h5py_pass(remote: Any, local: h5py.File) -> None:
    beyond = {"clear", "create_dataset", "create_dataset_like", "create_group", "create_virtual_dataset", "flush"}
    beyond |= {"build_virtual_dataset", "driver", "id", "in_memory", "libver", "meta_block_size", "move", "pop"}
    beyond |= {"popitem", "ref", "regionref", "require_dataset", "require_group", "setdefault", "swmr_mode", "update"}
    beyond |= {"userblock_size", "visit_links", "visititems_links", "track_order"}
    for left, right in ((remote, local), (remote["a"], local["a"])):
        assert {name for name in dir(right) if not name.startswith("_")} - set(dir(left)) <= beyond
        assert bool(left)
    with remote as root:
        assert root is remote.root
    with remote["a"] as group:
        assert group is remote["a"]
    assert remote["a"].file is remote
    assert remote.filename == remote.file_path == "g.h5"
    assert remote.mode == "r"


def test_an_object_shows_itself(remote: Any) -> None:
    assert repr(remote["a"]) == '<Remote HDF5 group "/a" (8 members)>'
    assert "loop" in remote["a"]._repr_html_()
    assert "&lt;i8" in remote["a/b/data"]._repr_html_()
    assert "g.h5" in repr(remote)
