"""Read a whole served tree through ndstream and hold everything against h5py on the same files: a program of its own.

Usage: compare.py URL DIRECTORY. Prints one line of JSON with what was compared; ends with 1, and the differences on
the standard error stream, when there are any.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # registers the filters, for h5py
import numpy as np

import ndstream

MOST_AT_ONCE = 64 << 20  # bytes; larger datasets are read and compared in boxes of about this size


_LINKS = {h5py.h5l.TYPE_HARD: "HardLink", h5py.h5l.TYPE_SOFT: "SoftLink", h5py.h5l.TYPE_EXTERNAL: "ExternalLink"}


class Comparison:
    """What was compared, and what differs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.differences: list[str] = []
        self._place: list[str] = []

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Name what is looked at; what fails in here is a difference, and the rest is compared all the same."""
        self._place.append(place)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - told as a difference
            self.differ(f"{type(error).__name__}: {error}")
        finally:
            self._place.pop()

    def differ(self, text: str) -> None:
        self.differences.append(f"{' '.join(self._place)}: {text}")

    def same(self, what: str, got: Any, wanted: Any) -> None:
        self.counts[what] += 1
        if got != wanted:
            self.differ(f"{what} is {got!r}, not {wanted!r}")

    def same_value(self, what: str, got: Any, wanted: Any) -> None:
        self.counts[what] += 1
        if problem := difference(got, wanted):
            self.differ(f"{what}: {problem}")

    # -- directories and files --

    def directory(self, remote: ndstream.RemoteDirectory, local: Path) -> None:
        entries = sorted(local.iterdir())
        self.same("directory", sorted(remote), [entry.name for entry in entries])
        for entry in entries:
            with self.at(entry.name):
                found = remote[entry.name]
                self.same("directory entry", isinstance(found, ndstream.RemoteDirectory), entry.is_dir())
                if isinstance(found, ndstream.RemoteDirectory):
                    self.directory(found, entry)
                else:
                    self.file(found, entry)

    def file(self, remote: ndstream.RemoteFile, local: Path) -> None:
        self.same("file size", remote.size, local.stat().st_size)
        self.same("file time", remote.last_modified, local.stat().st_mtime_ns // 1_000_000)
        self.same("file kind", remote.is_hdf5(), h5py.is_hdf5(local))
        if remote.is_hdf5():
            with h5py.File(local) as file:
                self.group(remote.root, file["/"], set())
        else:
            with remote.open("rb") as stream:
                self.same("file bytes", stream.read(), local.read_bytes())

    # -- objects --

    def group(self, remote: Any, local: h5py.Group, visited: set[Any]) -> None:
        self.attributes(remote, local)
        stored: list[bytes] = []
        # By name, as hdfstream has it, even where h5py prefers the order of creation.
        local.id.links.iterate(stored.append)
        names = [name.decode(errors="backslashreplace") for name in stored]
        self.same("members", list(remote), names)
        for name, key in zip(names, stored, strict=True):
            with self.at(f"/{name}"):
                if self.link(remote, local, name, key):
                    self.object(remote[name], local[key], visited)

    def link(self, remote: Any, local: h5py.Group, name: str, key: bytes) -> bool:
        """Compare the link itself; whether it leads to something that is served."""
        kind = local.id.links.get_info(key).type
        got = remote.get(name, getlink=True)
        self.same("link", type(got).__name__, _LINKS[kind])
        if kind == h5py.h5l.TYPE_SOFT:
            self.same("link target", got.path, local.id.links.get_val(key).decode())
        if kind == h5py.h5l.TYPE_EXTERNAL:
            filename, target = (part.decode() for part in local.id.links.get_val(key))
            self.same("link target", (got.filename, got.path), (filename, target))
            # Files are served from their own directory here; the library would open those outside of it too.
            return "/" not in filename and leads_somewhere(local, key)
        return leads_somewhere(local, key)

    def object(self, remote: Any, local: Any, visited: set[Any]) -> None:
        info = h5py.h5o.get_info(local.id)
        if isinstance(local, h5py.Group):
            self.same("kind", remote.kind, "group")
            if (info.fileno, info.addr) not in visited:  # hard links may form cycles
                visited.add((info.fileno, info.addr))
                self.group(remote, local, visited)
        elif isinstance(local, h5py.Dataset):
            self.same("kind", isinstance(remote, ndstream.RemoteDataset), True)
            self.dataset(remote, local)
        else:
            self.same("kind", remote.kind, "datatype")
            self.same_dtype("named type", remote.dtype, local.dtype)
            self.attributes(remote, local)

    def attributes(self, remote: Any, local: Any) -> None:
        self.same("attribute names", sorted(remote.attrs), sorted(local.attrs))
        for name in local.attrs:
            with self.at(f"@{name}"):
                attribute = local.attrs.get_id(name)
                wanted = local.attrs[name]
                if attribute.get_type().get_class() == h5py.h5t.STRING and not attribute.get_type().is_variable_str():
                    # h5py strips what the declared size pads; we give elements of the declared type.
                    wanted = np.asarray(wanted).astype(f"S{attribute.get_type().get_size()}")[()]
                self.same_value("attribute", remote.attrs[name], plain(wanted, local.file))

    def dataset(self, remote: Any, local: h5py.Dataset) -> None:
        self.attributes(remote, local)
        for name in ("shape", "maxshape", "chunks", "ndim", "size", "compression", "shuffle", "fletcher32"):
            self.same(name, getattr(remote, name), getattr(local, name))
        try:
            wanted_type = local.dtype
        except TypeError:  # h5py has no spelling for it, and so no values
            return
        self.same_dtype("dtype", remote.dtype, wanted_type)
        if local.shape is None:
            self.same("value", remote[()], local[()])
            return
        for box in boxes(local):
            self.same_value("value", remote[box], plain(local[box], local.file))

    def same_dtype(self, what: str, got: np.dtype[Any], wanted: np.dtype[Any]) -> None:
        self.same(what, spelled(got), spelled(wanted))


def leads_somewhere(group: h5py.Group, key: bytes) -> bool:
    try:
        h5py.h5o.open(group.id, key)
    except (KeyError, RuntimeError, OSError):  # nothing there, links in a circle, a file that cannot be opened
        return False
    return True


def boxes(dataset: h5py.Dataset) -> Iterator[Any]:
    """Rows of the first axis, as many as go into `MOST_AT_ONCE`."""
    if not dataset.shape or dataset.nbytes <= MOST_AT_ONCE:
        yield ()
        return
    step = max(1, MOST_AT_ONCE * dataset.shape[0] // dataset.nbytes)
    for start in range(0, dataset.shape[0], step):
        yield (slice(start, min(start + step, dataset.shape[0])),)


def spelled(dtype: np.dtype[Any]) -> Any:
    """A dtype with all that h5py hides in its metadata, as a value that compares."""
    if dtype.names is not None:
        fields = [(name, spelled(dtype.fields[name][0]), dtype.fields[name][1]) for name in dtype.names]  # type: ignore[index]  # there are names
        return dtype.itemsize, fields
    if dtype.subdtype is not None:
        return spelled(dtype.subdtype[0]), dtype.subdtype[1]
    string = h5py.check_string_dtype(dtype)
    if string is not None:
        return "string", string.encoding, string.length
    vlen = h5py.check_vlen_dtype(dtype)
    if vlen is not None:
        return "sequence", spelled(vlen)
    reference = h5py.check_ref_dtype(dtype)
    if reference is not None:
        return "reference", _REFERENCES.get(reference, reference)
    return dtype.str, h5py.check_enum_dtype(dtype)


_REFERENCES = {h5py.Reference: "object", h5py.RegionReference: "region"}


def plain(value: Any, file: h5py.File) -> Any:
    """Replace references by the paths that they lead to: elsewhere h5py's own mean nothing."""
    if isinstance(value, h5py.RegionReference):
        return {"name": file[value].name, "selected": file[value][value].size} if value else None
    if isinstance(value, h5py.Reference):
        return file[value].name if value else None
    if not isinstance(value, np.ndarray) or not value.dtype.hasobject:
        return value
    out = value.copy()
    if value.dtype.names is not None:
        for name in value.dtype.names:
            out[name] = plain(value[name], file)
    else:
        for index in np.ndindex(value.shape):
            out[index] = plain(value[index], file)
    return out


