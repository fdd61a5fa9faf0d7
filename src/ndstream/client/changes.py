"""From what a caller writes to the operations that are sent; pure, for synchronous and asynchronous programs alike."""

from __future__ import annotations

import operator
import posixpath
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike

from ndstream.client.described import DescribedDataset
from ndstream.client.links import ExternalLink, HardLink, SoftLink
from ndstream.client.payloads import element_type, in_memory, is_empty, payload_of
from ndstream.core.dtypes import from_numpy, to_numpy
from ndstream.core.model import Attribute, Dataset, Filter, Node
from ndstream.core.model import HardLink as HardLinked
from ndstream.core.operations import (
    Append,
    Copy,
    CreateDataset,
    CreateGroup,
    Delete,
    DeleteAttributes,
    Insert,
    Link,
    Move,
    Operation,
    Payload,
    Resize,
    SetAttributes,
    Write,
)
from ndstream.core.selection import select
from ndstream.core.selection.plain import to_plain
from ndstream.errors import Forbidden, InvalidRequest, InvalidSelection, UnsupportedDType

_GZIP, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_NAMED = {
    "gzip": (_GZIP, "deflate"),
    "lzf": (_LZF, "lzf"),
    "lz4": (32004, "lz4"),
    "zstd": (32015, "zstd"),
}
_GZIP_LEVEL = 4
_MOST = 1 << 63


def write(dataset: DescribedDataset, shape: tuple[int, ...] | None, key: Any, value: Any) -> Write:
    """Write a value to a part of a dataset, which will have this shape then; it is broadcast as numpy does.

    Raises
    ------
    InvalidSelection, OutOfBounds, UnsupportedDType, InvalidRequest
    """
    if any(isinstance(item, str) for item in (key if isinstance(key, tuple) else (key,))):
        raise InvalidSelection(f"{dataset.name}: fields are not written alone: write whole records")
    if shape is None:
        raise InvalidSelection(f"{dataset.name}: a null dataspace has no elements to write")
    selection = select(key, shape)
    return Write(name=dataset.name, data=payload_of(value, dataset.dtype), selection=to_plain(selection, explicit=True))


def append(dataset: DescribedDataset, value: Any, axis: int, key: str | None) -> Append:
    """Make a dataset longer by a value, which has all of its axes."""
    axis, payload = _integer(axis), payload_of(value, dataset.dtype)
    if len(payload.shape or ()) == dataset.ndim - 1:
        shape = payload.shape or ()
        payload = Payload(dtype=payload.dtype, shape=(*shape[:axis], 1, *shape[axis:]), data=payload.data)
    return Append(name=dataset.name, data=payload, axis=axis, key=key)


def resize(
    dataset: DescribedDataset, shape: tuple[int, ...] | None, size: int | tuple[int, ...], axis: int | None
) -> Resize:
    """Give a dataset, which will have `shape` then, another one, or another length along an axis.

    Raises
    ------
    InvalidRequest
        There is no such axis, or a length is no integer.
    """
    if axis is None:
        return Resize(name=dataset.name, shape=lengths(size))
    if shape is None or not 0 <= _integer(axis) < len(shape):
        raise InvalidRequest(f"{dataset.name} has no axis {axis}")
    wanted = list(shape)
    wanted[axis] = _integer(size)
    return Resize(name=dataset.name, shape=tuple(wanted))


def lengths(given: Any) -> tuple[int, ...]:
    """Lengths of axes, given as any integers: one, or a sequence of them.

    Raises
    ------
    InvalidRequest
    """
    return tuple(map(_integer, given)) if np.iterable(given) else (_integer(given),)


def _integer(value: Any) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        raise InvalidRequest(f"{value!r} is no integer") from None
    if not -_MOST <= found < _MOST:
        raise InvalidRequest(f"{found} is more than a file has room for")
    return found


