"""What ``ndstream get`` does: copies of remote things on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ndstream.cli.extra import needs
from ndstream.cli.extract import Extract
from ndstream.cli.output import complete, refuse
from ndstream.client.progress import transfer
from ndstream.cli.target import Target, kind_of
from ndstream.errors import InvalidRequest, UnsupportedDType

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nc")


def destination(target: Target, output: Path | None, *, into: bool) -> Path:
    """Where a copy goes: `output`, or below it under the target's own name when it is a directory or `into` is set.

    Raises
    ------
    InvalidRequest
        The target has no name to use.
    """
    if output is not None and not into and not output.is_dir():
        return output
    inside, path = (target.address.name or "").strip("/"), target.address.path.strip("/")
    name = (inside or path).rpartition("/")[2]
    if not name or name in (".", ".."):
        raise InvalidRequest(f"{target.address} has no name to give to the copy; name it with --output")
    kind = kind_of(target.thing)
    if kind in ("group", "dataset", "datatype") and target.address.name is not None:
        name += ".npy" if kind == "dataset" and not target.thing.dtype.hasobject else ".h5"
    return (output or Path()) / name


def fetch(target: Target, output: Path, *, force: bool) -> None:
    """Copy the target to `output`; the name says in which form.

    Raises
    ------
    InvalidRequest
        There is no such form for this, or something of that name is there.
    UnsupportedDType
        Elements of variable length do not fit into an .npy file.
    """
    kind = kind_of(target.thing)
    if kind == "directory" and output.suffix != ".tar":
        _fetch_tree(target.thing, output, force=force)
        return
    write = _writer(target, kind, output)
    with complete(output, force=force) as temporary:
        write(temporary)


def stream(target: Target) -> None:
    """Write the target to standard output: a file as it is, a directory as tar, a dataset as .npy.

    Raises
    ------
    InvalidRequest
        For a group, which has no form as a stream.
    """
    kind = kind_of(target.thing)
    if kind == "dataset":
        write_npy(target.extract(), sys.stdout.buffer)
    elif kind in ("file", "directory"):
        for piece in target.bytes():
            sys.stdout.buffer.write(piece)
    else:
        raise InvalidRequest(f"{target.address}: a {kind} cannot be a stream of bytes; give a file with --output")


def write_npy(extract: Extract, file: BinaryIO) -> None:
    """Write an .npy file piece by piece; any writable file will do.

    Raises
    ------
    UnsupportedDType
        For elements of variable length, which .npy keeps as pickles only.
    """
    if extract.dtype.hasobject:
        raise UnsupportedDType(f"{extract.dataset.name}: elements of variable length do not fit into .npy; use .h5")
    header = {
        "descr": np.lib.format.dtype_to_descr(extract.dtype),
        "fortran_order": False,
        "shape": extract.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    with progress(extract.dataset.name, extract.nbytes) as advance:
        for _, values in extract.pieces():
            file.write(np.ascontiguousarray(values).data)
            advance(values.nbytes)
