"""Undoing a dataset's filter pipeline, one stored chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ndstream.core.model import Filter
from ndstream.errors import Corrupt, UnsupportedFilter
from ndstream.stores.hdf5.decoders import FLETCHER32, SHUFFLE, Decoder, decoder, verified
from ndstream.wire.compression import BITSHUFFLE


class Pipeline:
    """The filters of a dataset, ready to be undone.

    Parameters
    ----------
    filters : tuple of Filter
        In the order in which they were applied when writing.
    nbytes : int, bytes
        Size of a decoded chunk.

    Raises
    ------
    UnsupportedFilter
        When one of them cannot be undone here (`ndstream.stores.hdf5.locate` sends such datasets to a worker).

    Notes
    -----
    Immutable: safe to use from several threads at once.
    """

    __slots__ = ("_stages", "_steps", "nbytes")

    def __init__(self, filters: tuple[Filter, ...], nbytes: int) -> None:
        self.nbytes = nbytes
        self._stages: list[tuple[int, Filter, Decoder]] = []
        packed = False
        for position, stage in enumerate(filters):
            undo = decoder(stage.id)
            if undo is None:
                raise UnsupportedFilter(f"filter {stage.id} ({stage.name}) cannot be undone here")
            if packed and stage.id != FLETCHER32:
                # How long its output has to be would have to be believed.
                raise UnsupportedFilter(f"filter {stage.id} ({stage.name}) was applied to compressed data")
            packed = packed or _added(stage) is None
            self._stages.append((position, stage, undo))
        self._steps = self._steps_for(0)

    def passes(self, mask: int) -> bool:
        """Whether a chunk that skipped the filters in `mask` is stored as it is."""
        return all(mask >> position & 1 for position, _, _ in self._stages)

    def decode(
        self, stored: NDArray[np.uint8], mask: int, out: NDArray[np.uint8], take: Callable[[int], NDArray[np.uint8]]
    ) -> None:
        """Decode one chunk.

        Parameters
        ----------
        stored : ndarray, uint8, contiguous
            The chunk as it is in the file.
        mask : int
            Bit n is set when the n-th filter was skipped for this chunk.
        out : ndarray, shape (nbytes,), uint8, contiguous
            Written completely. Undefined after an error.
        take : function
            Hands out buffers for what comes between two filters.

        Raises
        ------
        Corrupt
            When the data does not decode to exactly `nbytes`, or fails its checksum.
        """
        data = stored
        for undo, options, size in self._steps_for(mask) if mask else self._steps:
            if size is None:
                data = verified(data)
            else:
                target = take(size) if size else out
                undo(data, options, target)
                data = target
        if data is not out:
            if data.size != out.size:
                raise Corrupt(f"a chunk holds {data.size} bytes where {out.size} belong")
            np.copyto(out, data)

    def _steps_for(self, mask: int) -> list[tuple[Decoder, tuple[int, ...], int | None]]:
        """What undoes each filter, its options, and the size of what comes out of it, in the order of undoing.

        The size is 0 for the last one, which makes the chunk, and None for the checksum of compressed data, whose
        length nothing else tells.
        """
        steps: list[tuple[Decoder, tuple[int, ...], int | None]] = []
        size: int | None = self.nbytes
        for _, stage, undo in [stage for stage in self._stages if not mask >> stage[0] & 1]:
            assert size is not None or stage.id == FLETCHER32
            steps.append((undo, stage.options, size if steps else 0))
            added = _added(stage)
            size = None if added is None or size is None else size + added
        return steps[::-1]


@lru_cache(maxsize=256)
def pipeline(filters: tuple[Filter, ...], nbytes: int) -> Pipeline:
    """Make a `Pipeline`, or find the one that was made before."""
    return Pipeline(filters, nbytes)


def _added(stage: Filter) -> int | None:
    """By how many bytes a filter makes data longer; None when that depends on the data."""
    if stage.id == SHUFFLE or (stage.id == BITSHUFFLE and (*stage.options, 0, 0, 0, 0, 0)[4] == 0):
        return 0
    return 4 if stage.id == FLETCHER32 else None
