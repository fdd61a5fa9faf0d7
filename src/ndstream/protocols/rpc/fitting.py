"""Whether elements keep their values in the type of a dataset that they are put into (SPEC.md, B)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.casting import NUMBERS, array_of, in_range
from ndstream.core.dtypes import (
    Array,
    Compound,
    DType,
    Opaque,
    Reference,
    Sequence,
    String,
    to_numpy,
)
from ndstream.core.operations import Payload
from ndstream.errors import UnsupportedDType
from ndstream.protocols.rpc.dtypes import spell


def check_fits(payload: Payload, target: DType) -> None:
    """Make sure that nothing but digits of floats is lost when elements become those of another type.

    Raises
    ------
    UnsupportedDType
        A number would be clipped or become infinite, a text would be cut, or the types are of different kinds.
    InvalidRequest
        The data is not what it says.
    """
    if payload.shape is not None and payload.dtype != target:
        _check(array_of(payload), payload.dtype, target)


def _check(array: NDArray[Any], source: DType, target: DType) -> None:
    if source == target:
        return
    if isinstance(source, NUMBERS) and isinstance(target, NUMBERS):
        _check_numbers(array, to_numpy(target))
        return
    match source, target:
        case String(), String(size=size):
            longest = max(map(len, array.reshape(-1).tolist()), default=0)
            if size is not None and longest > size:
                raise UnsupportedDType(f"a text of {longest} bytes does not fit into {size}")
        case Opaque(size=size), Opaque(size=room) if size == room:
            pass
        case Reference(to=to), Reference(to=wanted) if to == wanted:
            pass
        case Array(base=base, shape=shape), Array(base=other, shape=sides) if shape == sides:
            _check(array, base, other)
        case Sequence(base=base), Sequence(base=other):
            for item in array.reshape(-1):
                _check(np.asarray(item), base, other)
        case Compound(fields=fields), Compound(fields=others):
            members = {field.name: field.dtype for field in others}
            if members.keys() != {field.name for field in fields}:
                raise UnsupportedDType(f"members {[field.name for field in fields]}, where {list(members)} are needed")
            for field in fields:
                _check(array[field.name], field.dtype, members[field.name])
        case _:
            raise UnsupportedDType(f"elements of type {spell(source)} are not put into {spell(target)}")


def _check_numbers(array: NDArray[Any], target: np.dtype[Any]) -> None:
    if np.can_cast(array.dtype, target) or not array.size:
        return
    if array.dtype.kind in "iu" and target.kind in "iu":
        lost = not in_range(array, target)
    elif np.can_cast(array.dtype, target, "same_kind"):
        with np.errstate(over="ignore"):
            lost = bool((np.isfinite(array) & ~np.isfinite(array.astype(target))).any())
    else:
        raise UnsupportedDType(f"elements of type {array.dtype} are not put into {target}")
    if lost:
        raise UnsupportedDType(f"there are numbers that do not fit into {target}")
