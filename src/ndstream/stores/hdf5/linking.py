"""References on their way into a file: from paths to what h5py writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from h5py import h5d, h5r, h5s

from ndstream.core.dtypes import Array, Compound, DType, Reference, Sequence, holds_references
from ndstream.core.operations import Payload
from ndstream.errors import InvalidRequest, NDStreamError
from ndstream.stores.hdf5.destination import Object
from ndstream.stores.hdf5.faults import LIBRARY_ERRORS


def with_references(payload: Payload, find: Callable[[str], Object]) -> Payload:
    """Replace the paths in a payload (`ndstream.core.elements`) by references of h5py.

    Raises
    ------
    InvalidRequest
        A path leads nowhere, or a region is none.
    """
    if not holds_references(payload.dtype) or not isinstance(payload.data, list):
        return payload
    try:
        return msgspec.structs.replace(payload, data=_replaced(payload.data, payload.dtype, find))
    except NDStreamError:
        raise
    except (OverflowError, *LIBRARY_ERRORS) as error:
        raise InvalidRequest(f"a reference cannot be made: {error}") from None


def _replaced(elements: list[Any], dtype: DType, find: Callable[[str], Object]) -> list[Any]:
    match dtype:
        case Reference(to="object"):
            return [None if item is None else _reference(item, find) for item in elements]
        case Reference():
            return [None if item is None else _region(item, find) for item in elements]
        case Array(base=base) | Sequence(base=base) if holds_references(base):
            return [_replaced(item, base, find) for item in elements]
        case Compound(fields=fields):
            columns = [
                _replaced(list(column), field.dtype, find)
                for field, column in zip(fields, zip(*elements, strict=True), strict=False)
            ]
            return [list(row) for row in zip(*columns, strict=True)]
        case _:
            return elements


def _reference(name: Any, find: Callable[[str], Object]) -> Any:
    if not isinstance(name, str):
        raise InvalidRequest("a reference is the path of an object, or nothing")
    return h5r.create(find(name), b".", h5r.OBJECT)


def _region(value: Any, find: Callable[[str], Object]) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise InvalidRequest("a region is a map with the name of a dataset, and blocks or points")
    dataset = find(value["name"])
    if not isinstance(dataset, h5d.DatasetID):
        raise InvalidRequest(f"{value['name']} is not a dataset: it has no regions")
    space = dataset.get_space()
    if value.get("points"):
        space.select_elements(value["points"])
    else:
        space.select_none()
        for start, stop in value.get("blocks", ()):
            count = tuple(high - low for low, high in zip(start, stop, strict=True))
            if any(low < 0 or length < 0 for low, length in zip(start, count, strict=True)):
                raise InvalidRequest(f"a block from {start} to {stop} is no region")
            space.select_hyperslab(tuple(start), count, op=h5s.SELECT_OR)
    return h5r.create(dataset, b".", h5r.DATASET_REGION, space)
