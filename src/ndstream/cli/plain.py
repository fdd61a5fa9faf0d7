"""Values of HDF5 as JSON knows them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import typer


def plain(value: Any) -> Any:
    """Turn an attribute or an element into lists, numbers, texts and None.

    Bytes become text (what is not UTF-8 is replaced), complex numbers pairs, records objects by the name of their
    members. Numbers that JSON does not have become text: ``"nan"``, ``"inf"``, ``"-inf"``.
    """
    if isinstance(value, np.void) and value.dtype.names:
        return {name: plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray):
        return plain(value[()]) if value.ndim == 0 and value.dtype != object else [plain(item) for item in value]
    if isinstance(value, np.void):
        return value.tobytes().hex()
    if isinstance(value, (np.float16, np.float32)) and np.isfinite(value):
        return float(str(value))  # the shortest digits that mean this number, not those of its double
    if isinstance(value, np.generic):
        # numpy has no Python number for a long double and hands it back as it is.
        return plain(value.item()) if not isinstance(value, np.longdouble) else plain(float(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def print_json(value: Any) -> None:
    """Print a value that `plain` knows as one JSON document, indented."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
