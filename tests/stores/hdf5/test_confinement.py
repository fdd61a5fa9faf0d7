"""Nothing outside of the served tree is ever shown, and nothing hidden, by whatever route."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from ndstream.core import model
from ndstream.core.limits import Limits
from ndstream.core.model import Directory, ExternalLink
from ndstream.core.operations import CreateGroup
from ndstream.core.ports import ANYBODY, Access, Detail, Writing
from ndstream.core.selection import select
from ndstream.errors import DataError, Forbidden, NDStreamError, NotFound
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.arrays import collect

SECRET = 666
PUBLIC = 1
SHAPE = (10,)
OUTSIDER = Access(user="outsider", hidden=frozenset({"private", "alias"}))


def put(path: Path, value: int) -> Path:
    """Make a file whose every way to data holds `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["x"] = np.full(SHAPE, value, "<i4")
        file["group/x"] = np.full(SHAPE, value, "<i4")
        file.attrs["value"] = value
    path.with_suffix(".raw").write_bytes(np.full(SHAPE, value, "<i4").tobytes())
    return path


class Tree:
    """A served directory beside one that is not, and a store over it."""

    def __init__(self, place: Path, runner: asyncio.Runner) -> None:
        self.root = place / "root"
        self.outside = place / "outside"
        put(self.root / "open" / "a.h5", PUBLIC)
        put(self.root / "private" / "a.h5", SECRET)
        put(self.root / "hoard" / "a.h5", SECRET)
        (self.root / "alias").symlink_to("hoard")  # a hidden name that is itself a link
        put(self.root / ".dot" / "a.h5", SECRET)
        put(self.outside / "a.h5", SECRET)
        put(place / "root-but-longer" / "a.h5", SECRET)
        self.store = HDF5Store({"": self.root}, limits=Limits(workers=1), writing=Writing(durability="flush"))
        self.runner = runner

    def read(self, path: str, name: str = "/x", access: Access = ANYBODY) -> set[int]:
        """Distinct values of a dataset."""

        async def work() -> set[int]:
            array = await collect(await self.store.read(path, name, access, lambda shape: select(..., shape)))
            return {int(value) for value in array.reshape(-1)}

        return self.runner.run(work())

    def refused(self, path: str, access: Access = ANYBODY) -> None:
        """No question about the path is answered, and the answer is the one for what is not there."""
        for ask in (
            lambda: self.store.lookup(path, access),
            lambda: self.store.open(path, access),
            lambda: self.store.describe(path, "/", access, Detail()),
            lambda: self.store.read(path, "/x", access, None),
        ):
            with pytest.raises(NotFound) as caught:
                self.runner.run(ask())
            assert str(self.root) not in str(caught.value)
            assert str(self.outside) not in str(caught.value)

    def refused_object(self, path: str, name: str, access: Access = ANYBODY) -> None:
        """The dataset is not read, and what is said names no real path."""
        with pytest.raises((NotFound, DataError)) as caught:
            self.read(path, name, access)
        assert str(self.root.parent) not in str(caught.value)

    def listed(self, path: str, access: Access = ANYBODY) -> Directory:
        found = self.runner.run(self.store.lookup(path, access))
        assert isinstance(found, Directory)
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with asyncio.Runner() as runner:
        tree = Tree(tmp_path, runner)
        yield tree
        runner.run(tree.store.aclose())


# -- text --


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../outside/a.h5",
        "open/../../outside/a.h5",
        "open/../open/a.h5",
        "./open/a.h5",
        "open/./a.h5",
        "/etc/passwd",
        "//etc/passwd",
        "open//a.h5",
        "/",
        "open/a.h5/",
        "open/a.h5/..",
        "%2e%2e/outside/a.h5",
        "..%2foutside/a.h5",
        "..\\outside\\a.h5",
        "open/a.h5\0",
        "\0",
        "../root-but-longer/a.h5",
        "-but-longer/a.h5",
        "~/a.h5",
        "\u2024\u2024/outside/a.h5",
        ".dot/a.h5",
        "open/" * 3000,
        "x" * 300,
    ],
)
def test_no_spelling_of_a_path_leads_out(tree: Tree, path: str) -> None:
    tree.refused(path)


# -- links on disk --


@pytest.mark.parametrize("absolute", [False, True])
def test_links_that_stay_inside_are_followed(tree: Tree, absolute: bool) -> None:
    target = tree.root / "open" if absolute else Path("open")
    (tree.root / "link").symlink_to(target)
    (tree.root / "link.h5").symlink_to(target / "a.h5")
    (tree.root / "chain.h5").symlink_to("link.h5")
    for path in ("link/a.h5", "link.h5", "chain.h5"):
        assert tree.read(path) == {PUBLIC}


@pytest.mark.parametrize(
    "target", ["../outside", "../root-but-longer", "/etc", "/", "..", "/proc/self/cwd", "/proc/self/root", ".dot"]
)
def test_directories_behind_links_that_lead_out_do_not_exist(tree: Tree, target: str) -> None:
    (tree.root / "link").symlink_to(target)
    (tree.root / "chain").symlink_to("link")
    (tree.root / "open" / "further").symlink_to("../chain")
    before = tree.listed("")
    for path in ("link", "chain", "open/further"):
        tree.refused(path)
        tree.refused(f"{path}/a.h5")
    assert not {"link", "chain"} & (set(before.directories) | set(before.files))
    assert "further" not in tree.listed("open").directories


@pytest.mark.parametrize("target", ["../outside/a.h5", "/etc/hostname", "/dev/zero", "/proc/self/environ", ".dot/a.h5"])
def test_files_behind_links_that_lead_out_do_not_exist(tree: Tree, target: str) -> None:
    (tree.root / "link.h5").symlink_to(target)
    (tree.root / "chain.h5").symlink_to("link.h5")
    tree.refused("link.h5")
    tree.refused("chain.h5")
    assert tree.listed("").files == {}


def test_pipes_and_sockets_are_not_opened(tree: Tree) -> None:
    os.mkfifo(tree.root / "pipe.h5")
    (tree.root / "link.h5").symlink_to("pipe.h5")
    tree.refused("pipe.h5")
    tree.refused("link.h5")


def _swap_directory(tree: Tree) -> None:
    (tree.root / "open").rename(tree.root / "moved")
    (tree.root / "open").symlink_to(tree.outside)


def _swap_file(tree: Tree) -> None:
    (tree.root / "open" / "a.h5").unlink()
    (tree.root / "open" / "a.h5").symlink_to(tree.outside / "a.h5")


def _move_file_out(tree: Tree) -> None:
    (tree.root / "open" / "a.h5").rename(tree.outside / "was.h5")
    os.utime(tree.outside / "was.h5")  # another state, so that what was trusted a moment ago is looked at again
    (tree.root / "open" / "a.h5").symlink_to(tree.outside / "was.h5")


@pytest.mark.parametrize("swap", [_swap_directory, _swap_file, _move_file_out])
def test_what_is_swapped_for_a_link_after_it_was_served_is_gone(tree: Tree, swap: Callable[[Tree], None]) -> None:
    assert tree.read("open/a.h5") == {PUBLIC}
    tree.runner.run(tree.store.describe("open/a.h5", "/", ANYBODY, Detail()))
    swap(tree)
    tree.refused("open/a.h5")


def test_a_race_of_swaps_never_shows_what_is_outside(tree: Tree) -> None:
    """Somebody swaps a directory for a link that leads out, over and over, while we read."""
    spot = tree.root / "spot"
    inside, link = tree.root / "inside", tree.root / "leading-out"
    put(inside / "a.h5", PUBLIC)
    link.symlink_to(tree.outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            inside.rename(spot)
            spot.rename(inside)
            link.rename(spot)
            spot.rename(link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen: set[int] = set()
        for turn in range(300):
            try:
                if turn % 3:
                    seen |= tree.read("spot/a.h5")
                else:
                    opened = tree.runner.run(tree.store.open("spot/a.h5", ANYBODY))
                    with os.fdopen(opened.descriptor, "rb") as file:
                        seen.add(SECRET if file.read() == (tree.outside / "a.h5").read_bytes() else PUBLIC)
            except NDStreamError:
                continue
    finally:
        stop.set()
        swapper.join()
    assert seen <= {PUBLIC}


# -- links in files --


OUT = [
    "../../outside/a.h5",
    "../../root-but-longer/a.h5",
    "link-out.h5",
    "linked/a.h5",
    "../.dot/a.h5",
    "/proc/self/cwd/../outside/a.h5",
]


def _links_out(tree: Tree) -> list[str]:
    """Every spelling of a file outside, as seen from a file in ``open``."""
    (tree.root / "open" / "link-out.h5").symlink_to(tree.outside / "a.h5")
    (tree.root / "open" / "linked").symlink_to(tree.outside)
    return [*OUT, str(tree.outside / "a.h5")]


def test_external_links_that_stay_inside_are_followed(tree: Tree) -> None:
    with h5py.File(tree.root / "links.h5", "w") as file:
        file["relative"] = h5py.ExternalLink("open/a.h5", "/group")
        file["absolute"] = h5py.ExternalLink(str(tree.root / "open" / "a.h5"), "/x")
        file["twice"] = h5py.ExternalLink("links.h5", "/relative/x")
    for name in ("/relative/x", "/absolute", "/twice"):
        assert tree.read("links.h5", name) == {PUBLIC}


def test_external_links_that_lead_out_lead_nowhere(tree: Tree) -> None:
    targets = _links_out(tree)
    with h5py.File(tree.root / "open" / "links.h5", "w") as file:
        for number, target in enumerate(targets):
            file[f"link{number}"] = h5py.ExternalLink(target, "/")
            file[f"to_x{number}"] = h5py.ExternalLink(target, "/x")
            file[f"soft{number}"] = h5py.SoftLink(f"/link{number}/group")
            file[f"again{number}"] = h5py.ExternalLink("links.h5", f"/soft{number}")
    for number in range(len(targets)):
        for name in (f"/link{number}/x", f"/to_x{number}", f"/soft{number}/x", f"/again{number}/x"):
            with pytest.raises(NotFound):
                tree.read("open/links.h5", name)
            with pytest.raises(NotFound):
                tree.runner.run(tree.store.describe("open/links.h5", name, ANYBODY, Detail()))
    group = tree.runner.run(tree.store.describe("open/links.h5", "/", ANYBODY, Detail(depth=3, data=1000)))
    assert isinstance(group, model.Group)
    for number, target in enumerate(targets):
        assert group.members[f"link{number}"] == ExternalLink(filename=target, target="/")


def test_external_storage_that_lies_outside_is_not_read(tree: Tree) -> None:
    (tree.root / "open" / "link.raw").symlink_to(tree.outside / "a.raw")
    files = ["a.raw", "../../outside/a.raw", str(tree.outside / "a.raw"), "link.raw", "/etc/hostname", "/dev/zero"]
    with h5py.File(tree.root / "open" / "storage.h5", "w") as file:
        for number, name in enumerate(files):
            file.create_dataset(f"d{number}", SHAPE, "<i4", external=[(name, 0, 40)])
    assert tree.read("open/storage.h5", "/d0") == {PUBLIC}
    for number in range(1, len(files)):
        tree.refused_object("open/storage.h5", f"/d{number}")
    _group_survives(tree, "open/storage.h5", len(files))


def _group_survives(tree: Tree, path: str, count: int, access: Access = ANYBODY) -> None:
    """The root group is described with all members, and no secret is in what is said."""
    group = tree.runner.run(tree.store.describe(path, "/", access, Detail(depth=2, data=1000)))
    assert isinstance(group, model.Group)
    assert len(group.members) == count
    secret = np.full(SHAPE, SECRET, "<i4").tobytes()
    assert all(getattr(member, "data", None) != secret for member in group.members.values())


def _virtual(file: h5py.File, name: str, sources: list[tuple[str, str]]) -> None:
    layout = h5py.VirtualLayout((len(sources), *SHAPE), "<i4")
    for row, (source, dataset) in enumerate(sources):
        layout[row] = h5py.VirtualSource(source, dataset, SHAPE, "<i4")
    file.create_virtual_dataset(name, layout, fillvalue=0)


def test_virtual_datasets_of_sources_inside_are_read(tree: Tree) -> None:
    with h5py.File(tree.root / "virtual.h5", "w", libver="latest") as file:
        file["own"] = np.full(SHAPE, PUBLIC, "<i4")
        _virtual(file, "v", [("open/a.h5", "x"), (".", "own")])
        _virtual(file, "missing", [("open/a.h5", "x"), ("nowhere.h5", "x")])
    assert tree.read("virtual.h5", "/v") == {PUBLIC}
    assert tree.read("virtual.h5", "/missing") == {PUBLIC, 0}


def test_virtual_datasets_of_sources_outside_are_not_read(tree: Tree) -> None:
    targets = _links_out(tree)
    with h5py.File(tree.root / "open" / "virtual.h5", "w", libver="latest") as file:
        for number, target in enumerate(targets):
            file[f"link{number}"] = h5py.ExternalLink(target, "/x")
            _virtual(file, f"v{number}", [("a.h5", "x"), (target, "x")])
            _virtual(file, f"through{number}", [(".", f"link{number}")])
            _virtual(file, f"nested{number}", [(".", f"v{number}")])
    with h5py.File(tree.root / "top.h5", "w", libver="latest") as file:
        for number in range(len(targets)):
            _virtual(file, f"v{number}", [("open/virtual.h5", f"v{number}")])
    for number in range(len(targets)):
        for name in ("v", "through", "nested"):
            tree.refused_object("open/virtual.h5", f"/{name}{number}")
        tree.refused_object("top.h5", f"/v{number}")
    _group_survives(tree, "open/virtual.h5", 4 * len(targets))


def test_numbered_sources_of_virtual_datasets_are_all_checked(tree: Tree) -> None:
    put(tree.root / "open" / "part0.h5", PUBLIC)
    (tree.root / "open" / "part1.h5").symlink_to(tree.outside / "a.h5")
    rows = h5s.create_simple((2, *SHAPE), (h5s.UNLIMITED, *SHAPE))
    rows.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, *SHAPE), (1, *SHAPE))
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_virtual(rows, b"part%b.h5", b"x", h5s.create_simple(SHAPE))
    with h5py.File(tree.root / "open" / "virtual.h5", "w", libver="latest") as file:
        h5d.create(file.id, b"v", h5t.STD_I32LE, h5s.create_simple((2, *SHAPE), (h5s.UNLIMITED, *SHAPE)), plist)
    tree.refused_object("open/virtual.h5", "/v")
    (tree.root / "open" / "part1.h5").unlink()
    assert tree.read("open/virtual.h5", "/v") == {PUBLIC}


# -- what is hidden from some --


def test_what_is_hidden_is_seen_by_those_who_may(tree: Tree) -> None:
    for path in ("private/a.h5", "alias/a.h5", "hoard/a.h5"):
        assert tree.read(path) == {SECRET}


@pytest.mark.parametrize("path", ["private", "private/a.h5", "alias", "alias/a.h5", "hoard", "hoard/a.h5"])
def test_hidden_directories_are_not_there_by_any_of_their_names(tree: Tree, path: str) -> None:
    tree.refused(path, OUTSIDER)


def test_links_on_disk_do_not_lead_into_hidden_directories(tree: Tree) -> None:
    for name in ("private", "hoard"):
        (tree.root / "open" / f"to-{name}").symlink_to(tree.root / name)
        (tree.root / "open" / f"to-{name}.h5").symlink_to(f"../{name}/a.h5")
        assert tree.read(f"open/to-{name}.h5") == {SECRET}
        tree.refused(f"open/to-{name}", OUTSIDER)
        tree.refused(f"open/to-{name}/a.h5", OUTSIDER)
        tree.refused(f"open/to-{name}.h5", OUTSIDER)
    seen = tree.listed("open", OUTSIDER)
    assert (set(seen.files), set(seen.directories)) == ({"a.h5", "a.raw"}, set())


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize(
    "target", ["private/a.h5", "../outside/a.h5", "../outside/new.h5", ".dot/a.h5", "private/new.h5"]
)
def test_nothing_is_written_through_links_that_are_not_followed(tree: Tree, target: str, create: bool) -> None:
    (tree.root / "link.h5").symlink_to(target)
    writer = Access(user="writer", writable=frozenset({""}), hidden=frozenset({"private"}))
    place = tree.root / target
    before = place.read_bytes() if place.exists() else None
    with pytest.raises(NotFound):
        tree.runner.run(tree.store.apply("link.h5", writer, [CreateGroup(name="/made")], create=create))
    assert (place.read_bytes() if place.exists() else None) == before


def test_leave_to_write_somewhere_does_not_reach_through_links(tree: Tree) -> None:
    (tree.root / "mine").mkdir()
    (tree.root / "mine" / "link.h5").symlink_to("../open/a.h5")
    (tree.root / "mine" / "here.h5").symlink_to("b.h5")
    put(tree.root / "mine" / "b.h5", PUBLIC)
    writer = Access(user="writer", writable=frozenset({"mine"}))
    made = [CreateGroup(name="/made")]
    with pytest.raises(Forbidden):
        tree.runner.run(tree.store.apply("mine/link.h5", writer, made))
    tree.runner.run(tree.store.apply("mine/here.h5", writer, made))


def test_listings_and_sizes_leave_out_what_is_hidden(tree: Tree) -> None:
    everything, root = tree.listed(""), tree.listed("", OUTSIDER)
    assert set(everything.directories) == {"open", "private", "alias", "hoard"}
    assert set(root.directories) == {"open"}
    assert root.size == tree.listed("open").size < everything.size
    nested = Access(hidden=frozenset({"open/below"}))
    put(tree.root / "open" / "below" / "a.h5", SECRET)
    assert tree.listed("open", nested).size == tree.listed("", nested).size - 3 * tree.listed("private").size
    assert tree.listed("open", nested).directories == {}


@pytest.mark.parametrize("place", ["private", "hoard"])
def test_files_do_not_lead_into_hidden_directories(tree: Tree, place: str) -> None:
    with h5py.File(tree.root / "open" / "leads.h5", "w", libver="latest") as file:
        file["link"] = h5py.ExternalLink(f"../{place}/a.h5", "/x")
        file["group"] = h5py.ExternalLink(f"../{place}/a.h5", "/")
        file.create_dataset("storage", SHAPE, "<i4", external=[(f"../{place}/a.raw", 0, 40)])
        _virtual(file, "virtual", [(f"../{place}/a.h5", "x")])
        _virtual(file, "through", [(".", "link")])
    names = ("/link", "/group/x", "/storage", "/virtual", "/through")
    for name in names:
        assert tree.read("open/leads.h5", name) == {SECRET}
    for name in names:  # also when what others may see has just been found
        tree.refused_object("open/leads.h5", name, OUTSIDER)
    _group_survives(tree, "open/leads.h5", 5, OUTSIDER)


def test_a_file_named_as_a_root_is_served_and_nothing_beside_it(tree: Tree) -> None:
    async def work() -> None:
        store = HDF5Store({"only.h5": tree.root / "open" / "a.h5"}, limits=Limits(workers=1))
        try:
            assert (await collect(await store.read("only.h5", "/x", ANYBODY, None)) == PUBLIC).all()
            for path in ("a.h5", "only.h5/../a.raw", "a.raw", "only.h5/a.h5"):
                with pytest.raises(NotFound):
                    await store.lookup(path, ANYBODY)
            with pytest.raises(NotFound):
                await store.read("only.h5", "/beside", ANYBODY, None)
        finally:
            await store.aclose()

    with h5py.File(tree.root / "open" / "a.h5", "r+") as file:
        file["beside"] = h5py.ExternalLink("../hoard/a.h5", "/x")
    tree.runner.run(work())
