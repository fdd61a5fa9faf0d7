"""Arrays inside of messages: what stands for them in msgpack, in JSON and in extended frames, and back.

All are pure functions between an ndarray and plain values. Sources: SPEC.md, A2 and C2.
"""

from __future__ import annotations

import sys
import zlib
from collections import abc
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import DType, Sequence, String, from_numpy, is_fixed, memory_size, to_numpy
from ndstream.core.elements import restore
from ndstream.core.limits import LARGEST_DATASET, MiB
from ndstream.errors import InvalidRequest, ProtocolError, TooLarge, UnsupportedDType
from ndstream.protocols.rpc.dtypes import TEXT, array_dtype, parse, spell, spell_array
from ndstream.protocols.rpc.messages import WIDTH
from ndstream.wire.framing import Buffer

_RANK = 32
PADDED = 64 * MiB
"""Bytes that an array may take of which every element has as much room as the longest."""
_NUMBER = 4 * 64
"""Bytes of a number that becomes text since there is text beside it."""
_HANDLE = np.dtype("O")
_AS_SENT = sys.byteorder == "little"
"""Whether numbers in the byte order of this machine are sent as they are."""
_ND, _TYPE, _KIND, _SHAPE, _DATA = b"nd", b"type", b"kind", b"shape", b"data"


# -- msgpack-numpy (A2) --


def to_map(array: NDArray[Any]) -> dict[bytes, Any]:
    """Map with byte keys that stands for an array; its data is a view when the array allows it."""
    _check_mask(array)
    packed = little_endian(array)
    if packed.dtype.hasobject:
        raise UnsupportedDType("elements of variable length have no place in a message of the original: use lists")
    kind: Any = packed.dtype.descr if packed.dtype.names is not None else packed.dtype.str
    return {
        _ND: True,
        _TYPE: kind,
        _KIND: b"V" if packed.dtype.names is not None else b"",
        _SHAPE: list(packed.shape),
        _DATA: bytes_of(packed),
    }


def is_map(value: dict[Any, Any]) -> bool:
    """Whether a map stands for an array, a numpy scalar or a complex number."""
    return _ND in value or b"complex" in value or b"__ndarray__" in value


def from_map(value: dict[Any, Any]) -> Any:
    """Array, or complex number, that a map stands for; a view of its data.

    Raises
    ------
    InvalidRequest
        It says what does not fit together.
    UnsupportedDType
    """
    if b"complex" in value:
        try:
            return complex(value[_DATA])
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidRequest("not a complex number") from error
    if b"__ndarray__" in value:
        data, shape = value[b"__ndarray__"], value.get(_SHAPE)
        dtype = array_dtype(value.get(b"dtype"))
        if isinstance(data, list):
            check_rows(data, dtype.itemsize)
            try:
                return np.array([tuple(row) for row in data] if dtype.names else data, dtype)
            except (ValueError, TypeError, OverflowError) as error:
                raise InvalidRequest(f"these rows are no array of {dtype}") from error
        return _array(dtype, shape, data)
    dtype = array_dtype(value.get(_TYPE))
    if value[_ND] is False:
        scalar = _array(dtype, [], value.get(_DATA))
        check_characters(scalar)
        return scalar[()]
    return _array(dtype, value.get(_SHAPE), value.get(_DATA))


def _array(dtype: np.dtype[Any], shape: Any, data: Any) -> NDArray[Any]:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidRequest("an array needs its bytes")
    shape = _checked(shape, dtype)
    if len(data) != dtype.itemsize * prod(shape):
        raise InvalidRequest(f"{len(data)} bytes do not make an array of shape {shape} of {dtype}")
    return _filled(dtype, shape, data)


