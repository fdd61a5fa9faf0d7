"""Names lead to objects, and never out of what is served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from ndstream.core.model import Dataset, ExternalLink, Group, Node, Unreadable
from ndstream.errors import DataError, NotFound

from .conftest import Asked

SECRET = np.arange(4, dtype="<i4") + 1000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Asked]:
    """A worker over a directory that has a neighbour which is not served."""
    (tmp_path / "served/sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    with h5py.File(tmp_path / "outside/secret.h5", "w") as file:
        file["d"] = SECRET
    (tmp_path / "outside/raw.bin").write_bytes(SECRET.tobytes())
    asked = Asked(tmp_path / "served")
    yield asked
    asked.worker.close()


def write(path: Path, values: int = 0) -> Path:
    with h5py.File(path, "w") as file:
        file["d"] = np.arange(4, dtype="<i4") + values
        file["group/d"] = np.arange(4, dtype="<i4") + values + 10
    return path


def first(asked: Asked, path: str, name: str) -> int:
    data = asked.fetch(path, name, (0, 1, 1))
    assert isinstance(data, bytes)
    return int(np.frombuffer(data, "<i4")[0])


# -- names and soft links --


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("/d", 0),
        ("//d/", 0),
        ("/./group/../d", 0),
        ("/nowhere/../d", 0),
        ("/../../d", 0),
        ("/group/d", 10),
        ("/group/relative", 10),
        ("/group/up", 0),
        ("/group/absolute", 0),
        ("/to_group/d", 10),
        ("/to_group/relative", 10),
        ("/to_group/up", 0),
        ("/chain", 10),
    ],
)
def test_names_and_soft_links_are_followed(served: Asked, name: str, value: int) -> None:
    with h5py.File(write(served.root / "f.h5"), "a") as file:
        file["group/relative"] = h5py.SoftLink("d")
        file["group/up"] = h5py.SoftLink("../d")
        file["group/absolute"] = h5py.SoftLink("/d")
        file["to_group"] = h5py.SoftLink("group/.")
        file["chain"] = h5py.SoftLink("to_group/relative")

    if name == "/nowhere/../d":
        with pytest.raises(NotFound):
            served.describe("f.h5", name)
    else:
        assert first(served, "f.h5", name) == value


@pytest.mark.parametrize("target", ["loop", "/loop", "nothing", "d/below", "", "../../../x"])
def test_soft_links_that_lead_nowhere_are_not_found(served: Asked, target: str) -> None:
    with h5py.File(write(served.root / "f.h5"), "a") as file:
        file["loop"] = h5py.SoftLink(target or "loop/")

    with pytest.raises(NotFound):
        served.fetch("f.h5", "/loop", (0, 1, 1))


def test_links_are_followed_so_far_and_no_further(served: Asked) -> None:
    with h5py.File(write(served.root / "f.h5"), "a") as file:
        file["link0"] = h5py.SoftLink("/d")
        for number in range(1, 10):
            file[f"link{number}"] = h5py.SoftLink(f"/link{number - 1}")

    assert first(served, "f.h5", "/link7") == 0
    with pytest.raises(NotFound, match="more than 8 links"):
        served.describe("f.h5", "/link8")


# -- external links --


def test_external_links_are_relative_to_the_file_that_holds_them(served: Asked) -> None:
    write(served.root / "beside.h5", 100)
    write(served.root / "sub/beside.h5", 200)
    with h5py.File(served.root / "sub/f.h5", "w") as file:
        file["beside"] = h5py.ExternalLink("beside.h5", "/d")
        file["above"] = h5py.ExternalLink("../beside.h5", "group")
        file["absolute"] = h5py.ExternalLink(str(served.root / "beside.h5"), "d")
    with h5py.File(served.root / "f.h5", "w") as file:
        file["two_steps"] = h5py.ExternalLink("sub/f.h5", "/above")

    assert first(served, "sub/f.h5", "/beside") == 200
    assert first(served, "sub/f.h5", "/above/d") == 110
    assert first(served, "sub/f.h5", "/absolute") == 100
    assert first(served, "f.h5", "/two_steps/d") == 110


def test_external_links_in_a_circle_are_not_found(served: Asked) -> None:
    with h5py.File(served.root / "f.h5", "w") as file:
        file["x"] = h5py.ExternalLink("f.h5", "/x")

    with pytest.raises(NotFound):
        served.describe("f.h5", "/x")
    assert served.describe("f.h5") == served.describe("f.h5")


def _outside(served: Asked) -> dict[str, str]:
    (served.root / "symbolic.h5").symlink_to("../outside/secret.h5")
    (served.root / "door").symlink_to("../outside")
    (served.root / ".dotted").mkdir()
    write(served.root / ".dotted/f.h5")
    os.mkfifo(served.root / "pipe.h5")
    return {
        "above": "../outside/secret.h5",
        "around": "sub/../../outside/secret.h5",
        "absolute": str(served.root.parent / "outside/secret.h5"),
        "symbolic": "symbolic.h5",
        "door": "door/secret.h5",
        "dotted": ".dotted/f.h5",
        "pipe": "pipe.h5",
        "directory": "sub",
        "missing": "missing.h5",
    }


def test_external_links_do_not_leave_what_is_served(served: Asked) -> None:
    targets = _outside(served)
    with h5py.File(served.root / "f.h5", "w") as file:
        for name, target in targets.items():
            file[name] = h5py.ExternalLink(target, "/d")

    members = _group(served.describe("f.h5", depth=3)).members

    assert members == {name: ExternalLink(filename=target, target="/d") for name, target in targets.items()}
    texts = set()
    for name in targets:
        with pytest.raises(NotFound) as caught:
            served.fetch("f.h5", f"/{name}", (0, 1, 1))
        texts.add(str(caught.value).replace(f"/{name}", ""))
    assert len(texts) == 1  # what is outside and what is not there cannot be told apart


def test_the_way_through_another_file_is_gone_with_it(served: Asked) -> None:
    with h5py.File(write(served.root / "f.h5", 7), "a") as file:
        file["round"] = h5py.ExternalLink("other.h5", "/back")
    with h5py.File(served.root / "other.h5", "w") as file:
        file["back"] = h5py.ExternalLink("f.h5", "/d")
    assert first(served, "f.h5", "/round") == 7

    (served.root / "other.h5").unlink()

    with pytest.raises(NotFound):
        served.fetch("f.h5", "/round", (0, 1, 1))


def test_a_file_written_in_place_is_read_anew(served: Asked) -> None:
    path = write(served.root / "f.h5", 5)
    assert first(served, "f.h5", "/d") == 5

    data = path.read_bytes()
    path.write_bytes(data.replace(np.arange(5, 9, dtype="<i4").tobytes(), np.arange(77, 81, dtype="<i4").tobytes()))

    assert first(served, "f.h5", "/d") == 77


def test_external_links_do_not_lead_to_what_is_hidden(served: Asked) -> None:
    write(served.root / "sub/hidden.h5")
    with h5py.File(served.root / "f.h5", "w") as file:
        file["x"] = h5py.ExternalLink("sub/hidden.h5", "/d")

    seen = _group(served.describe("f.h5")).members["x"]
    hidden = _group(served.describe("f.h5", hidden=("sub",))).members["x"]

    assert isinstance(seen, Dataset)
    assert isinstance(hidden, ExternalLink)


def _group(node: Node) -> Group:
    assert isinstance(node, Group)
    return node


# -- virtual datasets --


def virtual(path: Path, filename: str, name: str = "d") -> None:
    layout = h5py.VirtualLayout((4,), "<i4")
    layout[:] = h5py.VirtualSource(filename, name, (4,), "<i4")
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout, fillvalue=-1)


def values(asked: Asked, path: str, name: str = "/v", count: int = 4) -> list[int]:
    data = asked.fetch(path, name, (0, count, 1))
    assert isinstance(data, bytes)
    return [int(value) for value in np.frombuffer(data, "<i4")]


def test_virtual_datasets_read_their_sources(served: Asked) -> None:
    write(served.root / "source.h5", 5)
    virtual(served.root / "f.h5", "source.h5")
    virtual(served.root / "missing.h5", "nowhere.h5")
    virtual(served.root / "sub/above.h5", "../source.h5", "/group/d")
    virtual(served.root / "twice.h5", "f.h5", "v")

    assert values(served, "f.h5") == [5, 6, 7, 8]
    assert values(served, "missing.h5") == [-1] * 4
    assert values(served, "sub/above.h5") == [15, 16, 17, 18]
    assert values(served, "twice.h5") == [5, 6, 7, 8]
    assert isinstance(served.describe("f.h5", "/v"), Dataset)
    assert not served.lasting


def test_a_source_that_changes_is_read_anew(served: Asked) -> None:
    source = write(served.root / "source.h5", 5)
    virtual(served.root / "f.h5", "source.h5")
    assert values(served, "f.h5")[0] == 5

    # As another process would: the library in this one has the file open.
    data = source.read_bytes()
    source.write_bytes(data.replace(np.arange(5, 9, dtype="<i4").tobytes(), np.arange(77, 81, dtype="<i4").tobytes()))

    assert values(served, "f.h5")[0] == 77


def test_virtual_datasets_do_not_leave_what_is_served(served: Asked) -> None:
    for name, target in _outside(served).items():
        virtual(served.root / f"v_{name}.h5", target)
        virtual(served.root / f"twice_{name}.h5", f"v_{name}.h5", "v")

    for name in _outside_names(served):
        for path in (f"v_{name}.h5", f"twice_{name}.h5"):
            if name == "missing":
                continue
            with pytest.raises(DataError):
                served.fetch(path, "/v", (0, 4, 1))
            with pytest.raises(DataError):
                served.describe(path, "/v")
            member = _group(served.describe(path)).members["v"]
            assert isinstance(member, Unreadable)
            assert "outside" not in member.problem


def _outside_names(served: Asked) -> list[str]:
    return [path.stem.removeprefix("v_") for path in served.root.glob("v_*.h5")]


@pytest.mark.parametrize("link", ["soft", "external", "literal"])
def test_sources_behind_links_are_checked_as_the_library_follows_them(served: Asked, link: str) -> None:
    with h5py.File(served.root / "source.h5", "w") as file:
        file["real"] = h5py.ExternalLink("../outside/secret.h5", "/d")
        match link:
            case "soft":
                file["d"] = h5py.SoftLink("/real")
            case "external":
                file["d"] = h5py.ExternalLink("source.h5", "real")
            case "literal":
                # To the library ".." is a name like any other.
                group = file.create_group("a")
                group.id.links.create_external(b"..", b"../outside/secret.h5", b"/")
                file["d"] = np.arange(4, dtype="<i4")
    virtual(served.root / "f.h5", "source.h5", "a/../d" if link == "literal" else "d")

    with pytest.raises(DataError):
        served.fetch("f.h5", "/v", (0, 4, 1))


def test_sources_behind_links_inside_are_read(served: Asked) -> None:
    write(served.root / "real.h5", 3)
    with h5py.File(served.root / "source.h5", "w") as file:
        file["d"] = h5py.ExternalLink("real.h5", "/d")
    virtual(served.root / "f.h5", "source.h5")

    assert values(served, "f.h5") == [3, 4, 5, 6]


def numbered(path: Path, filename: str, name: str) -> None:
    """Make a virtual dataset with one source for each number that there is."""
    plist = h5p.create(h5p.DATASET_CREATE)
    here = h5s.create_simple((4,), (h5s.UNLIMITED,))
    here.select_hyperslab((0,), (h5s.UNLIMITED,), (4,), (4,))
    source = h5s.create_simple((4,), (4,))
    plist.set_virtual(here, filename.encode(), name.encode(), source)
    plist.set_fill_value(np.array(-1, "<i4"))
    with h5py.File(path, "w", libver="latest") as file:
        h5d.create(file.id, b"v", h5t.STD_I32LE, h5s.create_simple((4,), (h5s.UNLIMITED,)), plist)


def test_numbered_sources_are_read_and_checked(served: Asked) -> None:
    for number in range(3):
        write(served.root / f"part{number}.h5", 10 * number)
    numbered(served.root / "f.h5", "part%b.h5", "d")

    node = served.describe("f.h5", "/v")
    assert isinstance(node, Dataset)
    assert node.shape == (12,)
    assert values(served, "f.h5", count=12) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]

    (served.root / "part2.h5").unlink()
    (served.root / "part2.h5").symlink_to("../outside/secret.h5")
    with pytest.raises(DataError):
        served.fetch("f.h5", "/v", (0, 12, 1))
    with pytest.raises(DataError):
        served.describe("f.h5", "/v")


def test_virtual_datasets_in_a_circle_are_refused(served: Asked) -> None:
    virtual(served.root / "a.h5", "b.h5", "v")
    virtual(served.root / "b.h5", "a.h5", "v")
    virtual(served.root / "itself.h5", ".", "v")

    for path in ("a.h5", "b.h5", "itself.h5"):
        with pytest.raises(DataError):
            served.fetch(path, "/v", (0, 4, 1))


def test_more_sources_than_open_files_are_all_read(served: Asked) -> None:
    layout = h5py.VirtualLayout((12,), "<i4")
    for number in range(12):
        write(served.root / f"part{number}.h5", number)
        layout[number] = h5py.VirtualSource(f"part{number}.h5", "d", (4,), "<i4")[0]
    with h5py.File(served.root / "f.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    with h5py.File(served.root / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink("f.h5", "/v")

    assert values(served, "f.h5", count=12) == list(range(12))
    assert values(served, "link.h5", "/x", count=12) == list(range(12))


# -- external storage --


def external(path: Path, filename: str) -> None:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_external(filename.encode(), 0, 16)
    with h5py.File(path, "w") as file:
        h5d.create(file.id, b"v", h5t.STD_I32LE, h5s.create_simple((4,)), plist)


def test_external_storage_does_not_leave_what_is_served(served: Asked) -> None:
    targets = {
        "above": "../outside/raw.bin",
        "absolute": str(served.root.parent / "outside/raw.bin"),
        "symbolic": "symbolic.bin",
        "device": "/dev/zero",
        "pipe": "pipe.bin",
    }
    (served.root / "symbolic.bin").symlink_to("../outside/raw.bin")
    os.mkfifo(served.root / "pipe.bin")
    for name, target in targets.items():
        external(served.root / f"{name}.h5", target)

        with pytest.raises(DataError):
            served.fetch(f"{name}.h5", "/v", (0, 4, 1))
        with pytest.raises(DataError):
            served.describe(f"{name}.h5", "/v")
