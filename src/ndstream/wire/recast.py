"""Elements from the form in which they are stored to the form in which a protocol sends them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import DType, to_numpy
from ndstream.wire.buffers import BufferPool


class Recast:
    """Conversion of buffers of whole elements between byte orders, and from gapped to packed compounds.

    Parameters
    ----------
    source : DType or dtype
        Type of the elements that come.
    target : DType or dtype
        Type they are to have: same kinds and sizes of numbers, same members in the same order, at any depth. Only
        byte orders, and gaps between members, may differ.
    pool : BufferPool, optional
        Where converted buffers come from; without it they are new memory.

    Raises
    ------
    ValueError
        When the types differ in more than that.
    UnsupportedDType
        When numpy cannot spell one of the types.

    Examples
    --------
    >>> recast = Recast(np.dtype(">i2"), np.dtype("<i2"))
    >>> list(recast(memoryview(bytes([0, 1, 0, 2]))))
    [1, 0, 2, 0]

    Notes
    -----
    Safe to use from several threads at once; releases the GIL while it copies.
    """

    __slots__ = ("_pool", "_source", "_target", "is_identity")

    def __init__(
        self, source: DType | np.dtype[Any], target: DType | np.dtype[Any], pool: BufferPool | None = None
    ) -> None:
        self._source = source if isinstance(source, np.dtype) else to_numpy(source)
        self._target = target if isinstance(target, np.dtype) else to_numpy(target)
        self._pool = pool
        if not _alike(self._source, self._target):
            raise ValueError(
                f"elements of {self._source} cannot become {self._target} by order and place of bytes alone"
            )
        #: Whether buffers pass through untouched.
        self.is_identity = _same(self._source, self._target)
        # An array as an element is a few elements: numpy has no array of arrays.
        self._source, self._target = self._source.base, self._target.base

    def nbytes(self, size: int) -> int:
        """Bytes that `size` bytes become."""
        return size // self._source.itemsize * self._target.itemsize if size else 0

    def __call__(self, buffer: memoryview) -> memoryview:
        """Convert one buffer.

        Parameters
        ----------
        buffer : memoryview
            Of whole elements, contiguous.

        Returns
        -------
        memoryview, bytes
            The same one if nothing has to change, else a new one. Gaps of the target are zero.
        """
        if self.is_identity or not buffer.nbytes:
            return buffer
        elements = np.frombuffer(buffer, self._source)
        size = self.nbytes(buffer.nbytes)
        out = np.empty(size, np.uint8) if self._pool is None else self._pool.take(size)
        if self._target.names is not None and sum(_sizes(self._target)) != self._target.itemsize:
            out.fill(0)
        _copy(elements, out.view(self._target))
        return out.data


def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    # Member by member: numpy copies columns of numbers much faster than records.
    if target.dtype.names is None:
        np.copyto(target, source)
        return
    for theirs, ours in zip(source.dtype.names or (), target.dtype.names, strict=True):
        _copy(source[theirs], target[ours])


def _sizes(dtype: np.dtype[Any]) -> list[int]:
    """Bytes of the innermost members."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [size * int(np.prod(shape)) for size in _sizes(base)]
    if dtype.names is None:
        return [dtype.itemsize]
    return [size for name in dtype.names for size in _sizes(dtype[name])]


def _alike(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    if one.subdtype is not None and other.subdtype is not None:
        return one.shape == other.shape and _alike(one.base, other.base)
    if one.names is not None or other.names is not None:
        return one.names == other.names and all(_alike(one[name], other[name]) for name in one.names or ())
    return one.subdtype is other.subdtype and one.kind == other.kind and one.itemsize == other.itemsize


def _same(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    if one.itemsize != other.itemsize:
        return False
    if one.subdtype is not None:
        return _same(one.base, other.base)
    if one.fields is not None and other.fields is not None:
        return all(
            one.fields[name][1] == other.fields[name][1] and _same(one[name], other[name]) for name in one.names or ()
        )
    return one.str == other.str
