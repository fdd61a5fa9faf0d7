"""Copies of groups, datasets and parts of them in HDF5 files of this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from ndstream.cli.extract import Extract
from ndstream.cli.target import Target
from ndstream.client.datasets import RemoteDataset
from ndstream.client.local import open_local
from ndstream.client.progress import transfer
from ndstream.core.dtypes import Array, DType

log = logging.getLogger("ndstream.cli")


def write_hdf5(target: Target, path: Path) -> None:
    """Write what a target means into a new HDF5 file, under the last part of its name.

    Types, storage, attributes and links stay what they are. A root group is written as the root.

    Raises
    ------
    MissingExtra
        h5py is not installed.
    NDStreamError
    """
    if target.name == "":
        target.thing.file.download(path)
        return
    with open_local(path, "w") as file:
        if target.address.selection is not None:
            _write_part(target.extract(), file, target.name)
        elif target.address.server is None:
            file.copy(target.thing, file, target.name)
        else:
            target.thing.parent.copy(target.thing, file, target.name)


def _write_part(extract: Extract, file: Any, name: str) -> None:
    """Write a part of a dataset, with its attributes; chunked as the whole where the axes are the same."""
    from ndstream.stores.hdf5 import local

    source = extract.dataset
    if isinstance(source, RemoteDataset):
        chunks = source.chunks if len(extract.shape) == source.ndim and 0 not in extract.shape else None
        described = msgspec.structs.replace(
            source.described,
            dtype=(element := _element(source.described.dtype)),
            fill=source.described.fill if element is source.described.dtype else None,
            shape=extract.shape,
            maxshape=extract.shape,
            storage="contiguous" if chunks is None else "chunked",
            chunks=chunks and tuple(map(min, chunks, extract.shape)),
        )
        made = local.create_dataset(file, name, described)
        for problem in local.write_attributes(made, described.attributes):
            log.warning("%s: %s", source.name, problem)
    else:
        made = file.create_dataset(name, extract.shape, extract.dtype)
        made.attrs.update(source.attrs)
    with transfer(name, extract.nbytes):
        for key, values in extract.pieces():
            inside = [(0, length) for length in values.shape[len(key) :]]
            local.write_box(made, [*((part.start, part.stop) for part in key), *inside], values)


def _element(dtype: DType) -> DType:
    """Type of the elements once the axes of an array type are axes of the result."""
    return _element(dtype.base) if isinstance(dtype, Array) else dtype
