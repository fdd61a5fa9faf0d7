"""Everything in the sample files, read over a socket from a real server, is what h5py reads from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

import ndstream
from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.testing.sample import write_sample

REFERENCES = (h5py.Reference, h5py.RegionReference)
DEEP = 5
PROPERTIES = (
    *("shape", "ndim", "size", "nbytes", "maxshape", "chunks", "fillvalue", "is_virtual"),
    *("compression", "compression_opts", "filter_ids", "shuffle", "fletcher32", "scaleoffset"),
)
assert hdf5plugin.FILTERS, "h5py reads the sample with these"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sample")
    write_sample(made / "old.h5")
    write_sample(made / "new.h5", libver="latest")
    return made


@pytest.fixture(scope="module")
def server(ndstream_module_server: ServerFactory, folder: Path) -> LocalServer:
    return ndstream_module_server(folder)


@pytest.mark.parametrize("name", ["old.h5", "new.h5"])
@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["sliced", "inline"])
def test_every_object_of_the_sample_is_read_as_h5py_reads_it(
    server: LocalServer, folder: Path, name: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # h5py opens external storage relative to where the process is.
    monkeypatch.chdir(folder)
    remote = ndstream.open(server.url, name, data_size_limit=limit)
    with h5py.File(folder / name) as local:
        differences = list(compare(remote.root, local, ""))
    assert not differences, "\n".join(map(str, differences))


def compare(remote: Any, local: Any, path: str) -> Iterator[tuple[str, str, str, str]]:
    """Everything that differs, by path."""
    if path.count("/") > DEEP:
        return
    yield from compare_attributes(remote, local, path)
    if isinstance(local, h5py.Dataset):
        yield from compare_datasets(remote, local, path)
    elif isinstance(local, h5py.Group):
        yield from compare_groups(remote, local, path)
    elif remote.dtype != local.dtype:
        yield path, "dtype", str(remote.dtype), str(local.dtype)


def compare_attributes(remote: Any, local: Any, path: str) -> Iterator[tuple[str, str, str, str]]:
    if sorted(remote.attrs) != sorted(local.attrs):
        yield path, "attributes", str(list(remote.attrs)), str(list(local.attrs))
    for name in local.attrs:
        left, right = value(remote.attrs, name), value(local.attrs, name)
        if not same(left, right):
            yield path, f"@{name}", repr(left), repr(right)


def compare_datasets(remote: Any, local: h5py.Dataset, path: str) -> Iterator[tuple[str, str, str, str]]:
    try:
        dtype = local.dtype
    except TypeError:
        return  # h5py has no such dtype
    if remote.dtype != dtype or metadata(remote.dtype) != metadata(dtype):
        yield path, "dtype", f"{remote.dtype} {remote.dtype.metadata}", f"{dtype} {dtype.metadata}"
    for name in PROPERTIES:
        left, right = getattr(remote, name), getattr(local, name)
        if not same(left, right):
            yield path, name, repr(left), repr(right)
    for key in [(), ..., np.s_[1:], np.s_[..., 0], np.s_[::2], np.s_[-1]]:
        left, right = value(remote, key), value(local, key)
        if not same(left, right):
            yield path, repr(key), repr(left), repr(right)


def compare_groups(remote: Any, local: h5py.Group, path: str) -> Iterator[tuple[str, str, str, str]]:
    readable = [name for name in local if isinstance(name, str)]
    if (
        not local.id.get_create_plist().get_link_creation_order()
        and [name for name in remote if name in readable] != readable
    ):
        yield path, "members", str(list(remote)), str(list(local))
    for name in readable:
        link = local.get(name, getlink=True)
        told = remote.get(name, getlink=True)
        if link_parts(told) != link_parts(link):
            yield path, name, repr(told), repr(link)
        if isinstance(link, h5py.HardLink):
            yield from compare(remote[name], local[name], f"{path}/{name}")


def link_parts(link: Any) -> tuple[str, str | None, str | None]:
    return type(link).__name__, getattr(link, "filename", None), getattr(link, "path", None)


def value(source: Any, key: Any) -> Any:
    try:
        return source[key]
    except Exception as error:  # noqa: BLE001 - what h5py raises is compared
        return type(error)


def metadata(dtype: np.dtype[Any]) -> dict[str, Any]:
    found = dict(dtype.metadata or {})
    if "ref" in found:
        found["ref"] = None
    return found


def same(left: Any, right: Any) -> bool:
    """Equal in value, type, shape, to the byte; references are paths on one side."""
    if isinstance(right, type):
        return isinstance(left, type) and (issubclass(left, right) or issubclass(right, IndexError | ValueError))
    if isinstance(right, h5py.Empty):
        return bool(left == right)
    if isinstance(right, REFERENCES):
        return left is None or isinstance(left, (str, dict))
    a, b = np.asarray(left), np.asarray(right)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if b.dtype.names:
        return all(same(a[name], b[name]) for name in b.dtype.names)
    if b.dtype.kind != "O":
        return a.tobytes() == b.tobytes()
    if b.ndim:
        return all(same_items(x, y) for x, y in zip(a.flat, b.flat, strict=True))
    return same_items(a[()], b[()])


def same_items(left: Any, right: Any) -> bool:
    if isinstance(right, (np.ndarray, *REFERENCES)):
        return same(left, right)
    return type(left) is type(right) and bool(left == right)
