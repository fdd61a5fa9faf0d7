"""Element types of the HDF5 library as `ndstream.core.dtypes`, and back.

Types are taken from the library's own description, member by member, not from the numpy dtype that h5py makes of
them: that one has lost padding, tags and unusual widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import h5py
import msgspec
import numpy as np
from h5py import h5t

from ndstream.core.dtypes import (
    Array,
    Bitfield,
    Boolean,
    ByteOrder,
    Complex,
    Compound,
    DType,
    Enum,
    Field,
    Float,
    Foreign,
    Integer,
    Opaque,
    Reference,
    Sequence,
    String,
    item_size,
    memory_size,
    readable,
    to_numpy,
)
from ndstream.errors import UnsupportedDType
from ndstream.stores.hdf5.names import text_of

Padding: TypeAlias = Literal["null-terminated", "null-padded", "space-padded"]

_NESTING = 32
_KEPT = 4096
#: Bytes of the description of a type, which is in the header of its object; and those of a member besides its name.
_DESCRIPTION = (1 << 16) - 1
_MEMBER = 12

_PADDINGS: dict[int, Padding] = {
    h5t.STR_NULLTERM: "null-terminated",
    h5t.STR_NULLPAD: "null-padded",
    h5t.STR_SPACEPAD: "space-padded",
}
_CHARSETS: dict[int, Literal["ascii", "utf-8"]] = {h5t.CSET_ASCII: "ascii", h5t.CSET_UTF8: "utf-8"}

_CLASSES = {h5t.TIME: "time", h5t.BITFIELD: "bit field", h5t.REFERENCE: "reference of HDF5 1.12"}

# (size, precision, offset, fields (sign, exponent, its bits, mantissa, its bits), bias) of the floats numpy has.
_FLOATS = {
    (kind.get_size(), kind.get_precision(), kind.get_offset(), kind.get_fields(), kind.get_ebias(), kind.get_norm())
    for kind in (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE, h5t.LDOUBLE_LE)
}
# Bits of exponent and mantissa of the floats to read others as, smallest first.
_FLOAT_BITS = ((2, 5, 10), (4, 8, 23), (8, 11, 52), (16, 15, 63))

_known: dict[bytes, Kind] = {}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known about a type of the library.

    Attributes
    ----------
    dtype : DType
        Elements as they are stored.
    target : DType or None
        Elements as they are read; None when they cannot be.
    size : int or None
        Bytes of one element as it is read, if `target` is fixed.
    handle : int
        Bytes of one element in memory, `ndstream.core.dtypes.memory_size`.
    length : int
        Bytes that the description `dtype` takes in a message.
    memory : h5py.h5t.TypeID
        To read elements into; for fixed types, these are their plain bytes.
    spelled : numpy.dtype
        Of an array that takes what is read into `memory`.
    """

    dtype: DType
    target: DType | None
    size: int | None
    handle: int
    length: int
    memory: h5t.TypeID
    spelled: np.dtype[Any]


def kind_of(type_: h5t.TypeID) -> Kind:
    """Find out all about a type of the library.

    Never fails on a type that the library can open: what cannot be said is `Foreign`. Equal types give the same
    object, so that describing thousands of alike datasets is cheap.
    """
    key = type_.encode()
    known = _known.get(key)
    if known is None:
        if len(_known) >= _KEPT:
            _known.clear()
        known = _known[key] = _examine(type_)
    return known


def type_of(type_: h5t.TypeID) -> DType:
    """Describe a type of the library, as `kind_of` does."""
    return kind_of(type_).dtype


def _examine(type_: h5t.TypeID) -> Kind:
    plain = type_.copy()  # a committed type would keep its file open
    dtype = _describe(plain, 0)
    target = readable(dtype)
    memory, spelled = plain, np.dtype("V1")
    if target is not None:
        try:
            memory, spelled = _memory(plain, dtype, target)
        except (TypeError, ValueError):  # also what h5py raises for types it has no way to read
            target = None
    size = None if target is None else item_size(target)
    return Kind(
        dtype=dtype,
        target=target,
        size=size,
        handle=memory_size(dtype),
        length=len(msgspec.msgpack.encode(dtype)),
        memory=memory,
        spelled=spelled,
    )


