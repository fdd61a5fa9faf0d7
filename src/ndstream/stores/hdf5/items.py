"""Elements as numpy moves them fastest, when only their size matters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

_SIMPLE = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}


@lru_cache(maxsize=256)
def element_type(itemsize: int) -> np.dtype[Any]:
    """Dtype of `itemsize` bytes that copies bit by bit: a plain number where there is one, else void."""
    return np.dtype(_SIMPLE.get(itemsize, f"V{itemsize}"))