def _checked(shape: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Shape of an array of these elements, which numpy can make if there are bytes for all of it.

    Raises
    ------
    InvalidRequest
    """
    if not isinstance(shape, list | tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise InvalidRequest("an array needs a shape")
    # Numpy counts an axis of no length as one of one.
    nbytes = prod(max(1, side) for side in shape) * max(1, dtype.itemsize)
    if len(shape) + len(dtype.shape) > _RANK or nbytes > LARGEST_DATASET:
        raise InvalidRequest(f"no array has the shape {tuple(shape[: _RANK + 1])}")
    if not dtype.itemsize and 0 not in shape:
        raise InvalidRequest("elements of no size")
    return tuple(shape)


def _filled(dtype: np.dtype[Any], shape: tuple[int, ...], data: Buffer) -> NDArray[Any]:
    """View of bytes as an array; their number was checked."""
    if not len(data):
        return np.zeros(shape + dtype.shape, dtype.base)
    found: NDArray[Any] = np.frombuffer(data, dtype.base)
    return found.reshape(shape + dtype.shape)


# -- extended frames (C2) --


def to_reference(array: NDArray[Any], bodies: list[Buffer]) -> dict[str, Any]:
    """Map that stands for an array whose bytes are appended to `bodies`; text and sequences stay in the map."""
    _check_mask(array)
    shape = list(array.shape)
    if array.dtype.kind == "U":
        check_characters(array)
        return {"$nd": array.reshape(-1).tolist(), "dtype": TEXT, "shape": shape}
    if array.dtype.kind == "O":
        base = spell(from_numpy(array.dtype)) if array.dtype.metadata else TEXT
        flat = [item.tolist() if isinstance(item, np.ndarray) else item for item in array.reshape(-1)]
        return {"$nd": flat, "dtype": base, "shape": shape}
    packed = little_endian(array)
    bodies.append(bytes_of(packed))
    return {"$nd": len(bodies) - 1, "dtype": spell_array(packed.dtype), "shape": shape}


def from_reference(value: dict[Any, Any], bodies: abc.Sequence[memoryview], codecs: frozenset[str], most: int) -> Any:
    """Array that a map with ``$nd`` stands for; a view of its body unless that is compressed.

    Parameters
    ----------
    codecs : frozenset of str
        Ways of compression that were agreed on.
    most : int, bytes
        Largest array that a compressed body may become: what the other arrays of the message leave.

    Raises
    ------
    ProtocolError
        Lengths do not fit together, or the body does not become what was said; nothing was allocated before.
    InvalidRequest, UnsupportedDType, TooLarge
    """
    place = value["$nd"]
    if isinstance(place, list):
        return _listed(place, parse(value.get("dtype")), _checked(value.get("shape"), _HANDLE))
    dtype = array_dtype(value.get("dtype"))
    shape = _checked(value.get("shape"), dtype)
    if type(place) is not int or not 0 <= place < len(bodies):
        raise ProtocolError(f"there is no body number {str(place)[:20]}")
    nbytes = dtype.itemsize * prod(shape)
    body = bodies[place]
    codec = value.get("codec")
    if codec is not None:
        body = _expanded(body, codec, value.get("nbytes"), nbytes, codecs, most)
    if len(body) != nbytes:
        raise ProtocolError(f"a body of {len(body)} bytes for an array of {nbytes}")
    return _filled(dtype, shape, body)


def _listed(elements: list[Any], dtype: DType, shape: tuple[int, ...]) -> NDArray[Any]:
    if prod(shape) != len(elements):
        raise InvalidRequest(f"{len(elements)} elements do not make an array of shape {shape}")
    if isinstance(dtype, String) and all(isinstance(item, str) for item in elements):
        return of_texts(elements, shape)
    base = dtype.base if isinstance(dtype, Sequence) else None
    if base is None or not is_fixed(base):
        raise InvalidRequest("elements that are no text of this type")
    check_rows(elements, memory_size(base))
    try:
        flat = [np.asarray(item, to_numpy(base)).tobytes() for item in elements]
        return restore(flat, dtype, shape)
    except (ValueError, TypeError, OverflowError, ProtocolError) as error:
        raise InvalidRequest("elements that are not of their type") from error


def _expanded(body: memoryview, codec: Any, told: Any, nbytes: int, codecs: frozenset[str], most: int) -> memoryview:
    if codec not in codecs:
        raise InvalidRequest(f"bodies compressed by {str(codec)[:20]!r} were not agreed on")
    if told != nbytes:
        raise ProtocolError(f"a compressed body says {str(told)[:20]} bytes, the array has {nbytes}")
    if nbytes > most:
        raise TooLarge(f"a compressed array of {nbytes} bytes, {most} are left to its message (limit: frame)")
    machine = zlib.decompressobj()
    try:
        raw = machine.decompress(body, nbytes) if nbytes else b""
        # One byte more would be a bomb; asking for it shows whether there is one.
        over = machine.decompress(machine.unconsumed_tail, 1)
    except zlib.error as error:
        raise ProtocolError("a compressed body is damaged") from error
    if len(raw) != nbytes or over or not machine.eof:
        raise ProtocolError(f"a compressed body does not become the {nbytes} bytes that it says")
    return memoryview(raw)


# -- all --


def _check_mask(array: NDArray[Any]) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise UnsupportedDType("masks do not travel: send array.filled()")


def little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """The same elements little-endian, without gaps, in C order: the same array if it is so, else a copy."""
    if _AS_SENT and array.dtype.isbuiltin == 1 and array.flags.c_contiguous:
        return array
    target = packed_dtype(array.dtype)
    if array.dtype != target or array.dtype.str != target.str:
        array = array.astype(target)
    return np.ascontiguousarray(array).reshape(array.shape)


def packed_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Same dtype, little-endian and without gaps or metadata."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((packed_dtype(base), shape))
    if dtype.names is not None:
        assert dtype.fields is not None
        return np.dtype([(name, packed_dtype(dtype.fields[name][0])) for name in dtype.names])
    # By its name: of the types that numpy has names for there is one object each, which is told apart at once.
    return np.dtype(dtype.newbyteorder("<").str) if dtype.kind != "O" else dtype


def of_texts(texts: list[str], shape: tuple[int, ...]) -> NDArray[Any]:
    """Array of texts; of objects, where one of numpy would take much more memory than they have."""
    if not texts:
        return np.empty(shape, "U1")
    padded = fits_padded(max(map(len, texts)), len(texts))
    return np.array(texts, "U" if padded else object).reshape(shape)


def fits_padded(longest: int, count: int) -> bool:
    """Whether text may become an array of numpy, in which every element takes as much as the longest."""
    return 4 * longest * count <= PADDED


def check_rows(value: list[Any], itemsize: int) -> None:
    """Refuse nested lists that would take much more memory as an array of elements of so many bytes.

    Raises
    ------
    TooLarge
    """
    count = 0
    inside = [value]
    while inside:
        items = inside.pop()
        count += len(items)
        inside += [item for item in items if isinstance(item, list)]
        count += sum([item.size for item in items if isinstance(item, np.ndarray)])
    if itemsize > _HANDLE.itemsize and itemsize * count > PADDED:
        raise TooLarge(f"{count} elements of {itemsize} bytes in lists: send their bytes")


def check_padded(value: list[Any]) -> None:
    """Refuse nested lists that would take much more memory as an array, in which all is as long as the longest.

    Raises
    ------
    TooLarge
    """
    longest = count = given = 0
    numbers = texts = False
    inside = [value]
    while inside:
        items = inside.pop()
        count += len(items)
        for item in items:
            kind = type(item)
            if kind is str:
                texts = True
                longest = max(longest, 4 * len(item))
            elif kind is list:
                inside.append(item)
            elif isinstance(item, np.ndarray | np.generic) and item.dtype.kind in "USV":
                texts = True
                longest = max(longest, item.dtype.itemsize)
                count += item.size - 1
                given += item.nbytes
            else:
                numbers = True
                count += item.size - 1 if isinstance(item, np.ndarray) else 0
    if texts and numbers:
        longest = max(longest, _NUMBER)
    if longest * count > max(PADDED, 2 * given):
        raise TooLarge(f"{count} elements of up to {longest} bytes in lists: send fewer of them at a time")


def check_characters(array: NDArray[Any]) -> None:
    """Refuse numbers that are no characters, of which numpy and Python make text all the same.

    Parameters
    ----------
    array : ndarray

    Raises
    ------
    InvalidRequest
    """
    for name in array.dtype.names or ():
        check_characters(array[name])
    if array.dtype.kind != "U":
        return
    codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if codes.size and codes.max() > sys.maxunicode:
        raise InvalidRequest("text that is not Unicode")


def bytes_of(array: NDArray[Any]) -> Buffer:
    """Bytes of a C-contiguous array; a view, unless it is empty."""
    return array.reshape(-1).view(np.uint8).data if array.nbytes else b""


def to_lists(array: NDArray[Any]) -> Any:
    """Nested lists, as JSON has them.

    Raises
    ------
    UnsupportedDType
        There are bytes in it, or complex numbers, which JSON does not have.
    TooLarge
        There is nothing in it, in very many lists.
    """
    if not array.size and prod(side or 1 for side in array.shape) > WIDTH:
        raise TooLarge(f"no lists are made of the shape {array.shape}")
    if array.dtype.names is not None:
        columns = [to_lists(array[name]) for name in array.dtype.names]
        return _rows(columns, array.ndim)
    if array.dtype.kind in "SVc":
        raise UnsupportedDType(f"JSON has no place for elements of type {array.dtype.str}")
    if array.dtype.kind == "O":
        return _objects(array.tolist())
    return array.astype("f8").tolist() if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.tolist()


def _rows(columns: list[Any], depth: int) -> Any:
    return [_rows(list(row), depth - 1) for row in zip(*columns, strict=True)] if depth else columns


def _objects(value: Any) -> Any:
    if isinstance(value, list):
        return [_objects(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value
