"""Blocks of datasets that are kept, so that small reads of the same place need not send data again.

What is kept is never given without asking: a read needs one request, which says that the file still is in the state
that the blocks are of, or brings those that are missing if it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.counters import Counters
from ndstream.core.dtypes import is_fixed, to_numpy
from ndstream.core.limits import KiB
from ndstream.core.model import Dataset
from ndstream.core.selection import Part, Selection, select
from ndstream.errors import Conflict
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.wire.flow import Course

BLOCK = 256 * KiB
"""Longest block, in bytes: chunks, or equal parts of them."""
MOST_BLOCKS = 256
"""Blocks of one read; longer reads go past the cache."""
_ENTRY = 512  # bytes that an entry takes besides its elements
_ATTEMPTS = 3

Box: TypeAlias = "tuple[tuple[int, int], ...]"
Key: TypeAlias = "tuple[str, str, np.dtype[Any], Box]"


class BlockCache:
    """Blocks that were read, by the file and the state of it that they are of. Safe to use from several threads.

    Parameters
    ----------
    most : int, bytes
        What all blocks may take; those that were not used for the longest time are dropped.
    counters : Counters
        Counts `block_cache_hits` and `block_cache_misses` (blocks), and `block_cache_checks` (reads that brought no
        data).
    """

    def __init__(self, most: int, counters: Counters) -> None:
        self._most = most
        self._counters = counters
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}
        self._blocks: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self.nbytes = 0

    def read(self, flows: NativeFlows, path: str, wanted: Wanted, described: Dataset) -> Course[bool]:
        """Read a selection through the cache; False when it is not one for that, and nothing was done.

        Raises
        ------
        NDStreamError
        """
        shape = _block_shape(described)
        found = None if shape is None else self._parts(wanted.selection, shape, described)
        if shape is None or found is None:
            return False
        boxes = [_box(part, shape, wanted.selection.source) for part in found]
        # Who has not looked for long may take the elements for others than they are now: those blocks are not for all.
        dtype = to_numpy(described.dtype)
        for _ in range(_ATTEMPTS):
            state = self.state(path)
            blocks = {box: self._take((f"{path}\0{state}", wanted.name, dtype, box)) for box in boxes}
            missing = {box: _empty(box, described) for box, block in blocks.items() if block is None}
            self._counters.add("block_cache_hits", len(blocks) - len(missing))
            self._counters.add("block_cache_misses", len(missing))
            if missing:
                try:
                    yield from self._fetch(flows, path, wanted, dtype, missing, state)
                except Conflict:
                    self._moved(path, None)
                    continue
            else:
                (other,) = yield (partial(flows.state, path, state),)
                self._counters.add("block_cache_checks")
                if other is not None:
                    self._moved(path, other)
                    continue
            for part, box in zip(found, boxes, strict=True):
                block = missing.get(box, blocks[box])
                assert block is not None
                wanted.destination[part.target] = block[part.source]
            return True
        return False  # it changes all the time

    def state(self, path: str) -> str | None:
        """Entity tag of the state that is known of a file."""
        return self._states.get(path)

    def _fetch(
        self,
        flows: NativeFlows,
        path: str,
        wanted: Wanted,
        dtype: np.dtype[Any],
        missing: dict[Box, NDArray[Any]],
        state: str | None,
    ) -> Course[None]:
        """Read blocks, all of one state, and keep them, unless other files have a part in them."""
        source = wanted.selection.source
        reads = [
            Wanted(wanted.name, select(tuple([slice(start, stop) for start, stop in box]), source), block)
            for box, block in missing.items()
        ]
        (found,) = yield (partial(flows.read, path, reads, state),)
        if found is None:
            return
        self._moved(path, str(found))
        for box, block in missing.items():
            self._put((f"{path}\0{found}", wanted.name, dtype, box), block)

    def _parts(self, selection: Selection, shape: tuple[int, ...], described: Dataset) -> list[Part] | None:
        """Blocks that a selection touches; None when they are too many to be kept."""
        touched = 1
        for (start, stop), side in zip(selection.bounds, shape, strict=True):
            touched *= -(-stop // side) - start // side
        nbytes = touched * prod(shape) * to_numpy(described.dtype).itemsize
        if not selection.count or touched > MOST_BLOCKS or nbytes > self._most // 4:
            return None
        return list(selection.over(shape))

    def _moved(self, path: str, state: str | None) -> None:
        """Note the state of a file; blocks of another one go."""
        with self._lock:
            known = self._states.pop(path, None)
            if state is not None:
                self._states[path] = state
            if known in (None, state):
                return
            old = f"{path}\0{known}"
            for key in [key for key in self._blocks if key[0] == old]:
                self.nbytes -= self._blocks.pop(key).nbytes + _ENTRY

    def _take(self, key: Key) -> NDArray[Any] | None:
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def _put(self, key: Key, block: NDArray[Any]) -> None:
        with self._lock:
            known = self._blocks.pop(key, None)
            if known is not None:
                self.nbytes -= known.nbytes + _ENTRY
            self._blocks[key] = block
            self.nbytes += block.nbytes + _ENTRY
            while self.nbytes > self._most:
                _, dropped = self._blocks.popitem(last=False)
                self.nbytes -= dropped.nbytes + _ENTRY


def _block_shape(described: Dataset) -> tuple[int, ...] | None:
    """Shape of the blocks of a dataset; None when its elements have no fixed size, or it has none."""
    if not described.shape or not all(described.shape) or not is_fixed(described.dtype):
        return None
    shape = list(described.chunks or described.shape)
    itemsize = to_numpy(described.dtype).itemsize
    # Halved from the slowest axis on, so that what lies together stays together.
    while prod(shape) * itemsize > BLOCK and max(shape) > 1:
        axis = next(axis for axis, side in enumerate(shape) if side > 1)
        shape[axis] = -(-shape[axis] // 2)
    return tuple(shape)


def _box(part: Part, shape: tuple[int, ...], source: tuple[int, ...]) -> Box:
    return tuple(
        [(at * side, min((at + 1) * side, whole)) for at, side, whole in zip(part.chunk, shape, source, strict=True)]
    )


def _empty(box: Box, described: Dataset) -> NDArray[Any]:
    spelled = to_numpy(described.dtype)
    return np.empty(tuple([stop - start for start, stop in box]) + spelled.shape, spelled.base)
