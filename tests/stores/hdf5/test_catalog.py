"""The catalog shows what is on disk now, and finds files cheaply."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import msgspec
import pytest

from ndstream.core.limits import Limits
from ndstream.core.model import Directory, File
from ndstream.core.ports import ANYBODY, Access
from ndstream.errors import ConfigError, DataError, NotFound, TooLarge
from ndstream.stores.hdf5 import catalog as catalog_module
from ndstream.stores.hdf5.catalog import Catalog
from ndstream.stores.hdf5.generation import generation_of

HDF5 = "application/x-hdf5"


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    touch(root / "README", b"hello")
    touch(root / "a" / "one.h5", b"1" * 10)
    touch(root / "a" / "deep" / "two.hdf5", b"2" * 20)
    touch(root / "b" / "three.dat", b"3" * 30)
    return root


def directory(catalog: Catalog, path: str = "", depth: int = 0, access: Access = ANYBODY) -> Directory:
    found = catalog.lookup(path, access, depth)
    assert isinstance(found, Directory)
    return found


# -- listings --


def test_one_directory_is_the_root_of_the_tree(tree: Path) -> None:
    root = directory(Catalog({"": tree}))
    assert list(root.files) == ["README"]
    assert root.directories == {"a": None, "b": None}
    assert (root.path, root.size) == ("", 65)


def test_directories_are_expanded_as_deep_as_asked(tree: Path) -> None:
    catalog = Catalog({"": tree})
    a = directory(catalog, depth=1).directories["a"]
    assert a is not None
    assert (a.path, a.size, list(a.files), a.directories) == ("a", 30, ["one.h5"], {"deep": None})
    assert a.files["one.h5"].path == "a/one.h5"
    a = directory(catalog, depth=5).directories["a"]
    assert a is not None
    deep = a.directories["deep"]
    assert deep is not None
    assert deep.files["two.hdf5"].path == "a/deep/two.hdf5"
    assert directory(catalog, "a") == msgspec.structs.replace(a, directories={"deep": None})


def test_several_roots_stand_under_their_names(tree: Path) -> None:
    catalog = Catalog({"left": tree / "a", "right": tree / "b", "note.txt": tree / "README"})
    root = directory(catalog)
    assert root.directories == {"left": None, "right": None}
    assert root.files["note.txt"].media_type == "text/plain;charset=UTF-8"
    assert root.size == 65
    expanded = directory(catalog, depth=1)
    assert expanded.size == 65
    assert expanded.directories["right"] == directory(catalog, "right")
    assert catalog.lookup("right/three.dat") == directory(catalog, "right").files["three.dat"]
    assert catalog.locate_file("note.txt").real == str(tree / "README")
    for path in ("README", "a", "left/..", "note.txt/x"):
        with pytest.raises(NotFound):
            catalog.lookup(path)


def test_a_file_is_described_as_it_is_now(tree: Path) -> None:
    catalog = Catalog({"": tree})
    first = catalog.lookup("a/one.h5")
    status = (tree / "a/one.h5").stat()
    assert first == File(
        path="a/one.h5",
        size=10,
        modified=status.st_mtime_ns,
        media_type=HDF5,
        generation=generation_of(status),
    )
    touch(tree / "new", b"n" * 100).replace(tree / "a/one.h5")
    second = directory(catalog, "a").files["one.h5"]
    assert second == catalog.lookup("a/one.h5")
    assert second.size == 100
    assert second.generation != first.generation
    assert directory(catalog).size == 155


def test_dot_files_special_files_and_undecodable_names_are_not_served(tree: Path) -> None:
    touch(tree / ".secret", b"s")
    touch(tree / ".git" / "config", b"s")
    os.mkfifo(tree / "pipe.h5")
    touch(Path(os.fsdecode(os.fsencode(tree) + b"/bad\xff.h5")))
    (Path(os.fsdecode(os.fsencode(tree) + b"/dir\xff"))).mkdir()
    touch(tree / "größe.h5", b"")
    catalog = Catalog({"": tree})
    root = directory(catalog)
    assert set(root.files) == {"README", "größe.h5"}
    assert set(root.directories) == {"a", "b"}
    assert root.size == 65
    for path in (".secret", ".git/config", ".git", "pipe.h5", "bad\udcff.h5", "dir\udcff"):
        for ask in (catalog.lookup, catalog.locate_file, catalog.open):
            with pytest.raises(NotFound):
                ask(path)


def test_a_directory_is_no_file(tree: Path) -> None:
    catalog = Catalog({"": tree})
    for ask in (catalog.locate_file, catalog.open):
        for path in ("", "a"):
            with pytest.raises(NotFound):
                ask(path)


def test_what_cannot_be_entered_is_not_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, to whom nothing is closed: refuse in place of the kernel.
    refused = str(tree / "a")
    genuine = os.open

    def guarded(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == refused and flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return genuine(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", guarded)
    catalog = Catalog({"": tree})
    for depth in (0, 1):
        root = directory(catalog, depth=depth)
        assert list(root.directories) == ["b"]
        assert root.size == 35
    with pytest.raises(NotFound):
        catalog.lookup("a")


def test_a_listing_longer_than_a_document_is_refused(tree: Path) -> None:
    for number in range(50):
        touch(tree / "many" / f"{number}.h5")
    catalog = Catalog({"": tree}, limits=Limits(document=4000))
    assert directory(catalog).directories["many"] is None
    with pytest.raises(TooLarge, match="limit 'document'"):
        catalog.lookup("many")


def test_links_are_listed_as_what_they_lead_to(tree: Path) -> None:
    (tree / "b" / "alias.h5").symlink_to("../a/one.h5")
    (tree / "b" / "folder").symlink_to(tree / "a")
    (tree / "b" / "broken").symlink_to("nowhere")
    catalog = Catalog({"": tree})
    b = directory(catalog, "b", depth=1)
    assert set(b.files) == {"alias.h5", "three.dat"}
    assert b.files["alias.h5"].size == 10
    assert b.files["alias.h5"].path == "b/alias.h5"
    folder = b.directories["folder"]
    assert folder is not None
    assert folder.files["one.h5"].path == "b/folder/one.h5"
    assert b.size == 30 + 10 + 30
    assert directory(catalog, "b").size == b.size
    assert catalog.locate_file("b/folder/deep/two.hdf5").real == str(tree / "a/deep/two.hdf5")


def test_cycles_of_links_end(tree: Path) -> None:
    (tree / "a" / "up").symlink_to("..")
    (tree / "a" / "self").symlink_to(".")
    (tree / "a" / "across").symlink_to("../b")
    (tree / "b" / "back").symlink_to("../a")
    catalog = Catalog({"": tree})

    def walk(path: str) -> int:
        return 1 + sum(walk(f"{path}/{name}" if path else name) for name in directory(catalog, path).directories)

    assert walk("") == len([".", "a", "a/across", "a/deep", "b", "b/back", "b/back/deep"])
    assert directory(catalog).size == directory(catalog, depth=100).size == 5 + (10 + 20 + 30) + (30 + 10 + 20)


def test_deep_trees_are_cut_not_overflown(tmp_path: Path) -> None:
    here = tmp_path
    for _ in range(300):
        here /= "d"
        here.mkdir()
    touch(tmp_path / "top.h5", b"123")
    catalog = Catalog({"": tmp_path})
    assert directory(catalog).size == 3
    assert directory(catalog, depth=1 << 30).size == 3
    with pytest.raises(NotFound):
        catalog.lookup("/".join("d" * 200))


# -- media types --


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("x.h5", HDF5),
        ("x.HDF5", HDF5),
        ("x.yml", "application/yaml"),
        ("x.yaml", "application/yaml"),
        ("x.txt", "text/plain;charset=UTF-8"),
        ("x.md", "text/plain;charset=UTF-8"),
        ("README", "text/plain;charset=UTF-8"),
        ("LICENSE", "text/plain;charset=UTF-8"),
        ("x.dat", "application/octet-stream"),
        ("h5", "application/octet-stream"),
        ("x.nc", "application/octet-stream"),
    ],
)
def test_media_types_follow_the_name(tmp_path: Path, name: str, media_type: str) -> None:
    touch(tmp_path / name, b"CDF\x01")
    found = Catalog({"": tmp_path}).lookup(name)
    assert isinstance(found, File)
    assert found.media_type == media_type


@pytest.mark.parametrize("suffix", [".nc", ".nc4", ".nxs", ".he5", ".hdf"])
@pytest.mark.parametrize("user_block", [0, 512, 2048])
def test_shared_suffixes_are_hdf5_when_the_content_says_so(tmp_path: Path, suffix: str, user_block: int) -> None:
    path = tmp_path / f"x{suffix}"
    h5py.File(path, "w", userblock_size=user_block).close()
    catalog = Catalog({"": tmp_path})
    found = catalog.lookup(path.name)
    assert isinstance(found, File)
    assert found.is_hdf5
    path.write_bytes(b"no longer")
    assert not directory(catalog).files[path.name].is_hdf5


def test_media_types_can_be_overridden_by_name_and_by_path(tree: Path) -> None:
    catalog = Catalog({"": tree}, media_types={"b/*.dat": HDF5, "*.h5": "application/x-other", "one.*": "never"})
    for path, media_type in (("b/three.dat", HDF5), ("a/one.h5", "application/x-other")):
        found = catalog.lookup(path)
        assert isinstance(found, File)
        assert found.media_type == media_type


# -- descriptions and labels --


def test_description_and_labels_come_from_files_in_the_directory(tree: Path) -> None:
    touch(tree / "description.md", "# Größe".encode())
    touch(tree / "labels.toml", b'a = "the *first*"\n"b.h5" = "other"\n')
    touch(tree / "a" / "labels.msgpack", msgspec.msgpack.encode({"one.h5": "One"}))
    catalog = Catalog({"": tree})
    root = directory(catalog, depth=1)
    assert root.description == "# Größe"
    assert root.labels == {"a": "the *first*", "b.h5": "other"}
    a = root.directories["a"]
    assert a is not None
    assert (a.description, a.labels) == (None, {"one.h5": "One"})
    touch(tree / "description.md", b"changed")
    assert directory(catalog).description == "changed"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("description.md", b"\xff\xfe"),
        ("description.md", b"x" * (256 * 1024 + 1)),
        ("labels.toml", b"a = 1"),
        ("labels.toml", b"a = "),
        ("labels.toml", b"[a]\nb = 'x'"),
        ("labels.msgpack", b"\x81\xa1a\x01"),
        ("labels.msgpack", b"\xc1"),
    ],
)
def test_malformed_notes_are_logged_once_and_left_out(
    tree: Path, name: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tree / name, content)
    catalog = Catalog({"": tree})
    for _ in range(2):
        root = directory(catalog)
        assert (root.description, root.labels) == (None, None)
        assert name in root.files
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# -- files --


def test_open_gives_the_file_that_was_found(tree: Path) -> None:
    file, descriptor = Catalog({"": tree}).open("a/one.h5")
    try:
        assert os.read(descriptor, 100) == b"1" * 10
        assert file.generation == generation_of(os.fstat(descriptor))
        assert file == Catalog({"": tree}).lookup("a/one.h5")
    finally:
        os.close(descriptor)


def test_a_file_that_cannot_be_opened_is_a_data_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.open

    def guarded(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path.startswith("/proc/self/fd/"):
            raise PermissionError(13, "Permission denied")
        return genuine(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", guarded)
    with pytest.raises(DataError, match=r"^a/one.h5: cannot be opened: Permission denied$"):
        Catalog({"": tree}).open("a/one.h5")


def test_an_unchanged_file_is_found_with_one_stat(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "TRUST", 1e9)
    catalog = Catalog({"": tree})
    first = catalog.locate_file("a/one.h5")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", None)
        patch.setattr(os, "readlink", None)
        assert catalog.locate_file("a/one.h5") is first
    os.utime(tree / "a/one.h5", ns=(1, 1))
    second = catalog.locate_file("a/one.h5")
    assert second.generation == generation_of((tree / "a/one.h5").stat()) != first.generation
    (tree / "a/one.h5").unlink()
    with pytest.raises(NotFound):
        catalog.locate_file("a/one.h5")


def test_a_file_that_is_replaced_while_it_is_looked_up_is_there(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree / "a" / "one.h5"
    found = os.open

    def late(place: str, flags: int) -> int:
        descriptor = found(place, flags)
        if not replaced:
            replaced.append(touch(tree / "new", b"22").replace(path))
        return descriptor

    replaced: list[Path] = []
    monkeypatch.setattr(os, "open", late)
    assert Catalog({"": tree}).locate_file("a/one.h5").status.st_size == 2
    assert replaced


def test_trust_in_a_path_ends(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that moved out of the tree, unchanged, and left a link behind: its state alone does not tell."""
    catalog = Catalog({"": tree})
    monkeypatch.setattr(catalog_module, "TRUST", -1.0)
    assert catalog.locate_file("a/one.h5")
    (tree / "a/one.h5").rename(tmp_path / "one.h5")
    (tree / "a/one.h5").symlink_to(tmp_path / "one.h5")
    with pytest.raises(NotFound):
        catalog.locate_file("a/one.h5")


