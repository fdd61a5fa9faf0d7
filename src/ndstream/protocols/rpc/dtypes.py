"""Element types as extended messages spell them (SPEC.md, C2, "dtype")."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from ndstream.core.dtypes import (
    Array,
    Boolean,
    Compound,
    DType,
    Enum,
    Field,
    Foreign,
    Integer,
    Opaque,
    Reference,
    Sequence,
    String,
    from_numpy,
    is_fixed,
    memory_size,
    to_numpy,
)
from ndstream.core.limits import LARGEST_ELEMENT
from ndstream.errors import InvalidRequest, TooLarge, UnsupportedDType

TEXT = "str"
_DEPTH = 16
_RANK = 32
_FIELDS = 4096
_LONGEST = 64
_KINDS = frozenset("biufcSV")


def spell(dtype: DType) -> Any:
    """Spell the type of elements as they are stored, little-endian and without gaps."""
    match dtype:
        case String(size=None) | Reference():
            return TEXT
        case Sequence(base=base):
            return {"vlen": spell(base)}
        case Enum(base=base, members=members):
            return {"enum": spell(base), "members": dict(members)}
        case Compound(fields=fields):
            return [_member(field) for field in fields]
        case Foreign(reads_as=None, size=size):
            return f"|V{size}"
        case Foreign(reads_as=reads_as):
            assert reads_as is not None
            return spell(reads_as)
        case Array():
            return [["", *_shaped(dtype)]]
        case _:
            return to_numpy(dtype).newbyteorder("<").str


def _member(field: Field) -> list[Any]:
    return [field.name, *_shaped(field.dtype)]


def _shaped(dtype: DType) -> list[Any]:
    shape: tuple[int, ...] = ()
    while isinstance(dtype, Array):
        shape += dtype.shape
        dtype = dtype.base
    return [spell(dtype), list(shape)] if shape else [spell(dtype)]


def parse(spelling: Any, depth: int = 0) -> DType:
    """Read the spelling of an element type; text of a fixed size is UTF-8 in records, of any size elsewhere.

    Raises
    ------
    InvalidRequest
        It is none.
    TooLarge
        One element is larger than is accepted.
    UnsupportedDType
        It is one that cannot be stored.
    """
    if depth > _DEPTH:
        raise InvalidRequest("an element type of too many levels")
    found = _parsed(spelling, depth)
    _check_size(memory_size(found))
    return found


def _parsed(spelling: Any, depth: int) -> DType:
    match spelling:
        case str() if spelling == TEXT:
            return String(size=None)
        case str() | bytes():
            return _simple(spelling, inner=depth > 0)
        case {"vlen": base, **rest} if not rest:
            return Sequence(base=parse(base, depth + 1))
        case {"enum": base, "members": dict(members), **rest} if not rest:
            return _enumeration(parse(base, depth + 1), members)
        case list() if spelling:
            return _compound(spelling, depth)
    raise InvalidRequest(f"not an element type: {reprlib.repr(spelling)}")


def _check_size(nbytes: int) -> None:
    if nbytes > LARGEST_ELEMENT:
        raise TooLarge(f"elements of {nbytes} bytes, {LARGEST_ELEMENT} are accepted")


def _plain(spelling: str | bytes) -> np.dtype[Any]:
    """Read numpy's own spelling of a type whose elements are plain bytes; never a pointer."""
    if isinstance(spelling, bytes):
        spelling = spelling.decode("ascii", "replace")
    if len(spelling) > _LONGEST or "," in spelling or "(" in spelling:
        raise InvalidRequest(f"not an element type: {spelling[:_LONGEST]!r}")
    try:
        found = np.dtype(spelling)
    except (TypeError, ValueError, SyntaxError, OverflowError) as error:
        raise InvalidRequest(f"not an element type: {spelling!r}") from error
    if found.kind not in "biufcSVU" or found.hasobject or found.subdtype is not None:
        raise UnsupportedDType(f"elements of type {spelling!r} do not travel")
    _check_size(found.itemsize)
    return found


def _simple(spelling: str | bytes, *, inner: bool) -> DType:
    found = _plain(spelling)
    if inner and not found.itemsize:
        raise InvalidRequest(f"a member of no size: {spelling!r}")
    if found.kind == "U":
        return _element(found) if inner else String(size=None)
    return from_numpy(found)


def _enumeration(base: DType, members: dict[Any, Any]) -> Enum:
    if not isinstance(base, Integer) or not all(
        isinstance(name, str) and type(value) is int for name, value in members.items()
    ):
        raise InvalidRequest("an enumeration gives integers names")
    held = np.iinfo(to_numpy(base))
    values = members.values()
    if not all(held.min <= value <= held.max for value in values) or len(set(values)) < len(values):
        raise InvalidRequest(f"the values of an enumeration are different, and from {held.min} to {held.max}")
    if not members or not all(map(_is_name, members)):
        raise InvalidRequest("an enumeration has names, which are not empty and hold no NUL")
    return Enum(base=base, members=members)


