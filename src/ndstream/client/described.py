"""What is known of a remote dataset before any of its data are read."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.attributes import RemoteAttributes
from ndstream.client.empty import Empty
from ndstream.client.pipeline import Pipeline
from ndstream.client.values import array_of, read_type
from ndstream.core.dtypes import String, to_numpy
from ndstream.core.model import Dataset
from ndstream.core.selection import Selection, select
from ndstream.errors import InvalidSelection


class DescribedDataset:
    """A dataset by its description, in the words of h5py; base of those that can be read.

    Attributes
    ----------
    name : str
        Absolute path inside the file.
    shape : tuple of int, or None for a null dataspace
    ndim : int
    """

    kind = "dataset"

    def __init__(self, name: str, described: Dataset) -> None:
        self.name = name
        self.renew(described)

    def renew(self, described: Dataset) -> None:
        """Take another description in the place of the one that is known."""
        self.shape = described.shape
        self.ndim = len(described.shape or ())
        self._described = described
        for remembered in ("dtype", "data", "attrs"):
            self.__dict__.pop(remembered, None)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Element type as h5py has it.

        Raises
        ------
        UnsupportedDType
            Elements of this type cannot be read.
        """
        return to_numpy(read_type(self._described.dtype))

    @cached_property
    def data(self) -> NDArray[Any] | None:
        """All elements when they came with the description, else None."""
        described = self._described
        if described.data is None or described.shape is None:
            return None
        return array_of(described.dtype, described.shape, described.data)

    @cached_property
    def attrs(self) -> RemoteAttributes:
        """Attributes."""
        return RemoteAttributes(self._described.attributes, str(self.name))

    def nothing(self, key: Any) -> Empty:
        """What indexing gives of a null dataspace, in which only everything can be selected.

        Raises
        ------
        InvalidSelection
        """
        if _is_ellipsis(key) or (isinstance(key, tuple) and not key):
            return Empty(self.dtype)
        raise InvalidSelection(f"{self.name}: a null dataspace has no elements to select")

    def asked(self, key: Any) -> tuple[str, Selection, NDArray[Any]]:
        """Name of the dataset, what an index expression selects of it, and an array for that.

        Raises
        ------
        InvalidSelection, OutOfBounds
        """
        if self.shape is None:
            raise InvalidSelection(f"{self.name}: a null dataspace has no elements to select")
        selection = select(key, self.shape)
        return self.name, selection, np.empty(selection.shape + self.dtype.shape, self.dtype.base)

    def found(self, key: Any, elements: NDArray[Any]) -> Any:
        """What indexing gives of the elements that were read: a scalar when every axis has an integer."""
        if elements.ndim or (self.shape == () and _is_ellipsis(key)):
            return elements
        return elements[()]

    @property
    def described(self) -> Dataset:
        """What is known of the dataset, in exact types."""
        return self._described

    @property
    def size(self) -> int | None:
        """Number of elements; None for a null dataspace."""
        return None if self.shape is None else prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements in memory."""
        return (self.size or 0) * self.dtype.itemsize

    @property
    def maxshape(self) -> tuple[int | None, ...] | None:
        """Shape up to which the dataset may grow, None where there is no limit."""
        return self._described.maxshape

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of a chunk; None when not chunked, or not told by the server."""
        return self._described.chunks

    @property
    def pipeline(self) -> Pipeline:
        """Filters that the stored data go through."""
        return Pipeline(self._described.filters)

    @property
    def compression(self) -> str | None:
        """Name of the compression filter: gzip, lzf, szip, or unknown for one that h5py has no name for."""
        return self.pipeline.compression

    @property
    def compression_opts(self) -> Any:
        """Options of the compression filter: the level of gzip."""
        return self.pipeline.compression_options

    @property
    def filter_ids(self) -> tuple[int, ...]:
        """Registered numbers of all filters, in their order."""
        return tuple(each.id for each in self._described.filters)

    @property
    def shuffle(self) -> bool:
        """Whether bytes are shuffled before compression."""
        return self.pipeline.shuffle

    @property
    def fletcher32(self) -> bool:
        """Whether chunks have check sums."""
        return self.pipeline.fletcher32

    @property
    def scaleoffset(self) -> int | None:
        """Parameter of the scale-offset filter."""
        return self.pipeline.scaleoffset

    @property
    def fillvalue(self) -> Any:
        """Value of elements that were never written; zero when the server does not tell."""
        fill = self._described.fill
        present = read_type(self._described.dtype)
        # Of a type that is read as another only the stored bytes are known.
        if fill is not None and present is self._described.dtype:
            return array_of(present, (), fill)[()]
        if isinstance(present, String) and present.size is None:
            return b""
        return _blank(self.dtype)

    @property
    def is_virtual(self) -> bool:
        """Whether the data are those of other datasets."""
        return self._described.storage == "virtual"

    @property
    def is_scale(self) -> bool:
        """Whether this is a dimension scale."""
        return "CLASS" in self.attrs and self.attrs["CLASS"] == b"DIMENSION_SCALE"


def _is_ellipsis(key: Any) -> bool:
    return key is Ellipsis or (isinstance(key, tuple) and len(key) == 1 and key[0] is Ellipsis)


def _blank(dtype: np.dtype[Any]) -> Any:
    """Element of zeros, with None for what is no number."""
    element = np.zeros((), dtype)
    if dtype.names is None:
        return None if dtype.hasobject else element[()]
    for name in dtype.names:
        if dtype[name].hasobject:
            element[name] = _blank(dtype[name])
    return element[()]