def test_a_single_file_is_described_without_a_walk(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog({"": tree})
    expected = directory(catalog, "a").files["one.h5"]
    monkeypatch.setattr(os, "scandir", None)
    assert catalog.file("a/one.h5") == expected
    assert catalog.file("a") is None
    assert catalog.file("") is None
    with pytest.raises(NotFound):
        catalog.file("nothing")


def test_no_descriptor_is_left_open(tree: Path) -> None:
    (tree / "b" / "alias.h5").symlink_to("../a/one.h5")
    (tree / "b" / "out").symlink_to("/etc")
    catalog = Catalog({"": tree}, limits=Limits(document=1200))
    before = set(Path("/proc/self/fd").iterdir())
    for path in ("", "a", "b", "a/one.h5", "b/alias.h5", "b/out", "b/out/passwd", "nothing", "../x"):
        for ask in (catalog.lookup, catalog.locate_file):
            try:
                ask(path)
            except (NotFound, TooLarge):
                continue
    with pytest.raises(TooLarge):
        catalog.lookup("", depth=9)
    with pytest.raises(NotFound):
        catalog.open("a")
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_threads_may_ask_at_once(tree: Path) -> None:
    catalog = Catalog({"": tree})
    expected = catalog.lookup("", depth=3)

    def ask(_: int) -> bool:
        return catalog.lookup("", depth=3) == expected and catalog.locate_file("a/one.h5").status.st_size == 10

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(200)))


# -- configuration --


def test_roots_that_cannot_be_served_are_refused_at_the_start(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    for roots, reason in [
        ({"x": tree / "nothing"}, "cannot be served: No such file"),
        ({"a/b": tree}, "cannot name what is served"),
        ({".a": tree}, "cannot name what is served"),
        ({"..": tree}, "cannot name what is served"),
        ({"": tree / "README"}, "that is one directory, alone"),
        ({"": tree, "a": tree / "a"}, "that is one directory, alone"),
        ({"p": tree / "pipe"}, "neither a directory nor a file"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            Catalog(roots)


def test_a_root_that_goes_away_later_is_not_found(tree: Path, tmp_path: Path) -> None:
    catalog = Catalog({"left": tree / "a", "right": tree / "b"})
    (tree / "a").rename(tmp_path / "moved")
    assert list(directory(catalog).directories) == ["right"]
    with pytest.raises(NotFound):
        catalog.lookup("left")