def _memory(type_: h5t.TypeID, stored: DType, dtype: DType) -> tuple[h5t.TypeID, np.dtype[Any]]:
    """Type to read elements into, for the library and for numpy.

    Fixed members of records are read as the bytes that they are; only the rest becomes objects.
    """
    size = item_size(dtype)
    if size is not None:
        return (type_ if dtype is stored else type_id(dtype)), np.dtype(f"V{size}")
    if not isinstance(dtype, Compound) or not isinstance(stored, Compound):
        # h5py chooses by itself what it makes of foreign numbers in sequences, and then mislabels big-endian ones.
        if dtype is not stored and not (
            isinstance(dtype, Sequence) and type_.get_super().dtype == to_numpy(dtype.base)
        ):
            raise UnsupportedDType("sequences of such numbers cannot be read")
        spelled = to_numpy(dtype, references=(h5py.Reference, h5py.RegionReference))
        return h5t.py_create(spelled), spelled
    members = [
        _memory(type_.get_member_type(index), before.dtype, after.dtype)
        for index, (before, after) in enumerate(zip(stored.fields, dtype.fields, strict=True))
    ]
    record = h5t.create(h5t.COMPOUND, sum(member.get_size() for member, _ in members))
    offset = 0
    for index, (member, _) in enumerate(members):
        record.insert(type_.get_member_name(index), offset, member)
        offset += member.get_size()
    return record, np.dtype([(field.name, spelled) for field, (_, spelled) in zip(dtype.fields, members, strict=True)])


def _describe(kind: h5t.TypeID, depth: int) -> DType:
    if depth > _NESTING:
        return Foreign(name=f"nested more than {_NESTING} times", size=kind.get_size())
    match kind:
        case h5t.TypeEnumID():
            return _enum(kind)
        case h5t.TypeIntegerID():
            return _integer(kind)
        case h5t.TypeFloatID():
            return _float(kind)
        case h5t.TypeComplexID():
            return _complex(kind)
        case h5t.TypeStringID():
            return _string(kind)
        case h5t.TypeCompoundID():
            return _compound(kind, depth)
        case h5t.TypeArrayID():
            return Array(base=_describe(kind.get_super(), depth + 1), shape=kind.get_array_dims())
        case h5t.TypeVlenID():
            return Sequence(base=_describe(kind.get_super(), depth + 1))
        case h5t.TypeOpaqueID():
            return Opaque(size=kind.get_size(), label=text_of(kind.get_tag()))
        case h5t.TypeBitfieldID() if kind.get_size() in (1, 2, 4, 8):
            return Bitfield(size=kind.get_size(), order=_order(kind))
        case h5t.TypeReferenceID() if kind.equal(h5t.STD_REF_OBJ):
            return Reference(to="object")
        case h5t.TypeReferenceID() if kind.equal(h5t.STD_REF_DSETREG):
            return Reference(to="region")
        case _:
            return Foreign(name=_CLASSES.get(kind.get_class(), "unknown"), size=kind.get_size())


def _order(kind: h5t.TypeID) -> ByteOrder:
    return ">" if kind.get_order() == h5t.ORDER_BE and kind.get_size() > 1 else "<"


def _integer(kind: h5t.TypeIntegerID) -> Integer | Foreign:
    size, precision = kind.get_size(), kind.get_precision()
    signed = kind.get_sign() == h5t.SGN_2
    if size in (1, 2, 4, 8) and precision == 8 * size:
        return Integer(size=size, signed=signed, order=_order(kind))
    wide = next((Integer(size=fit, signed=signed) for fit in (1, 2, 4, 8) if precision <= 8 * fit), None)
    return Foreign(name=f"{'' if signed else 'u'}int{precision}", size=size, reads_as=wide)


def _float(kind: h5t.TypeFloatID) -> Float | Foreign:
    size, fields = kind.get_size(), kind.get_fields()
    order = kind.get_order()
    layout = (size, kind.get_precision(), kind.get_offset(), fields, kind.get_ebias(), kind.get_norm())
    if layout in _FLOATS and order in (h5t.ORDER_LE, h5t.ORDER_BE):
        return Float(size=size, order=_order(kind))
    _, _, exponent, _, mantissa = fields
    usual = kind.get_ebias() == (1 << (exponent - 1)) - 1
    wide = next(
        (
            Float(size=fit)
            for fit, exponents, mantissas in _FLOAT_BITS
            if mantissa <= mantissas and (exponent < exponents or (exponent == exponents and usual))
        ),
        Float(size=16),
    )
    return Foreign(name=f"float{kind.get_precision()} with {exponent} bits of exponent", size=size, reads_as=wide)


def _complex(kind: h5t.TypeComplexID) -> Complex | Foreign:
    part = _float(kind.get_super())
    if isinstance(part, Float):
        if part.size >= 4:
            return Complex(size=2 * part.size, order=part.order)
        return Foreign(name=f"complex{16 * part.size}", size=kind.get_size(), reads_as=Complex(size=8))
    wide = part.reads_as and Complex(size=2 * max(4, part.reads_as.size))
    return Foreign(name=f"complex of {part.name}", size=kind.get_size(), reads_as=wide)


def _enum(kind: h5t.TypeEnumID) -> DType:
    base = _integer(kind.get_super())
    members = {
        text_of(kind.get_member_name(index)): int(kind.get_member_value(index)) for index in range(kind.get_nmembers())
    }
    if isinstance(base, Foreign):
        return Foreign(name=f"enumeration of {base.name}", size=base.size)
    if base.size == 1 and members == {"FALSE": 0, "TRUE": 1}:
        return Boolean()
    return Enum(base=base, members=members)


