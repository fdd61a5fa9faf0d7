"""Where the bytes of a dataset are in its file.

A `Layout` is a value: a worker makes it once per generation of a file with the HDF5 library, and from then on the
bytes are read without the library. Offsets are absolute in the file (user block included), sizes in bytes.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.model import Filter


class _Layout(msgspec.Struct, frozen=True, kw_only=True, tag_field="layout"):
    """Base of the classes below."""


class Contiguous(_Layout, frozen=True, kw_only=True, tag="contiguous"):
    """All elements in one run, C order; `offset` is None when nothing was ever written (fill value throughout)."""

    offset: int | None
    size: int


class Index(NamedTuple):
    """The stored chunks of a dataset as arrays, views of what a `Chunked` holds."""

    numbers: NDArray[np.uint64]
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint32]
    masks: NDArray[np.uint32]


class Chunked(_Layout, frozen=True, kw_only=True, tag="chunked", dict=True):
    """Chunks of one shape on a grid, each stored by itself after the filter pipeline.

    `numbers` are the C-order positions of the stored chunks in the grid, ascending (uint64 little-endian, as bytes),
    `offsets` (uint64) and `sizes` (uint32) say where they are, `masks` (uint32) which filters each has skipped; empty
    when no chunk skipped any. A chunk that is not listed was never written: fill value. `filters` are in the order
    they were applied when writing.
    """

    chunks: tuple[int, ...]
    filters: tuple[Filter, ...]
    numbers: bytes
    offsets: bytes
    sizes: bytes
    masks: bytes = b""

    @cached_property
    def index(self) -> Index:
        """The same as arrays."""
        return Index(
            np.frombuffer(self.numbers, "<u8"),
            np.frombuffer(self.offsets, "<u8"),
            np.frombuffer(self.sizes, "<u4"),
            np.frombuffer(self.masks, "<u4"),
        )

    def continued(self, more: Chunked, since: int) -> Chunked:
        """The layout in which the chunks from number `since` on are those of `more`, a layout of the same dataset."""
        kept = int(np.searchsorted(self.index.numbers, np.uint64(since)))
        masks = b""
        if self.masks or more.masks:
            masks = (self.masks or bytes(len(self.sizes)))[: 4 * kept] + (more.masks or bytes(len(more.sizes)))
        return msgspec.structs.replace(
            more,
            numbers=self.numbers[: 8 * kept] + more.numbers,
            offsets=self.offsets[: 8 * kept] + more.offsets,
            sizes=self.sizes[: 4 * kept] + more.sizes,
            masks=masks,
        )


class Inline(_Layout, frozen=True, kw_only=True, tag="inline"):
    """All elements, C order, here: compact storage."""

    data: bytes


class Library(_Layout, frozen=True, kw_only=True, tag="library"):
    """Only the HDF5 library can read it; `reason` says why. `chunks` is the grid it is best read along, if any."""

    reason: str
    chunks: tuple[int, ...] | None = None


Layout: TypeAlias = Contiguous | Chunked | Inline | Library
