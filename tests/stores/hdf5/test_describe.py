"""Groups, datasets and attributes are described as they are in the file."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5g, h5p, h5s, h5t

from ndstream.core.dtypes import Boolean, Foreign, Integer, Opaque, Reference, Sequence, String, item_size, to_numpy
from ndstream.core.model import (
    Attribute,
    Dataset,
    ExternalLink,
    Filter,
    Group,
    HardLink,
    NamedType,
    Node,
    SoftLink,
    Unreadable,
)
from ndstream.errors import DataError, NotFound, TooLarge

from .conftest import Asked


def group_of(node: Node) -> Group:
    assert isinstance(node, Group)
    return node


def dataset_of(node: Node) -> Dataset:
    assert isinstance(node, Dataset)
    return node


def test_a_dataset_is_described_in_full(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        dataset = file.create_dataset(
            "d", (5, 7), ">i2", maxshape=(None, 7), chunks=(2, 7), fillvalue=-3, compression="gzip", shuffle=True
        )
        dataset[:2] = 1
        dataset.attrs["unit"] = "m"
        stored = dataset.id.get_storage_size()

    node = dataset_of(asked.describe("f.h5", "/d"))

    assert node == Dataset(
        dtype=Integer(size=2, order=">"),
        shape=(5, 7),
        maxshape=(None, 7),
        attributes={"unit": Attribute(dtype=String(size=None), shape=(), value=[b"m"])},
        storage="chunked",
        chunks=(2, 7),
        filters=(
            Filter(id=2, name="shuffle", options=(2,), optional=True),
            Filter(id=1, name="deflate", options=(4,), optional=True),
        ),
        fill=b"\xff\xfd",
        stored=stored,
        address=node.address,
    )
    assert asked.lasting


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("<f8", 2.5),
        (">u4", 7),
        ("<c16", 1 - 2j),
        ("S4", b"ab"),
        ("?", True),
        (np.dtype([("a", ">i4"), ("b", "<f4", (2,))]), np.array((3, [1, 2]), [("a", ">i4"), ("b", "<f4", (2,))])),
        (h5py.enum_dtype({"A": 4}, "<u2"), 4),
    ],
)
def test_fill_values_are_the_bytes_that_would_be_stored(asked: Asked, dtype: Any, fill: Any) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file.create_dataset("d", (3,), dtype, fillvalue=fill, chunks=(2,), compression="gzip")
        file.create_dataset("plain", (3,), dtype)

    node = dataset_of(asked.describe("f.h5", "/d"))

    assert node.fill == np.array(fill, dtype).tobytes()
    assert node.fill == asked.fetch("f.h5", "/d", (0, 1, 1))
    assert dataset_of(asked.describe("f.h5", "/plain")).fill == bytes(item_size(node.dtype) or 0)


def test_a_fill_value_is_not_padded_anew(asked: Asked) -> None:
    path = asked.root / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (1,), "S4", fillvalue=b"a")
    # The message of the type: class and version, padding, ..., size. h5py itself writes no space-padded strings.
    data = path.read_bytes()
    assert data.count(b"\x13\x01\0\0\x04\0\0\0") == 1
    path.write_bytes(data.replace(b"\x13\x01\0\0\x04\0\0\0", b"\x13\x02\0\0\x04\0\0\0"))

    node = dataset_of(asked.describe("f.h5", "/d"))

    assert node.dtype == String(size=4, charset="ascii", padding="space-padded")
    assert node.fill == b"a\0\0\0" == asked.fetch("f.h5", "/d", (0, 1, 1))


def test_without_a_fill_value_there_is_none(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file.create_dataset("text", (3,), h5py.string_dtype(), fillvalue="x")

    assert dataset_of(asked.describe("f.h5", "/text")).fill is None


def test_null_scalar_and_empty_are_three_things(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["null"] = h5py.Empty("<f4")
        file["scalar"] = np.float32(1)
        file["empty"] = np.zeros((0, 3), "<f4")
        file.attrs["null"] = h5py.Empty("<i4")
        file.attrs["empty"] = np.zeros((2, 0), "<i4")

    root = group_of(asked.describe("f.h5", data=4))
    null, scalar, empty = (dataset_of(root.members[name]) for name in ("null", "scalar", "empty"))

    assert (null.shape, null.maxshape, null.data) == (None, None, None)
    assert (scalar.shape, scalar.maxshape, scalar.data) == ((), (), np.float32(1).tobytes())
    assert (empty.shape, empty.maxshape, empty.data) == ((0, 3), (0, 3), b"")
    assert root.attributes["null"] == Attribute(dtype=Integer(size=4), shape=None, value=None)
    assert root.attributes["empty"] == Attribute(dtype=Integer(size=4), shape=(2, 0), value=b"")


def tree(file: h5py.File) -> None:
    """Groups within groups: /a (3 links) /a/b (2 links) /a/b/c, each with data, link and attribute."""
    group = file
    for name in ("a", "b", "c"):
        group = group.create_group(name)
        group.attrs["name"] = name
        group["data"] = np.arange(2)
        group["soft"] = h5py.SoftLink("data")


@pytest.mark.parametrize(("depth", "wide"), [(0, 20), (1, 20), (2, 20), (3, 20), (5, 2), (5, 3)])
def test_depth_and_width_decide_what_is_looked_into(asked: Asked, depth: int, wide: int) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        tree(file)

    def check(node: Node, distance: int) -> None:
        if distance > depth:
            assert node == HardLink(kind="group")
            return
        group = group_of(node)
        if distance:
            assert list(group.attributes) == ["name"]
        if distance and (distance == depth or len(group.members) > wide):
            assert set(group.members.values()) == {HardLink()}
            return
        for member in group.members.values():
            if isinstance(member, Group) or member == HardLink(kind="group"):
                check(member, distance + 1)
            else:
                assert isinstance(member, Dataset | SoftLink)

    check(asked.describe("f.h5", depth=depth, wide=wide), 0)


def test_the_named_group_is_always_looked_into(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        tree(file)

    node = group_of(asked.describe("f.h5", "/a/b", wide=0))

    assert isinstance(node.members["data"], Dataset)
    assert node.members["soft"] == SoftLink(target="data")
    assert node.members["c"] == HardLink(kind="group")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("track_order", [False, True])
def test_members_come_in_the_order_of_the_name_index(asked: Asked, libver: str, track_order: bool) -> None:
    names = [f"m{number * 7 % 50}" for number in range(50)]
    with h5py.File(asked.root / "f.h5", "w", libver=libver, track_order=track_order) as file:
        for name in names:
            file.create_group(name)

    assert list(group_of(asked.describe("f.h5")).members) == sorted(names)


def test_a_cycle_of_hard_links_ends_with_the_depth(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["a/up"] = file["/"]

    node: Node = asked.describe("f.h5", depth=6)

    first = group_of(node)
    for _ in range(3):
        node = group_of(group_of(node).members["a"]).members["up"]
        assert group_of(node).address == first.address


def test_a_description_without_end_is_refused(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        for name in "abcdefgh":
            file[name] = file["/"]

    with pytest.raises(TooLarge):
        asked.describe("f.h5", depth=100)


def test_a_group_of_too_many_links_is_refused_and_does_no_harm_to_its_parent(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        group = file.create_group("wide")
        for number in range(1001):
            group[f"{number}"] = h5py.SoftLink("/")

    assert group_of(asked.describe("f.h5", depth=2)).members["wide"] == HardLink(kind="group")
    with pytest.raises(TooLarge):
        asked.describe("f.h5", "/wide")


def test_hard_links_to_one_object_have_one_address(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["one"] = 1
        file["same"] = file["one"]
        file["other"] = 1

    members = group_of(asked.describe("f.h5")).members
    one, same, other = (dataset_of(members[name]).address for name in ("one", "same", "other"))

    assert one == same != other
    assert dataset_of(asked.describe("f.h5", "/same")).address == one


def test_objects_of_two_files_never_have_one_address(asked: Asked) -> None:
    for name in ("f.h5", "other.h5"):
        with h5py.File(asked.root / name, "w") as file:
            file["group/d"] = 1
    with h5py.File(asked.root / "f.h5", "a") as file:
        file["beyond"] = h5py.ExternalLink("other.h5", "/group")

    members = group_of(asked.describe("f.h5", depth=2)).members

    here, beyond = group_of(members["group"]), group_of(members["beyond"])
    assert here.address != beyond.address
    assert dataset_of(here.members["d"]).address != dataset_of(beyond.members["d"]).address


def test_links_and_types_are_what_they_are(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["relative"] = h5py.SoftLink("../a")
        file["broken"] = h5py.ExternalLink("nowhere.h5", "/x")
        file["type"] = np.dtype("<i4")
        file["type"].attrs["unit"] = "m"

    members = group_of(asked.describe("f.h5")).members

    assert members["relative"] == SoftLink(target="../a")
    assert members["broken"] == ExternalLink(filename="nowhere.h5", target="/x")
    kind = members["type"]
    assert isinstance(kind, NamedType)
    assert kind.dtype == Integer(size=4)
    assert list(kind.attributes) == ["unit"]
    assert not asked.lasting


def test_what_an_external_link_leads_to_is_described(asked: Asked) -> None:
    with h5py.File(asked.root / "other.h5", "w") as file:
        file["inner/d"] = [1, 2]
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["data"] = h5py.ExternalLink("other.h5", "/inner/d")
        file["group"] = h5py.ExternalLink("other.h5", "inner")

    root = group_of(asked.describe("f.h5", depth=2))

    assert dataset_of(root.members["data"]).shape == (2,)
    inner = dataset_of(group_of(root.members["group"]).members["d"])
    assert inner.shape == (2,)
    assert dataset_of(root.members["data"]).address == inner.address
    assert root.links == {
        "data": ExternalLink(filename="other.h5", target="/inner/d"),
        "group": ExternalLink(filename="other.h5", target="inner"),
    }
    assert not asked.lasting


def attributes(asked: Asked) -> dict[str, Attribute]:
    return group_of(asked.describe("f.h5")).attributes


def test_attributes_come_sorted_with_their_declared_types(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w", track_order=True) as file:
        file.attrs["z"] = np.array([1, 2], ">i8")
        file.attrs["fixed"] = np.array(b"ab", "S8")
        file.attrs["flag"] = True
        file.attrs.create("opaque", np.void(b"\x00\x01"))
        file.attrs["lists"] = np.array([np.array([1, 2], "<i2"), np.array([3], "<i2")], h5py.vlen_dtype("<i2"))

    found = attributes(asked)

    assert list(found) == ["fixed", "flag", "lists", "opaque", "z"]
    numbers = np.array([1, 2], ">i8").tobytes()
    assert found["z"] == Attribute(dtype=Integer(size=8, order=">"), shape=(2,), value=numbers)
    assert found["fixed"] == Attribute(dtype=String(size=8, charset="ascii"), shape=(), value=b"ab".ljust(8, b"\0"))
    assert found["flag"] == Attribute(dtype=Boolean(), shape=(), value=b"\1")
    assert found["opaque"] == Attribute(dtype=Opaque(size=2), shape=(), value=b"\x00\x01")
    assert found["lists"].dtype == Sequence(base=Integer(size=2))
    assert found["lists"].value == [b"\1\0\2\0", b"\3\0"]


def test_many_attributes_are_all_there(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w", libver="latest") as file:
        for number in range(300):
            file.attrs[f"{number}"] = number

    found = attributes(asked)

    assert list(found) == sorted(f"{number}" for number in range(300))
    assert all(found[name].value == np.int64(name).tobytes() for name in found)


def test_references_become_paths(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        target = file.create_dataset("group/target", data=np.arange(12).reshape(3, 4))
        gone = file.create_dataset("gone", data=1)
        refs = np.array([target.ref, file.ref, h5py.Reference(), gone.ref], h5py.ref_dtype)
        file.attrs.create("objects", refs)
        file.attrs.create("region", target.regionref[1:3, ::2], dtype=h5py.regionref_dtype)
        file.attrs.create("points", target.regionref[np.arange(12).reshape(3, 4) % 7 == 1], dtype=h5py.regionref_dtype)
        del file["gone"]

    found = attributes(asked)

    assert found["objects"].dtype == Reference(to="object")
    assert found["objects"].value == ["/group/target", "/", None, None]
    assert found["region"].dtype == Reference(to="region")
    corners = [[[row, column], [row + 2, column + 1]] for row, column in ((1, 0), (1, 2))]
    assert found["region"].value == [{"name": "/group/target", "blocks": corners}]
    assert found["points"].value == [{"name": "/group/target", "points": [[0, 1], [2, 0]]}]


def test_unusual_numbers_come_as_what_they_are_read_as(asked: Asked) -> None:
    kind = h5t.STD_I32BE.copy()
    kind.set_precision(24)
    kind.set_size(3)
    with h5py.File(asked.root / "f.h5", "w") as file:
        attribute = h5a.create(file.id, b"odd", kind, h5s.create_simple((2,)))
        attribute.write(np.array([-1, 70000], "<i4"))

    odd = attributes(asked)["odd"]

    assert odd.dtype == Foreign(name="int24", size=3, reads_as=Integer(size=4))
    assert odd.value == np.array([-1, 70000], "<i4").tobytes()


def test_what_cannot_be_read_says_so_and_harms_nothing_else(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        h5a.create(file.id, b"time", h5t.UNIX_D32LE, h5s.create_simple((1,)))
        file.attrs["fine"] = 1
        h5d.create(file.id, b"times", h5t.UNIX_D32LE, h5s.create_simple((2,)))
        file["fine"] = 1

    root = group_of(asked.describe("f.h5", data=100))

    time = root.attributes["time"]
    assert time.value is None
    assert time.problem
    assert time.dtype == Foreign(name="time", size=4)
    assert root.attributes["fine"].problem is None
    assert dataset_of(root.members["times"]).data is None
    assert dataset_of(root.members["fine"]).data is not None


def test_a_broken_member_says_so_and_harms_nothing_else(asked: Asked) -> None:
    path = asked.root / "f.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["fine"] = np.arange(4)
        file["sick"] = np.arange(4)
        address = h5py.h5o.get_info(file["sick"].id).addr
    data = bytearray(path.read_bytes())
    data[address : address + 40] = bytes(40)
    path.write_bytes(data)

    members = group_of(asked.describe("f.h5")).members

    assert dataset_of(members["fine"]).shape == (4,)
    sick = members["sick"]
    assert isinstance(sick, Unreadable)
    assert sick.code == "corrupt"


def test_a_link_of_an_unknown_kind_cannot_be_read(asked: Asked) -> None:
    path = asked.root / "f.h5"
    with h5py.File(path, "w") as file:
        file["fine"] = 1
        file["user"] = h5py.ExternalLink("some.h5", "/x")
    # A link message: ... kind (64: external), length of the name, name.
    data = path.read_bytes()
    assert data.count(b"\x40\x04user") == 1
    path.write_bytes(data.replace(b"\x40\x04user", b"\xc8\x04user"))

    members = group_of(asked.describe("f.h5")).members

    assert isinstance(members["user"], Unreadable)
    assert isinstance(members["fine"], Dataset)
    with pytest.raises(DataError):
        asked.describe("f.h5", "/user")


def test_data_comes_along_when_it_is_small(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["numbers"] = np.arange(10, dtype=">i4")
        file.create_dataset("text", data=["a", "bcd"], dtype=h5py.string_dtype())

    def data(limit: int) -> list[Any]:
        members = group_of(asked.describe("f.h5", data=limit)).members
        return [dataset_of(members[name]).data for name in ("numbers", "text")]

    assert data(40) == [np.arange(10, dtype=">i4").tobytes(), [b"a", b"bcd"]]
    assert data(39) == [None, [b"a", b"bcd"]]
    assert data(15) == [None, None]


def test_data_whose_filter_is_missing_is_left_out(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(9999, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        dataset = h5d.create(file.id, b"d", h5t.STD_I32LE, h5s.create_simple((4,)), plist)
        dataset.write_direct_chunk((0,), bytes(16))

    node = dataset_of(asked.describe("f.h5", "/d", data=100))

    assert node.data is None
    assert node.filters == (Filter(id=9999, name="", options=(1, 2), optional=True),)


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe", b"a\\xe9", "gr\u00f6\u00dfe".encode(), b"nd"])
def test_every_name_can_be_asked_for_as_it_was_listed(asked: Asked, name: bytes) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        h5g.create(file.id, name)

    (text,) = group_of(asked.describe("f.h5")).members

    assert isinstance(asked.describe("f.h5", f"/{text}"), Group)


def test_an_attribute_larger_than_a_description_is_left_out(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w", libver="latest") as file:
        file.attrs["huge"] = np.zeros(17 << 17)
        file.attrs["fine"] = 1

    found = attributes(asked)

    assert found["huge"].shape == (17 << 17,)
    assert found["huge"].value is None
    assert found["huge"].problem
    assert found["fine"].value is not None


def test_a_missing_object_is_not_found(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["d"] = 1

    for name in ("/x", "/d/x", "/x/y", "/d\0", "/" + "x" * 100_000):
        with pytest.raises(NotFound):
            asked.describe("f.h5", name)


def test_a_group_has_no_elements(asked: Asked) -> None:
    h5py.File(asked.root / "f.h5", "w").close()

    with pytest.raises(NotFound):
        asked.fetch("f.h5", "/")


def test_the_spelling_of_a_type_takes_its_bytes(asked: Asked) -> None:
    with h5py.File(asked.root / "f.h5", "w") as file:
        file["d"] = np.array([(1, 2.5), (3, -1)], np.dtype([("a", ">i4"), ("b", "<f8")], align=True))
        values = file["d"][()]

    node = dataset_of(asked.describe("f.h5", "/d", data=1000))

    assert isinstance(node.data, bytes)
    assert np.array_equal(np.frombuffer(node.data, to_numpy(node.dtype)), values)
