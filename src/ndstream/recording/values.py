"""What messages tell, as HDF5 holds it: names, numbers, text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import String, from_numpy
from ndstream.core.operations import Payload
from ndstream.errors import UnsupportedDType

Plain: TypeAlias = "str | NDArray[Any]"
"""Text, or numbers: an array of any number of axes that HDF5 has a type for."""

TEXT = String()
_DEPTH = 8


def plain(values: Mapping[str, Any]) -> Iterator[tuple[str, Plain]]:
    """What a mapping tells, by name; what is in maps within it has the names joined by dots.

    What is neither text nor numbers (None, mixed lists, bytes) is left out, and so are integers beyond 64 bits.
    """
    return _plain(values, "", 0)


def _plain(values: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Plain]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if depth < _DEPTH:
                yield from _plain(value, f"{name}.", depth + 1)
        elif (found := _value(value)) is not None:
            yield name, found


def _value(value: Any) -> Plain | None:
    if isinstance(value, str):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.generic):
        return np.asarray(value) if _is_number(value.dtype) else None
    if not isinstance(value, bool | int | float | list | tuple):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):  # ragged, or too large
        return None
    return array if _is_number(array.dtype) and array.size else None


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufc" and is_stored(dtype)


def is_stored(dtype: np.dtype[Any]) -> bool:
    """Whether HDF5 has the element type."""
    try:
        from_numpy(dtype)
    except UnsupportedDType:
        return False
    return True


def numbers(array: NDArray[Any]) -> Payload:
    """Make a payload of an array; a copy."""
    return Payload(dtype=from_numpy(array.dtype), shape=array.shape, data=array.tobytes())


def stored(data: bytes | bytearray | memoryview) -> Payload:
    """Make a payload of bytes that are stored as they are; a view."""
    return Payload(dtype=from_numpy(np.dtype("u1")), shape=(len(data),), data=data)


def texts(values: Sequence[str]) -> Payload:
    """Make a payload of strings, of one axis."""
    return Payload(dtype=TEXT, shape=(len(values),), data=[_encoded(value) for value in values])


def payload(value: Plain) -> Payload:
    """Make a payload of one value."""
    if isinstance(value, str):
        return Payload(dtype=TEXT, shape=(), data=[_encoded(value)])
    return numbers(value)


def _encoded(value: str) -> bytes:
    # HDF5 ends text at the first NUL, and JSON may hold halves of characters.
    return value.replace("\0", "").encode("utf-8", "replace")


class Names:
    """Names in one group, each given once."""

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)

    def new(self, name: str) -> str:
        """Make a name for a link out of what something is called."""
        spelled = name.replace("/", ".").replace("\0", "").encode("utf-8", "replace").decode()[:200]
        if spelled.strip(".") == "":
            spelled = f"_{spelled}"
        found, number = spelled, 1
        while found in self._taken:
            number += 1
            found = f"{spelled}_{number}"
        self._taken.add(found)
        return found
