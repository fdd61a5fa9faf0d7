"""How remote objects look when they are printed; nothing here reads data or asks the server."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from ndstream.errors import UnsupportedDType

if TYPE_CHECKING:
    from ndstream.client.datasets import RemoteDataset
    from ndstream.client.directories import RemoteDirectory
    from ndstream.client.files import RemoteFile
    from ndstream.client.groups import RemoteGroup

MOST_ROWS = 200  # rows of a table in a notebook


def dataset_text(dataset: RemoteDataset) -> str:
    """One line about a dataset, as h5py has it."""
    return f'<Remote HDF5 dataset "{_last(dataset.name)}": shape {dataset.shape}, type "{_type(dataset)}">'


def group_text(group: RemoteGroup) -> str:
    """One line about a group."""
    loaded = group.described
    members = "not loaded" if loaded is None else f"{len(loaded.members)} members"
    return f'<Remote HDF5 group "{group.name}" ({members})>'


def file_text(file: RemoteFile) -> str:
    """One line about a file."""
    return f'<Remote file "{file.file_path}" ({file.media_type}, {file.size} bytes) at {file.connection.server}>'


def directory_text(directory: RemoteDirectory) -> str:
    """One line about a directory."""
    loaded = directory.described
    entries = "not loaded" if loaded is None else f"{len(loaded.directories)} directories, {len(loaded.files)} files"
    return f'<Remote directory "{directory.name}" ({entries}) at {directory.connection.server}>'


def dataset_html(dataset: RemoteDataset) -> str:
    """Table about a dataset for notebooks."""
    rows = [
        ("shape", str(dataset.shape)),
        ("dtype", _type(dataset)),
        ("chunks", str(dataset.chunks)),
        ("compression", str(dataset.compression)),
        ("attributes", ", ".join(dataset.attrs) or "none"),
    ]
    return _table(f"Dataset {dataset.name}", rows)


def group_html(group: RemoteGroup) -> str:
    """Table of what is known of the members of a group."""
    loaded = group.described
    if loaded is None:
        return _table(f"Group {group.name}", [("members", "not loaded")])
    kinds = {"HardLink": "object", "SoftLink": "soft link", "ExternalLink": "external link"}
    rows = [
        (name, kinds.get(type(node).__name__, type(node).__name__.lower())) for name, node in loaded.members.items()
    ]
    return _table(f"Group {group.name}", rows)


def file_html(file: RemoteFile) -> str:
    """Table about a file."""
    rows = [("server", file.connection.server), ("type", file.media_type), ("size", f"{file.size} bytes")]
    return _table(f"File {file.file_path}", rows)


def directory_html(directory: RemoteDirectory) -> str:
    """Table of what is known of the entries of a directory."""
    loaded = directory.described
    rows = [("server", directory.connection.server)]
    if loaded is None:
        rows.append(("entries", "not loaded"))
    else:
        rows += [(name + "/", "directory") for name in loaded.directories]
        rows += [(name, f"{entry.size} bytes") for name, entry in loaded.files.items()]
    return _table(f"Directory {directory.name}", rows)


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    listed = list(rows)
    lines = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in listed[:MOST_ROWS]
    )
    more = f"<p>and {len(listed) - MOST_ROWS} more</p>" if len(listed) > MOST_ROWS else ""
    return f"<div><b>{escape(title)}</b><table>{lines}</table>{more}</div>"


def _type(dataset: RemoteDataset) -> str:
    try:
        return str(dataset.dtype.str)
    except UnsupportedDType:
        return "unsupported"


def _last(name: str) -> str:
    return name.rpartition("/")[2] or "/"
