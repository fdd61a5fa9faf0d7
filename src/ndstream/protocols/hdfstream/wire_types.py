"""How each element type travels: spelled how, carried by what, converted from what the file stores.

Source: SPEC.md, "Element types". Numbers travel little-endian and compounds without gaps, the members of these in
the byte order of the file. What a stock client cannot digest is spelled so that it can.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import (
    Array,
    Bitfield,
    Boolean,
    Complex,
    Compound,
    DType,
    Enum,
    Float,
    Foreign,
    Integer,
    Opaque,
    Reference,
    Sequence,
    String,
    is_fixed,
    memory_size,
    packed,
    readable,
    to_numpy,
)
from ndstream.errors import UnsupportedDType
from ndstream.wire.buffers import BufferPool
from ndstream.wire.recast import Recast

Carrier: TypeAlias = Literal["bytes", "strings", "arrays", "paths", "values", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WireType:
    """An element type on the wire.

    Attributes
    ----------
    element, kind
        Spelling of the type, compounds as lists of name and type, as the original server has them.
    mapped
        The same with compounds as a map of names and formats: the spelling that stock clients take for datasets.
    dims
        Axes of a top-level array type, which stand behind those of the dataset.
    size : int, bytes
        One element as limits count it: on the wire when `carrier` is "bytes", else its handle in memory.
    carrier
        "bytes": an ndarray. Else an array of variable length whose elements are strings, nested ndarrays, paths of
        objects, or plain values of any kind. "nothing": elements of this type cannot be read.
    stored, target
        For "bytes": numpy's dtype (without `dims`) of one element in the file and on the wire.
    recast
        Conversion from one to the other; None when nothing differs.
    faithful
        Whether the spelling alone says all about the type that h5py would show.
    """

    element: Any
    mapped: Any
    kind: str
    dims: tuple[int, ...] = ()
    size: int
    carrier: Carrier
    stored: np.dtype[Any] | None = None
    target: np.dtype[Any] | None = None
    recast: Recast | None = None
    faithful: bool

    def array(self, buffer: bytes | memoryview) -> NDArray[Any]:
        """View stored elements as an array of shape (elements, *dims); `carrier` is "bytes"."""
        flat: NDArray[Any] = np.frombuffer(buffer, self.stored)
        return flat.reshape(-1, *self.dims) if self.dims else flat

    def convert(self, buffer: bytes | memoryview) -> bytes | memoryview:
        """Make wire bytes of stored ones, in new memory; the very same object when nothing differs."""
        return buffer if self.recast is None else self.recast(memoryview(buffer))

    def recast_into(self, pool: BufferPool) -> Recast | None:
        """Conversion to buffers of `pool`; None when nothing differs."""
        if self.recast is None:
            return None
        assert self.stored is not None
        assert self.target is not None
        return Recast(self.stored, self.target, pool)


@lru_cache(maxsize=512)
def wire_type(dtype: DType) -> WireType:
    """Find out how elements of a type travel.

    Returns
    -------
    WireType
        With the `carrier` "nothing", as opaque bytes, for what cannot be read at all.
    """
    found = readable(dtype)
    if found is None:
        return _unreadable(dtype)
    try:
        return _fixed(dtype, found) if is_fixed(found) else _variable(dtype, found)
    except UnsupportedDType:  # numpy has no such type on this machine
        return _unreadable(dtype)


def _unreadable(dtype: DType) -> WireType:
    size = max(1, memory_size(dtype))
    return WireType(element=f"V{size}", mapped=f"V{size}", kind="V", size=size, carrier="nothing", faithful=False)


def _fixed(stored: DType, dtype: DType) -> WireType:
    dims: tuple[int, ...] = ()
    base = dtype
    while isinstance(base, Array):
        dims, base = dims + base.shape, base.base
    tight = packed(base)
    spelled = to_numpy(tight)
    target = spelled if isinstance(base, Compound) else spelled.newbyteorder("<")
    found = to_numpy(base)
    return WireType(
        element=_listed(tight, target),
        mapped=_mapped(tight, target),
        kind="V" if isinstance(base, Compound | Opaque) else "",
        dims=dims,
        size=memory_size(tight) * int(np.prod(dims, dtype=object)),
        carrier="bytes",
        stored=found,
        target=target,
        recast=None if found == target else Recast(found, target),
        faithful=not dims and stored is dtype and _is_faithful(base),
    )


def _variable(stored: DType, dtype: DType) -> WireType:
    element: Any = "O"
    carrier: Carrier = "values"
    kind = ""
    match dtype:
        case String():
            element, carrier = "str", "strings"
        case Reference(to="object"):
            element, carrier = "str", "paths"
        case Sequence(base=base) if is_fixed(base):
            inner = _fixed(base, base)
            element, carrier, kind = inner.mapped, "arrays", "V"
    faithful = stored is dtype and _is_faithful(dtype)
    size = memory_size(dtype)
    return WireType(element=element, mapped=element, kind=kind, size=size, carrier=carrier, faithful=faithful)


def _mapped(dtype: DType, spelled: np.dtype[Any]) -> Any:
    """Spell as numpy's map of names and formats."""
    if not isinstance(dtype, Compound):
        return _scalar(dtype, spelled)
    formats = []
    for field in dtype.fields:
        member, dims = _unwrapped(field.dtype)
        # Numpy's text for an array has no place for a map: such members stay bytes for stock clients.
        opaque = bool(dims) and isinstance(member, Compound)
        spelling = f"V{memory_size(member)}" if opaque else _mapped(member, to_numpy(member))
        formats.append(f"({','.join(map(str, dims))}{',' if len(dims) == 1 else ''}){spelling}" if dims else spelling)
    return {"names": [field.name for field in dtype.fields], "formats": formats}