def _string(kind: h5t.TypeStringID) -> String | Foreign:
    charset, padding = _CHARSETS.get(kind.get_cset()), _PADDINGS.get(kind.get_strpad())
    if charset is None or padding is None:
        return Foreign(name="string of a reserved kind", size=kind.get_size())
    if kind.is_variable_str():
        # How a string of variable length would be padded means nothing.
        return String(size=None, charset=charset)
    return String(size=kind.get_size(), charset=charset, padding=padding)


def _compound(kind: h5t.TypeCompoundID, depth: int) -> Compound | Complex:
    fields = tuple(
        Field(
            name=text_of(kind.get_member_name(index)),
            dtype=_describe(kind.get_member_type(index), depth + 1),
            offset=kind.get_member_offset(index),
        )
        for index in range(kind.get_nmembers())
    )
    size = kind.get_size()
    match fields:
        # The convention of h5py for complex numbers.
        case (Field(name="r", offset=0, dtype=Float() as real), Field(name="i", dtype=imaginary, offset=offset)) if (
            real == imaginary and offset == real.size and size == 2 * real.size and real.size >= 4
        ):
            return Complex(size=size, order=real.order)
    return Compound(fields=fields, size=size)


def type_id(dtype: DType) -> h5t.TypeID:
    """Make the type of the library that `dtype` describes, as h5py writes it.

    Raises
    ------
    UnsupportedDType
        For a `Foreign` type, whose description does not say enough, and for what h5py cannot make.
    """
    match dtype:
        case Integer(size=size, signed=signed, order=order):
            return _standard(f"STD_{'I' if signed else 'U'}{8 * size}", order)
        case Float(size=16, order=order):
            return _standard("LDOUBLE_", order)
        case Float(size=size, order=order):
            return _standard(f"IEEE_F{8 * size}", order)
        case Complex(size=size, order=order):
            part = Float(size=size // 2, order=order)
            return _record([(b"r", part, 0), (b"i", part, size // 2)], size)
        case Boolean():
            return _enumeration(Integer(size=1), {"FALSE": 0, "TRUE": 1})
        case Bitfield(size=size, order=order):
            return _standard(f"STD_B{8 * size}", order)
        case Enum(base=base, members=members):
            return _enumeration(base, members)
        case String():
            return _text(dtype)
        case Opaque(size=size, label=label):
            kind = h5t.create(h5t.OPAQUE, size)
            kind.set_tag(label.encode())
            return kind
        case Compound(fields=fields, size=size):
            return _record([(field.name.encode(), field.dtype, field.offset) for field in fields], size)
        case Array(base=base, shape=shape):
            return h5t.array_create(type_id(base), shape)
        case Sequence(base=base):
            return h5t.vlen_create(type_id(base))
        case Reference(to=to):
            return h5t.STD_REF_OBJ if to == "object" else h5t.STD_REF_DSETREG
        case Foreign(name=name):
            raise UnsupportedDType(f"elements of type {name} cannot be written")


def _standard(name: str, order: ByteOrder) -> h5t.TypeID:
    kind = getattr(h5t, name + ("BE" if order == ">" else "LE"), None)
    if kind is None:
        raise UnsupportedDType(f"HDF5 has no type {name}")
    return kind


def _text(dtype: String) -> h5t.TypeStringID:
    kind = h5t.C_S1.copy()
    kind.set_size(h5t.VARIABLE if dtype.size is None else dtype.size)
    kind.set_cset(next(number for number, charset in _CHARSETS.items() if charset == dtype.charset))
    if dtype.size is not None:
        kind.set_strpad(next(number for number, padding in _PADDINGS.items() if padding == dtype.padding))
    return kind


def _enumeration(base: Integer, members: dict[str, int]) -> h5t.TypeEnumID:
    _check_length(sum(len(name.encode()) + 1 + base.size for name in members))
    kind = h5t.enum_create(type_id(base))
    for name, value in members.items():
        try:
            kind.enum_insert(name.encode(), value)
        except OverflowError:
            raise UnsupportedDType(f"h5py cannot write {value} as a named value") from None
    return kind


def _record(members: list[tuple[bytes, DType, int]], size: int) -> h5t.TypeCompoundID:
    _check_length(sum(len(name) + _MEMBER for name, _, _ in members))
    kind = h5t.create(h5t.COMPOUND, size)
    for name, dtype, offset in members:
        kind.insert(name, offset, type_id(dtype))
    return kind


def _check_length(nbytes: int) -> None:
    """Refuse a type of which a file has no room for the description, before the library takes long over it."""
    if nbytes > _DESCRIPTION:
        raise UnsupportedDType(f"a type with names of {nbytes} bytes and more; {_DESCRIPTION} have room in a file")
