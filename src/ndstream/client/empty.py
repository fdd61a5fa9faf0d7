"""The value of what has a type but no elements: a null dataspace."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike


class Empty:
    """Typed nothing, equal to h5py's ``Empty`` of the same type.

    Attributes
    ----------
    dtype : numpy.dtype
    shape : None
    size : None
    """

    __slots__ = ("dtype",)

    shape = None
    size = None

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def __eq__(self, other: object) -> bool:
        dtype = getattr(other, "dtype", None)
        return dtype is not None and getattr(other, "shape", ()) is None and bool(self.dtype == dtype)

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"Empty(dtype={self.dtype.str!r})"