def _listed(dtype: DType, spelled: np.dtype[Any]) -> Any:
    """Spell as lists of name, type and dimensions."""
    if not isinstance(dtype, Compound):
        return _scalar(dtype, spelled)
    members = []
    for field in dtype.fields:
        member, dims = _unwrapped(field.dtype)
        spelling = _listed(member, to_numpy(member))
        members.append([field.name, spelling, list(dims)] if dims else [field.name, spelling])
    return members


def _scalar(dtype: DType, spelled: np.dtype[Any]) -> str:
    """Spell a type without members; one-byte numbers have an order too, and booleans are numbers."""
    match dtype:
        case Boolean():
            return "<i1"
        case Opaque(size=size):
            return f"V{size}"
        case String(size=size):
            return f"S{size}"
    order = ">" if spelled.str[0] == ">" else "<"
    return f"{order}{spelled.kind}{spelled.itemsize}"


def _unwrapped(dtype: DType) -> tuple[DType, tuple[int, ...]]:
    """Element type and dimensions of an array type, however nested."""
    dims: tuple[int, ...] = ()
    while isinstance(dtype, Array):
        dims, dtype = dims + dtype.shape, dtype.base
    return dtype, dims


def _is_faithful(dtype: DType) -> bool:
    match dtype:
        case Integer(order=order, size=size) | Float(order=order, size=size) | Complex(order=order, size=size):
            return order == "<" or size == 1
        case String(size=None, charset=charset):
            return charset == "utf-8"
        case String(charset=charset):
            return charset == "ascii"
        case Sequence(base=base):
            return is_fixed(base) and not isinstance(base, Array | Compound) and _is_faithful(base)
        case Compound(fields=fields):
            return packed(dtype) == dtype and all(_is_faithful_member(field.dtype) for field in fields)
        case Opaque(label=label):
            return not label
        case Bitfield() | Boolean() | Enum() | Foreign() | Reference() | Array():
            return False


def _is_faithful_member(dtype: DType) -> bool:
    member, _ = _unwrapped(dtype)
    # Members keep the byte order of the file.
    return isinstance(member, Integer | Float | Complex) or _is_faithful(member)
