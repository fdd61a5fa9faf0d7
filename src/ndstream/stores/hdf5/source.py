"""HDF5 files of this machine as the data model has them: what is to be written elsewhere, in exact types."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from h5py import h5d

from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.core.model import Node
from ndstream.core.selection import Selection
from ndstream.errors import NotFound
from ndstream.stores.hdf5.describe import Describer
from ndstream.stores.hdf5.fetch import read_box
from ndstream.stores.hdf5.open_files import OpenFiles
from ndstream.stores.hdf5.references import Names
from ndstream.stores.hdf5.resolve import Found, Resolver
from ndstream.stores.hdf5.roots import Roots

with suppress(ImportError):
    import hdf5plugin  # noqa: F401  # importing it registers its filters


class Source:
    """An HDF5 file that is read object by object; a ``with`` block closes it.

    The user's own files: links and virtual datasets may lead to any other of them.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    NotFound, Corrupt, OSError
        There is no such file, or it cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        real = os.path.realpath(path)
        try:
            Path(real).open("rb").close()
        except FileNotFoundError:
            raise NotFound(f"{path}: no such file") from None
        self._files = OpenFiles(DEFAULT_LIMITS.open_files)
        self._files.begin()
        self._file = self._files.open(real)
        self._resolver = Resolver(self._files, Roots({"": "/"}), (), DEFAULT_LIMITS.link_depth)

    def describe(self, name: str) -> Node:
        """Describe an object, and of a group its members, but not theirs.

        Raises
        ------
        NotFound, Corrupt, DataError, TooLarge
        """
        limits = DEFAULT_LIMITS
        return Describer(self._resolver, links=limits.links, document=limits.document).describe(self._found(name))

    def read(self, name: str, block: Selection) -> bytes | list[Any]:
        """Read a box of a dataset, given as a selection of spans without steps.

        Returns
        -------
        bytes or list
            See `ndstream.stores.hdf5.fetch.read_box`.

        Raises
        ------
        UnsupportedDType, UnsupportedFilter, TooLarge, Corrupt
        """
        found = self._found(name)
        assert isinstance(found.object, h5d.DatasetID)
        bounds = block.bounds
        starts, counts = tuple([start for start, _ in bounds]), tuple([stop - start for start, stop in bounds])
        box = (starts, counts, (1,) * len(bounds))
        return read_box(found.object, box, most=DEFAULT_LIMITS.chunk, name_of=Names(found.file, found.object))

    def close(self) -> None:
        """Close the file, and those that were opened on the way."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found(self, name: str) -> Found:
        return self._resolver.find(self._file, name)