def _compound(entries: list[Any], depth: int) -> DType:
    if len(entries) > _FIELDS:
        raise InvalidRequest(f"a compound type of {len(entries)} members")
    fields: dict[str, Field] = {}
    offset = 0
    for entry in entries:
        match entry:
            case [str(name), base]:
                dtype = parse(base, depth + 1)
                if _is_gap(name, base) and len(entries) > 1:
                    offset += memory_size(dtype)
                    continue
            case [str(name), base, list(shape)] if len(shape) <= _RANK and all(
                type(side) is int and 0 < side < 1 << 31 for side in shape
            ):
                dtype = Array(base=parse(base, depth + 1), shape=tuple(shape))
            case _:
                raise InvalidRequest("a member of a compound type is a name, a type, maybe a shape")
        if len(entries) == 1 and not name and isinstance(dtype, Array):
            return dtype
        if not _is_name(name) or name in fields:
            raise InvalidRequest(f"a compound type with two members, or one, of the name {reprlib.repr(name)}")
        fields[name] = Field(name=name, dtype=dtype, offset=offset)
        offset += memory_size(dtype)
    if not fields:
        raise InvalidRequest("a compound type without members")
    return Compound(fields=tuple(fields.values()), size=offset)


def _is_name(name: str) -> bool:
    return name != "" and "\0" not in name


def _is_gap(name: str, base: Any) -> bool:
    """Whether an entry is what numpy spells between members that are not packed."""
    return not name and isinstance(base, str) and base.startswith("|V")


def array_dtype(spelling: Any) -> np.dtype[Any]:
    """Read the spelling of the type of an array whose elements travel as bytes, text in records as UTF-32.

    Raises
    ------
    InvalidRequest, TooLarge, UnsupportedDType
    """
    if isinstance(spelling, str | bytes):
        return _plain(spelling)
    if not is_fixed(parse(spelling)):
        raise InvalidRequest("elements of variable length come as a list")
    try:
        return _in_numpy(spelling)
    except (ValueError, TypeError) as error:
        raise UnsupportedDType(f"numpy has no such element type: {error}") from error


def _in_numpy(spelling: Any) -> np.dtype[Any]:
    """Make the dtype of a spelling that `parse` was content with."""
    match spelling:
        case str() | bytes():
            return _plain(spelling)
        case [["", base, shape]]:
            return np.dtype((_in_numpy(base), tuple(shape)))
        case list():
            return _record(spelling)
    return to_numpy(parse(spelling))


def _record(entries: list[Any]) -> np.dtype[Any]:
    names: list[str] = []
    formats: list[np.dtype[Any]] = []
    offsets: list[int] = []
    at = 0
    for name, base, *shape in entries:
        member = _in_numpy(base)
        for sides in shape:
            member = np.dtype((member, tuple(sides)))
        if not _is_gap(name, base):
            names.append(name)
            formats.append(member)
            offsets.append(at)
        at += member.itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": at})


def spell_array(dtype: np.dtype[Any]) -> Any:
    """Spell the type of an array that travels as bytes: what `array_dtype` reads.

    Raises
    ------
    UnsupportedDType
    """
    if dtype.names is not None:
        assert dtype.fields is not None
        return [[name, *_shaped_array(dtype.fields[name][0])] for name in dtype.names]
    if dtype.kind not in _KINDS | {"U"}:
        raise UnsupportedDType(f"elements of type {dtype} do not travel")
    return dtype.str


def _shaped_array(dtype: np.dtype[Any]) -> list[Any]:
    return [spell_array(dtype.base), list(dtype.shape)] if dtype.shape else [spell_array(dtype)]


def storable(dtype: np.dtype[Any]) -> DType:
    """Element type in which arrays of a dtype are stored: little-endian, packed, text as UTF-8.

    Raises
    ------
    UnsupportedDType
    """
    if dtype.names is not None:
        assert dtype.fields is not None
        fields: list[Field] = []
        offset = 0
        for name in dtype.names:
            member = _element(dtype.fields[name][0])
            fields.append(Field(name=name, dtype=member, offset=offset))
            offset += memory_size(member)
        return Compound(fields=tuple(fields), size=offset)
    if dtype.kind == "U":
        return String(size=None)
    return _element(dtype)


def _element(dtype: np.dtype[Any]) -> DType:
    """Type of a member of a compound, where text has room for as many characters as it had."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return Array(base=_element(base), shape=shape)
    if dtype.names is not None:
        return storable(dtype)
    if dtype.kind == "U":
        return String(size=max(dtype.itemsize, 4), charset="utf-8")
    if dtype.kind not in _KINDS:
        raise UnsupportedDType(f"elements of type {dtype} cannot be stored")
    if dtype.kind in "SV" and not dtype.itemsize:
        return String(size=1, charset="ascii") if dtype.kind == "S" else Opaque(size=1)
    found = from_numpy(dtype.newbyteorder("<"))
    return Boolean() if dtype.kind == "b" else found
