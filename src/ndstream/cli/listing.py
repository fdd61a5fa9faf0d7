"""What ``ndstream ls`` shows: one entry for each thing that is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ndstream.cli.target import kind_of
from ndstream.cli.typename import type_name
from ndstream.errors import NDStreamError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in a listing.

    Attributes
    ----------
    path : str
        Relative to what was listed.
    kind : str
        ``directory``, ``file``, ``group``, ``dataset``, ``datatype``, ``soft link``, ``external link`` or
        ``unreadable``.
    size : int or None
        Bytes, of files and directories.
    modified : datetime or None
        Of files.
    shape, dtype
        Of datasets; the shape is None for a null dataspace.
    note : str or None
        Target of a link, media type of a file, or why something cannot be read.
    """

    path: str
    kind: str
    size: int | None = None
    modified: datetime | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        """Name as it is listed: what can be entered ends with a slash."""
        return f"{self.path}/" if self.kind in ("directory", "group") else self.path

    def as_json(self) -> dict[str, Any]:
        """Everything that is known, for JSON; times in ISO 8601."""
        values = {name: getattr(self, name) for name in self.__slots__}
        if self.modified is not None:
            values["modified"] = self.modified.isoformat()
        return {name: value for name, value in values.items() if value is not None}


def entries(thing: Any, *, recursive: bool) -> Iterator[Entry]:
    """List what is in a directory, HDF5 file or group; a dataset or other file is an entry by itself.

    Parameters
    ----------
    recursive : bool
        Go into directories, but not into files; or into groups.
    """
    kind = kind_of(thing)
    if kind == "directory":
        yield from _directory(thing, "", recursive)
    elif kind == "group":
        yield from _group(thing, "", recursive)
    elif kind == "file" and thing.is_hdf5():
        yield from _group(thing["/"], "", recursive)
    elif kind == "file":
        yield _file(thing.file_path.rpartition("/")[2], thing)
    else:
        yield _member(thing, thing.name.rpartition("/")[2])


def format_entry(entry: Entry) -> str:
    """One line of the long form."""
    if entry.kind in ("directory", "file"):
        when = f"{entry.modified.astimezone():%Y-%m-%d %H:%M}" if entry.modified else ""
        return f"{format_size(entry.size or 0):>10}  {when:16}  {entry.label}"
    if entry.kind in ("soft link", "external link"):
        return f"{entry.kind:40}  {entry.label} -> {entry.note}"
    if entry.kind == "dataset":
        shape = "null" if entry.shape is None else f"({', '.join(map(str, entry.shape))})"
        return f"{f'{shape} {entry.dtype}':40}  {entry.label}"
    return f"{entry.kind:40}  {entry.label}" + (f"  ({entry.note})" if entry.note else "")


def format_size(size: float) -> str:
    """Bytes for people, in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def _directory(directory: Any, prefix: str, recursive: bool) -> Iterator[Entry]:
    for name, below in directory.directories.items():
        yield Entry(path=prefix + name, kind="directory", size=below.size)
        if recursive:
            yield from _directory(below, f"{prefix}{name}/", recursive)
    for name, file in directory.files.items():
        yield _file(prefix + name, file)


def _file(path: str, file: Any) -> Entry:
    modified = datetime.fromtimestamp(file.last_modified / 1000, UTC)
    return Entry(path=path, kind="file", size=file.size, modified=modified, note=file.media_type)


def _group(group: Any, prefix: str, recursive: bool) -> Iterator[Entry]:
    for name in group:
        link = group.get(name, getlink=True)
        if hasattr(link, "filename"):
            yield Entry(path=prefix + name, kind="external link", note=f"{link.filename}::{link.path}")
        elif hasattr(link, "path"):
            yield Entry(path=prefix + name, kind="soft link", note=link.path)
        else:
            try:
                member = group[name]
            except (NDStreamError, KeyError, OSError) as error:
                yield Entry(path=prefix + name, kind="unreadable", note=str(error))
                continue
            yield _member(member, prefix + name)
            if recursive and kind_of(member) == "group":
                yield from _group(member, f"{prefix}{name}/", recursive)


def _member(member: Any, path: str) -> Entry:
    kind = kind_of(member)
    if kind != "dataset":
        return Entry(path=path, kind=kind)
    return Entry(path=path, kind=kind, shape=member.shape, dtype=type_name(member.dtype))
