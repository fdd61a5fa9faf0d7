"""What ``ndstream get`` does: copies of remote things on this machine."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ndstream.cli.extract import Extract
from ndstream.cli.hdf5 import write_hdf5
from ndstream.cli.output import complete, refuse
from ndstream.cli.target import Target
from ndstream.client.progress import transfer
from ndstream.core.limits import MiB
from ndstream.errors import ConnectionLost, InvalidRequest, ProtocolError, UnsupportedDType
from ndstream.wire.buffers import bytes_of

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nc")
_PIECE = 1 * MiB


def destination(target: Target, output: Path | None, *, into: bool) -> Path:
    """Where a copy goes: `output`, or below it under the target's own name when it is a directory or `into` is set.

    Raises
    ------
    InvalidRequest
        The target has no name to use, or `into` is set and `output` is no directory.
    """
    if into and output is not None and not output.is_dir():
        raise InvalidRequest(f"{output} is no directory, and there is more than one thing to copy")
    if output is not None and not output.is_dir():
        return output
    if not target.name:
        raise InvalidRequest(f"{target.text} has no name to give to the copy; name it with --output")
    suffix = ""
    if target.address.name is not None:
        suffix = ".npy" if target.kind == "dataset" and not target.extract().dtype.hasobject else ".h5"
    return (output or Path()) / (target.name + suffix)


def fetch(target: Target, output: Path, *, force: bool) -> None:
    """Copy the target to `output`; the name says in which form.

    Raises
    ------
    InvalidRequest
        There is no such form for this, or something of that name is there.
    UnsupportedDType
        Elements of variable length do not fit into an .npy file.
    NDStreamError, OSError
    """
    if target.address.server is None and target.address.name is None:
        raise InvalidRequest(f"{target.text} is here already")
    if target.kind == "directory" and output.suffix != ".tar":
        _fetch_tree(target.thing, output, force=force)
        return
    with complete(output, force=force) as temporary:
        if target.kind in ("file", "directory"):
            target.thing.download(temporary)
        elif output.suffix == ".npy" and target.kind == "dataset":
            with temporary.open("wb") as file:
                write_npy(target.extract(), file)
        elif output.suffix in HDF5_SUFFIXES:
            write_hdf5(target, temporary)
        else:
            forms = ".npy or .h5" if target.kind == "dataset" else ".h5"
            raise InvalidRequest(f"{output}: a {target.kind} is written as {forms}")


def stream(target: Target) -> None:
    """Write the target to standard output: a file as it is, a directory as tar, a dataset as .npy.

    Raises
    ------
    InvalidRequest
        For a group or type, which have no form as a stream.
    ConnectionLost
        The answer ended too early.
    """
    if target.kind == "dataset":
        write_npy(target.extract(), sys.stdout.buffer)
    elif target.kind == "directory":
        _pour(target.thing.connection, target.thing.name)
    elif target.kind == "file":
        _pour(target.thing.connection, target.thing.file_path)
    else:
        raise InvalidRequest(f"{target.text}: a {target.kind} cannot be a stream of bytes; name a file with --output")


def write_npy(extract: Extract, file: BinaryIO) -> None:
    """Write an .npy file piece by piece; anything that can be written to will do.

    Raises
    ------
    UnsupportedDType
        For elements of variable length, which .npy keeps as pickles only.
    """
    if extract.dtype.hasobject:
        raise UnsupportedDType(f"{extract.dataset.name}: elements of variable length do not fit into .npy; use .h5")
    with warnings.catch_warnings():
        # The names of an enumeration have no place there, its numbers have.
        warnings.filterwarnings("ignore", "metadata", UserWarning)
        described = np.lib.format.dtype_to_descr(extract.dtype)
    header = {"descr": described, "fortran_order": False, "shape": extract.shape}
    np.lib.format.write_array_header_1_0(file, header)
    with transfer(extract.dataset.name, extract.nbytes):
        for _, values in extract.pieces():
            file.write(bytes_of(values))


def _pour(connection: Any, path: str) -> None:
    """Write the bytes of a file, or a tar of a directory, to standard output."""
    with connection.download(path) as download, transfer(path, download.size) as watch:
        done = 0
        while piece := download.body.read_some(_PIECE):
            sys.stdout.buffer.write(piece)
            done += len(piece)
            if watch is not None:
                watch(len(piece))
        if download.size is not None and done != download.size:
            raise ConnectionLost(f"{path}: {done} bytes came of {download.size}")


def _fetch_tree(directory: Any, output: Path, *, force: bool) -> None:
    """Copy a directory, all of it or nothing; into one that is there file by file, when `force` says so."""
    with transfer(directory.name, directory.size):
        if output.is_dir() and force:
            _fill(directory, output)
            return
        refuse(output, force=force)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
            made = Path(temporary, output.name)
            made.mkdir()
            _fill(directory, made)
            made.rename(output)


def _fill(directory: Any, into: Path) -> None:
    for name, below in directory.directories.items():
        made = into / _safe(name)
        made.mkdir(exist_ok=True)
        _fill(below, made)
    for name, file in directory.files.items():
        file.download(into / _safe(name), overwrite=True)


def _safe(name: str) -> str:
    """Name from a server, as long as it is one: it must not lead out of the directory it goes to."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ProtocolError(f"the server lists {name!r}, which cannot be the name of a file")
    return name