def difference(got: Any, wanted: Any) -> str:
    """What distinguishes two values, types and all; nothing when they are the same."""
    if isinstance(wanted, dict) or isinstance(got, dict):
        return "" if region(got) == wanted else f"{got!r} is not {wanted!r}"
    if wanted is None or isinstance(wanted, (str, bytes, h5py.Empty)):
        return "" if type(wanted) in (type(got), h5py.Empty) and got == wanted else f"{got!r} is not {wanted!r}"
    if np.isscalar(wanted) != np.isscalar(got):
        return f"{type(got)} is not {type(wanted)}"
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        return f"shape {got.shape} is not {wanted.shape}"
    if got.dtype.str != wanted.dtype.str or got.dtype != wanted.dtype:
        return f"dtype {got.dtype!r} is not {wanted.dtype!r}"
    if wanted.dtype.names is not None:
        return next((text for name in wanted.dtype.names if (text := difference(got[name], wanted[name]))), "")
    if wanted.dtype.hasobject:
        pairs = zip(got.reshape(-1), wanted.reshape(-1), strict=True)
        return next((text for one, other in pairs if (text := difference(one, other))), "")
    return "" if got.tobytes() == wanted.tobytes() else "other bytes"


def region(value: Any) -> Any:
    """A region as `plain` has it, from the blocks or points that ndstream gives."""
    if not isinstance(value, dict):
        return value
    if "points" in value:
        return {"name": value["name"], "selected": len(value["points"])}
    sizes = [np.prod(np.subtract(stop, start)) for start, stop in value["blocks"]]
    return {"name": value["name"], "selected": int(sum(sizes))}


def main() -> None:
    url, directory = sys.argv[1:]
    comparison = Comparison()
    remote = ndstream.open(url)
    assert isinstance(remote, ndstream.RemoteDirectory)
    comparison.directory(remote, Path(directory))
    assert hdf5plugin.version
    sys.stdout.write(json.dumps(comparison.counts))
    sys.exit("\n".join(comparison.differences) or 0)


if __name__ == "__main__":
    main()
