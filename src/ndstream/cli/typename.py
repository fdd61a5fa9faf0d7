"""Names of element types for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def type_name(dtype: np.dtype[Any]) -> str:
    """Name an element type: numpy's, and for what numpy keeps in metadata a word of HDF5.

    Byte order is told when it is big-endian: ``>f8``.
    """
    kept: Mapping[str, Any] = dtype.metadata or {}
    if "vlen" in kept:
        base = kept["vlen"]
        return "str" if base in (str, bytes) else f"sequence of {type_name(np.dtype(base))}"
    if "enum" in kept:
        return f"enum {np.dtype(dtype.str).name}"
    if "ref" in kept:
        return "reference"
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{type_name(base)}[{', '.join(map(str, shape))}]"
    if dtype.names:
        return "{" + ", ".join(f"{name}: {type_name(dtype[name])}" for name in dtype.names) + "}"
    return dtype.name if dtype.isnative or dtype.kind in "SUV" else dtype.str
