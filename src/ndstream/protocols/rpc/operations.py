"""Commands that write, as operations of a store (SPEC.md, A3, C4, E1)."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np

from ndstream.core import operations as ops
from ndstream.core.dtypes import Integer, String, item_size, memory_size, to_numpy
from ndstream.core.model import Filter
from ndstream.core.operations import Operation, Payload
from ndstream.errors import InvalidRequest, UnsupportedDType, WrongKind
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.arrays import check_rows
from ndstream.protocols.rpc.dtypes import parse
from ndstream.protocols.rpc.fitting import check_fits
from ndstream.protocols.rpc.values import SERIALIZED, attribute_payload, payload_of, to_array, to_stored

Operations: TypeAlias = list[Operation]

_DEFLATE, _SHUFFLE, _LZF = 1, 2, 32000
_LEVEL = 4
_VALUES = frozenset({"data", "fillvalue", "attrs", "commands"})
"""Arguments that are values as they come."""
_NAMES = ("gzip", "deflate", "zlib")


def filters_of(compression: str | None, level: int | None = None, *, shuffle: bool = False) -> tuple[Filter, ...]:
    """Filters that are meant by the name of a compression.

    Raises
    ------
    InvalidRequest
        There is none of that name.
    """
    found = (Filter(id=_SHUFFLE, name="shuffle"),) if shuffle else ()
    if compression is None:
        return found
    if compression in _NAMES:
        chosen = _LEVEL if level is None else level
        if not 0 <= chosen <= 9:
            raise InvalidRequest(f"a level of {chosen} for gzip, which has 0 to 9")
        return (*found, Filter(id=_DEFLATE, name="deflate", options=(chosen,)))
    if compression == "lzf" and level is None:
        return (*found, Filter(id=_LZF, name="lzf", optional=True))
    raise InvalidRequest(f"no compression is called {compression[:20]!r}; known: gzip, lzf")


def check_name(path: str) -> str:
    """Refuse the path of the root group, where a dataset is needed.

    Raises
    ------
    WrongKind
    """
    if not path.strip("/"):
        raise WrongKind("/ is the root group, where a dataset is needed")
    return path


def made(path: str, payload: Payload, compression: str | None) -> ops.CreateDataset:
    """Make a dataset of this data, of a fixed shape."""
    return ops.CreateDataset(
        name=path,
        dtype=payload.dtype,
        shape=payload.shape,
        filters=filters_of(compression) if payload.shape else (),
        data=payload,
    )


def growing(path: str, payload: Payload, compression: str | None) -> ops.CreateDataset:
    """Make an empty dataset for rows such as these."""
    assert payload.shape is not None
    rest = payload.shape[1:]
    return ops.CreateDataset(
        name=path,
        dtype=payload.dtype,
        shape=(0, *rest),
        maxshape=(None, *rest),
        chunks=_chunks(payload),
        filters=filters_of(compression),
    )


def _chunks(payload: Payload) -> tuple[int, ...] | bool:
    """Chunks of some 64 KiB for narrow rows: who appends row after row would get tiny ones from a guess."""
    assert payload.shape is not None
    rest = payload.shape[1:]
    row = memory_size(payload.dtype) * int(np.prod(rest, dtype=object))
    return (max(1, (64 << 10) // row), *rest) if 0 < row <= 16 << 10 else True


def rows_of(data: Any) -> Payload:
    """Rows that are added to a dataset: a single value is one of them."""
    array = to_array(data)
    return payload_of(array if array.ndim else array.reshape(1))


def replacing(path: str, data: Any, compression: str | None) -> Operations:
    """Put a value in the place of whatever is there."""
    stored = to_stored(data)
    found: Operations = [ops.Delete(name=path, missing_ok=True), made(path, stored.payload, compression)]
    return [*found, marked(path)] if stored.serialized else found


def overwriting(path: str, payload: Payload) -> Operations:
    """Write into a dataset of the same type and shape, made if there is nothing."""
    found: Operations = [
        ops.CreateDataset(name=path, dtype=payload.dtype, shape=payload.shape, exist_ok=True),
        ops.Write(name=path, data=payload),
    ]
    if payload.dtype == SERIALIZED:
        # What was a serialized value is plain bytes from now on.
        found.append(ops.DeleteAttributes(name=path, names=(m.MARKER,), missing_ok=True))
    return found


def marked(path: str) -> Operation:
    """Note that a dataset holds a serialized value."""
    marker = Payload(dtype=String(size=7, charset="ascii"), shape=(), data=b"msgpack")
    return ops.SetAttributes(name=path, values={m.MARKER: marker})


def create_dataset(command: m.CreateDataset) -> ops.CreateDataset:
    """Make a dataset as it was described; type and shape may be left to the data.

    Raises
    ------
    InvalidRequest, UnsupportedDType
    """
    path = check_name(command.path)
    data = None if command.data is None else payload_of(to_array(command.data))
    if command.dtype is None and data is None:
        raise InvalidRequest("a dataset needs a dtype, or data")
    dtype = parse(command.dtype) if command.dtype is not None else data.dtype if data is not None else Integer(size=8)
    if data is not None:
        check_fits(data, dtype)
    shape = command.shape if command.shape is not None else data.shape if data is not None else ()
    return ops.CreateDataset(
        name=path,
        dtype=dtype,
        shape=shape,
        maxshape=command.maxshape,
        chunks=command.chunks,
        filters=filters_of(command.compression, command.compression_opts, shuffle=command.shuffle),
        fill=_fill(command.fillvalue, dtype),
        data=data,
        exist_ok=command.exist_ok,
    )


def _fill(value: Any, dtype: Any) -> bytes | None:
    if value is None:
        return None
    if item_size(dtype) is None:
        raise UnsupportedDType("elements of variable length have no fill value")
    spelled = to_numpy(dtype)
    if isinstance(value, np.ndarray) and value.shape != spelled.shape:
        raise InvalidRequest("a fill value is one element")
    if isinstance(value, list):
        check_rows(value, spelled.base.itemsize)
    try:
        array = np.asarray(value if not isinstance(value, list) else tuple(value), spelled.base)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"a fill value that is not of the type {spelled}") from error
    if array.shape != spelled.shape:
        raise InvalidRequest("a fill value is one element")
    return array.tobytes()


def set_attrs(command: m.SetAttrs) -> ops.SetAttributes:
    """Set attributes."""
    if m.MARKER in command.attrs:
        raise InvalidRequest(f"{m.MARKER} is the server's own")
    values = {name: attribute_payload(value) for name, value in command.attrs.items()}
    return ops.SetAttributes(name=command.path, values=values)


def batched(command: str, arguments: m.Command) -> Operations:
    """Operations of one command of a batch, which depend on nothing that is in the file.

    Raises
    ------
    InvalidRequest
        The command cannot be part of a batch.
    """
    match arguments:
        case m.CreateGroup(path=path):
            return [ops.CreateGroup(name=path, exist_ok=True)]
        case m.CreateDataset():
            return [create_dataset(arguments)]
        case m.Write(path=path, data=data, compression=compression):
            return replacing(check_name(path), data, compression)
        case m.Update(path=path, data=data, compression=compression, selection=None):
            return replacing(check_name(path), data, compression)
        case m.Append(path=path, data=data, deduplicate_on=key):
            return [ops.Append(name=check_name(path), data=rows_of(data), key=key)]
        case m.Insert(path=path, index=index, data=data):
            return [ops.Insert(name=check_name(path), index=index, data=rows_of(data))]
        case m.Resize(path=path, shape=shape, shrink=True):
            return [ops.Resize(name=check_name(path), shape=shape)]
        case m.Delete(path=path):
            return [ops.Delete(name=check_name(path), missing_ok=True)]
        case m.SetAttrs():
            return [set_attrs(arguments)]
        case m.DeleteAttrs(path=path, names=names):
            return [ops.DeleteAttributes(name=path, names=names, missing_ok=True)]
    raise InvalidRequest(f"{command} cannot be part of a batch")


def outcome_fields(command: str, outcome: ops.Outcome) -> dict[str, Any]:
    """What a reply says of the last operation of a command."""
    fields: dict[str, Any] = {"status": "success"}
    if command in ("append", "insert", "resize") and outcome.shape is not None:
        fields["shape"] = list(outcome.shape)
    if command == "append" and outcome.replaced:
        fields["replaced"] = outcome.replaced
    if command in ("delete", "delete_attrs"):
        fields["deleted"] = outcome.done
    return fields


def _plain(value: Any) -> Any:
    """Argument in which scalars of numpy are plain numbers, in lists as well."""
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, np.generic) else item for item in value]
    return value.item() if isinstance(value, np.generic) else value


def arguments_of(command: str, given: dict[str, Any], *, known_only: bool) -> m.Command:
    """Read the arguments of a command.

    Parameters
    ----------
    known_only : bool
        Leave out what the command does not know, as the original does.

    Raises
    ------
    InvalidRequest
        One is missing, unknown, or of a wrong type.
    """
    kind = m.COMMANDS[command][0]
    if known_only:
        given = {key: value for key, value in given.items() if key in kind.__struct_fields__ and value is not None}
    given = {key: value if key in _VALUES else _plain(value) for key, value in given.items()}
    for name in ("path", "after"):
        path = given.get(name)
        if isinstance(path, str) and (len(path.encode("utf-8", "replace")) > m.LONGEST_PATH or "\0" in path):
            raise InvalidRequest(f"a path has at most {m.LONGEST_PATH} bytes, none of them NUL")
    try:
        return msgspec.convert(given, kind)
    except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{command}: {error}") from error