def create_dataset(
    name: str,
    shape: int | tuple[int, ...] | None,
    dtype: DTypeLike | None,
    data: Any,
    *,
    maxshape: int | tuple[int | None, ...] | None = None,
    chunks: int | tuple[int, ...] | bool | None = None,
    compression: str | int | None = None,
    compression_opts: Any = None,
    shuffle: bool = False,
    fletcher32: bool = False,
    fillvalue: Any = None,
    exist_ok: bool = False,
) -> CreateDataset:
    """Make a dataset; the words are those of ``h5py.Group.create_dataset``.

    Raises
    ------
    InvalidRequest
        Neither shape, type nor data are given, or they contradict each other.
    UnsupportedDType
    """
    data = in_memory(data)
    wanted = np.dtype("<f4") if dtype is None and data is None else element_type(dtype, data)
    payload = None if data is None or is_empty(data) else payload_of(data, wanted)
    given = None if shape is None else lengths(shape)
    if given is None and dtype is None and data is None:
        raise InvalidRequest(f"{name}: a dataset needs a shape, a type or data")
    if given is not None and payload is not None and given != payload.shape:
        payload = _reshaped(name, payload, given)
    found = given if payload is None else payload.shape
    return CreateDataset(
        name=name,
        dtype=from_numpy(wanted),
        shape=found,
        maxshape=None if maxshape is None else _most(maxshape),
        chunks=chunks if chunks is None or isinstance(chunks, bool) else lengths(chunks),
        filters=filters_of(compression, compression_opts, wanted, shuffle=shuffle, fletcher32=fletcher32),
        fill=None if fillvalue is None else _fill(fillvalue, wanted),
        data=payload,
        exist_ok=exist_ok,
    )


def _most(maxshape: Any) -> tuple[int | None, ...]:
    sides = maxshape if np.iterable(maxshape) else (maxshape,)
    return tuple(None if side is None else _integer(side) for side in sides)


def _fill(value: Any, dtype: np.dtype[Any]) -> bytes:
    given = np.asarray(value)
    payload = payload_of(given if given.dtype.kind in "biuf" else value, dtype)
    if isinstance(payload.data, list):
        raise UnsupportedDType(f"elements of type {dtype}, of variable length, have no fill value")
    if payload.shape != ():
        raise InvalidRequest("a fill value is one element")
    return bytes(payload.data)


def _reshaped(name: str, payload: Payload, shape: tuple[int, ...]) -> Payload:
    if int(np.prod(payload.shape or (), dtype=object)) != int(np.prod(shape, dtype=object)):
        raise InvalidRequest(f"{name}: data of shape {payload.shape} do not make a dataset of shape {shape}")
    return Payload(dtype=payload.dtype, shape=shape, data=payload.data)


def filters_of(
    compression: str | int | None, options: Any, dtype: np.dtype[Any], *, shuffle: bool, fletcher32: bool
) -> tuple[Filter, ...]:
    """Filters in the words of h5py: a name, the level of gzip, True for gzip, or the registered number of any filter.

    Raises
    ------
    InvalidRequest
        No filter has this name, or there are options of none.
    """
    if isinstance(compression, bool):
        compression = "gzip" if compression else None
    if compression is None and options is not None:
        raise InvalidRequest("compression_opts are those of a compression, and none is given")
    found: list[Filter] = []
    if shuffle:
        found.append(Filter(id=_SHUFFLE, name="shuffle", options=(dtype.itemsize,)))
    if isinstance(compression, str):
        if compression not in _NAMED:
            raise InvalidRequest(f"no compression is called {compression!r}; known: {', '.join(_NAMED)}, or a number")
        number, label = _NAMED[compression]
        if compression == "gzip" and options is None:
            options = _GZIP_LEVEL
        found.append(Filter(id=number, name=label, options=_numbers(options), optional=True))
    elif compression is not None:
        # As in h5py: a small number alone is a level of gzip.
        is_level = options is None and 0 <= compression < 10
        number, options = (_GZIP, compression) if is_level else (_integer(compression), options)
        label = "deflate" if is_level else str(number)
        found.append(Filter(id=number, name=label, options=_numbers(options), optional=True))
    if fletcher32:
        found.append(Filter(id=_FLETCHER32, name="fletcher32"))
    return tuple(found)


def _numbers(options: Any) -> tuple[int, ...]:
    if options is None:
        return ()
    return lengths(options)


def insert(dataset: DescribedDataset, index: int, value: Any, axis: int) -> Insert:
    """Insert a value, which has all axes of the dataset, or one row without its axis."""
    made = append(dataset, value, axis, None)
    return Insert(name=dataset.name, index=_integer(index), data=made.data, axis=made.axis)


def member(name: str, value: Any, file_path: str) -> Link | CreateDataset:
    """Make a member of what is assigned to a name: a link, a second name of an object of this file, or a dataset.

    Raises
    ------
    Forbidden
        A link out of the file.
    InvalidRequest
        An object of another file.
    """
    match value:
        case SoftLink(path=path):
            return Link(name=name, target=path)
        case ExternalLink() | HardLink():
            raise Forbidden(f"{name}: links out of the file are not made here")
    kind = getattr(value, "kind", None)
    if kind in ("dataset", "group", "datatype") and hasattr(value, "name"):
        return Link(name=name, target=inside(value, file_path), kind="hard")
    return create_dataset(name, None, None, value)


def inside(value: Any, file_path: str) -> str:
    """Name of a remote object of this file.

    Raises
    ------
    InvalidRequest
        It is of another file.
    """
    if getattr(value, "file_path", file_path) != file_path:
        raise InvalidRequest(f"{value.name} is in /{value.file_path}, not in /{file_path}: it cannot be linked to")
    return str(value.name)


def set_attributes(owner: str, values: Mapping[str, Any]) -> SetAttributes:
    """Set attributes, in the types that the values have."""
    payloads = {name: payload_of(value, element_type(None, value)) for name, value in values.items()}
    return SetAttributes(name=owner, values=payloads)


def create_attribute(
    owner: str, name: str, data: Any, shape: tuple[int, ...] | None, dtype: DTypeLike | None
) -> SetAttributes:
    """Set an attribute of a shape and type; see ``h5py.AttributeManager.create``.

    Raises
    ------
    InvalidRequest
        The data do not make the shape.
    """
    payload = payload_of(data, element_type(dtype, data))
    if shape is not None and payload.shape is not None and lengths(shape) != payload.shape:
        payload = _reshaped(f"attribute {name!r}", payload, lengths(shape))
    return SetAttributes(name=owner, values={name: payload})


def modify_attribute(owner: str, name: str, known: Attribute | None, value: Any) -> SetAttributes:
    """Change the value of an attribute and keep the shape and type that it is known to have.

    Raises
    ------
    InvalidRequest, UnsupportedDType
        The value is not of that shape or type.
    """
    if known is None or known.dtype is None or known.shape is None:
        return set_attributes(owner, {name: value})
    return create_attribute(owner, name, value, known.shape, to_numpy(known.dtype))


def attributes_after(
    known: Mapping[str, Attribute], operation: SetAttributes | DeleteAttributes
) -> dict[str, Attribute]:
    """Attributes of an object after an operation on it."""
    match operation:
        case SetAttributes(values=values):
            made = {name: _attribute(payload) for name, payload in values.items()}
            return dict(sorted({**known, **made}.items()))
        case _:
            return {name: each for name, each in known.items() if name not in operation.names}


def _attribute(payload: Payload) -> Attribute:
    data = payload.data
    value = None if payload.shape is None else data if isinstance(data, list) else bytes(data)
    return Attribute(dtype=payload.dtype, shape=payload.shape, value=value)


def members_after(known: Mapping[str, Node], group: str, operation: Operation) -> dict[str, Node]:
    """Members of a group after an operation on its file; what is new in it is not described."""
    members = dict(known)
    match operation:
        case Delete(name=name) | Move(name=name) if posixpath.dirname(name) == group:
            members.pop(posixpath.basename(name), None)
        case _:
            pass
    match operation:
        case (
            Move(target=name) | Copy(target=name) | CreateGroup(name=name) | CreateDataset(name=name) | Link(name=name)
        ):
            first, _, _ = posixpath.relpath(name, group).partition("/")
            if first not in (".", ".."):
                members.setdefault(first, HardLinked())
        case _:
            pass
    return dict(sorted(members.items(), key=_name))


def _name(item: tuple[str, Node]) -> bytes:
    return item[0].encode("utf-8", "surrogateescape")


def like(described: Dataset, name: str) -> CreateDataset:
    """Make a dataset of the type, shape and storage of another, without its data.

    Zeros need not be asked for as fill value, and not of every type they can be.
    """
    return CreateDataset(
        name=name,
        dtype=described.dtype,
        shape=described.shape,
        maxshape=described.maxshape,
        chunks=described.chunks,
        filters=tuple([msgspec.structs.replace(each, options=each.asked) for each in described.filters]),
        fill=described.fill if described.fill and any(described.fill) else None,
    )


def check_required(found: Any, name: str, shape: int | tuple[int, ...], dtype: DTypeLike, *, exact: bool) -> None:
    """Check what ``require_dataset`` finds.

    Raises
    ------
    UnsupportedDType
        It has another shape, or a type that the wanted one does not go into, or with `exact` is not.
    """
    wanted = lengths(shape)
    if not isinstance(found, DescribedDataset) or found.shape != wanted:
        raise UnsupportedDType(f"{name} is no dataset of shape {wanted}")
    fits = np.dtype(dtype) == found.dtype if exact else np.can_cast(np.dtype(dtype), found.dtype)
    if not fits:
        raise UnsupportedDType(f"{name} has the type {found.dtype}, not {np.dtype(dtype)}")


def below(group: str, name: str) -> str:
    """Absolute path of a name as seen from a group."""
    return posixpath.normpath(posixpath.join(group, name)).replace("//", "/", 1)
