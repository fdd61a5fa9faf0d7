"""Operations, carried out on a file that is open in the HDF5 library.

Every operation is checked before it changes anything; `Writer.dirty` tells whether something was changed when one
fails. Who calls then takes the file back to where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import singledispatchmethod
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5l, h5o, h5t

from ndstream.core.casting import array_of, bytes_of
from ndstream.core.chunking import check_chunk, check_stored
from ndstream.core.dtypes import Compound, Opaque, memory_size
from ndstream.core.limits import Limits
from ndstream.core.operations import (
    Append,
    Change,
    Copy,
    CreateDataset,
    CreateGroup,
    Delete,
    DeleteAttributes,
    Insert,
    Link,
    Move,
    Operation,
    Outcome,
    Payload,
    Resize,
    SetAttributes,
    Write,
    WriteChunk,
)
from ndstream.core.selection import Span, chunk_counts, everything, from_plain
from ndstream.core.selection.axes import Axis, pick
from ndstream.core.selection.selection import Selection
from ndstream.errors import Exists, Forbidden, InvalidRequest, NotFound, TooLarge
from ndstream.stores.hdf5.creating import AttributeValue, Recipe, check_shape, create
from ndstream.stores.hdf5.destination import Destinations, Object, new_group, utf8_names
from ndstream.stores.hdf5.dtypes import type_of
from ndstream.stores.hdf5.linking import with_references
from ndstream.stores.hdf5.matching import match
from ndstream.stores.hdf5.names import spellings
from ndstream.stores.hdf5.shifting import shift
from ndstream.stores.hdf5.storing import Place, Source, place_of, store
from ndstream.wire import buffers

_PLACES = 64
#: Places of chunks that the library goes through in a few seconds.
_WALKED = 1 << 26


class Effects:
    """What operations did: the changes for those who follow, and what readers have to know.

    Attributes
    ----------
    changes : dict of (str, bool) to Change
        By name, and whether it was deleted: one for each object, of several the whole.
    rewritten : set of int
        Addresses of datasets of which something changed that was there before.
    grown : set of int
        Addresses of datasets that became longer and are otherwise as they were.
    links : bool
        Whether names lead elsewhere now.
    everything : bool
        Whether any data may be elsewhere now.
    """

    __slots__ = ("changes", "everything", "grown", "links", "rewritten")

    def __init__(self) -> None:
        self.changes: dict[tuple[str, bool], Change] = {}
        self.rewritten: set[int] = set()
        self.grown: set[int] = set()
        self.links = False
        self.everything = False

    def note(self, change: Change) -> None:
        """Add a change to what is known of its object."""
        gone, key = (change.name, True), (change.name, False)
        before = self.changes.get(key)
        if change.kind == "deleted":
            self.changes.pop(key, None)
            self.changes[gone] = change
        elif before is None or change.kind == "created":
            self.changes[key] = change
        elif before.kind == "created":
            self.changes[key] = msgspec.structs.replace(before, shape=change.shape or before.shape)
        elif _continues(before, change):
            assert before.appended is not None
            assert change.appended is not None
            appended = (before.appended[0], change.appended[1])
            self.changes[key] = msgspec.structs.replace(change, appended=appended)
        elif change.kind == before.kind != "appended":
            self.changes[key] = change
        elif change.kind != "attributes":
            resized = "resized" in (before.kind, change.kind)
            kind: Literal["resized", "written"] = "resized" if resized else "written"
            self.changes[key] = Change(name=change.name, kind=kind, shape=change.shape, address=change.address)


def _continues(before: Change, change: Change) -> bool:
    return (
        before.kind == change.kind == "appended"
        and before.axis == change.axis
        and before.appended is not None
        and change.appended is not None
        and before.appended[1] == change.appended[0]
    )


class Writer:
    """Carries out operations.

    Parameters
    ----------
    file : h5py.h5f.FileID
        Open for reading and writing.
    limits : Limits
        `chunk`, `link_depth`, `selections` and `spool` apply.
    threads : ThreadPoolExecutor
        In which chunks are compressed.
    number : int
        Bits that addresses in this file have in descriptions (`ndstream.stores.hdf5.open_files.number_of`).

    Attributes
    ----------
    dirty : bool
        Whether anything was changed since `begin`.
    effects : Effects
        Of all operations since then.
    """

    def __init__(self, file: h5f.FileID, limits: Limits, threads: ThreadPoolExecutor, number: int) -> None:
        self.begin()
        self._file = file
        self._limits = limits
        self._threads = threads
        self._number = number
        self._places: dict[str, Place] = {}
        self._names = Destinations(file, limits.link_depth, self._changing)

    def begin(self) -> None:
        """Begin with another batch."""
        self.dirty = False
        self.effects = Effects()
        self._extra = 0

    def _changing(self) -> None:
        self.dirty = True

    def _toil(self, nbytes: int) -> None:
        """Count bytes that are to be gone through for a batch besides its own data, which is as long as it is.

        Raises
        ------
        TooLarge
            They are too many for one commit.
        """
        self._extra += nbytes
        if self._extra > self._limits.spool:
            raise TooLarge(
                f"{self._extra} bytes would be gone through, more than the limit 'spool' ({self._limits.spool})"
            )

    def carry_out(self, operation: Operation) -> Outcome:
        """Carry out one operation.

        Raises
        ------
        Exists, NotFound, Forbidden, InvalidRequest, InvalidSelection, UnsupportedDType, UnsupportedFilter, TooLarge
            It cannot be done; whether a part of it was, `dirty` tells.
        """
        return self._do(operation)

    def append_many(self, appends: Iterable[Append]) -> list[Outcome]:
        """Carry out appends that `mergeable` has found alike, as one: one dataset becomes longer, once."""
        some = list(appends)
        first = some[0]
        place, shape = self._growing(first)
        for operation in some:
            self._check_rows(operation, shape)
        # As bytes: numpy would join numbers in the byte order of the machine, and records without their gaps.
        opaque = Opaque(size=memory_size(first.data.dtype))
        arrays = [array_of(msgspec.structs.replace(operation.data, dtype=opaque)) for operation in some]
        whole = np.concatenate(arrays, axis=first.axis)
        data = buffers.bytes_of(whole)
        outcome = self._append(first, place, shape, msgspec.structs.replace(first.data, shape=whole.shape, data=data))
        assert outcome.shape is not None
        assert outcome.start is not None
        outcomes = []
        reached = outcome.start
        for array in arrays:
            start, reached = reached, reached + array.shape[first.axis]
            now = (*shape[: first.axis], reached, *shape[first.axis + 1 :])
            outcomes.append(Outcome(shape=now, start=start, done=reached > start))
        return outcomes

    @singledispatchmethod
    def _do(self, operation: Any) -> Outcome:
        raise InvalidRequest(f"no such operation: {type(operation).__name__}")

    # -- groups and links --

    @_do.register
    def _(self, operation: CreateGroup) -> Outcome:
        if operation.exist_ok:
            found = self._found(operation.name)
            if isinstance(found, h5g.GroupID):
                return Outcome(done=False)
        group, link = self._names.free(operation.name)
        self._changing()
        new_group(group, link)
        self._linked(operation.name, "created")
        return Outcome()

    @_do.register
    def _(self, operation: Delete) -> Outcome:
        try:
            group, link = self._names.taken(operation.name)
        except NotFound:
            if operation.missing_ok:
                return Outcome(done=False)
            raise
        self._changing()
        # Its space may be given to others at once: whoever still reads it must stop.
        self.effects.everything = True
        group.unlink(link)
        self._linked(operation.name, "deleted")
        return Outcome()

    @_do.register
    def _(self, operation: Move) -> Outcome:
        group, link = self._names.taken(operation.name)
        kind = group.links.get_info(link).type
        if kind == h5l.TYPE_HARD and _is_within(operation.target, operation.name):
            raise InvalidRequest(f"{operation.name} cannot be moved into itself")
        other, new = self._names.free(operation.target)
        self._changing()
        group.links.move(link, other, new, lcpl=utf8_names())
        self._linked(operation.name, "deleted")
        self._linked(operation.target, "created")
        return Outcome()

    @_do.register
    def _(self, operation: Copy) -> Outcome:
        group, link = self._names.taken(operation.name)
        kind = group.links.get_info(link).type
        if kind == h5l.TYPE_EXTERNAL:
            raise Forbidden(f"{operation.name} leads into another file")
        # libhdf5 (2.0) writes beyond its memory when it copies a chunk through filters that it has decoded already.
        self._places.clear()
        source = self._names.find(operation.name)
        if isinstance(source, h5g.GroupID) and _is_within(operation.target, operation.name):
            raise InvalidRequest(f"{operation.name} cannot be copied into itself")
        other, new = self._names.free(operation.target)
        self._changing()
        h5o.copy(source, b".", other, new, lcpl=utf8_names())
        self._linked(operation.target, "created")
        return Outcome()

    @_do.register
    def _(self, operation: Link) -> Outcome:
        if operation.kind == "soft":
            if not operation.target or "\0" in operation.target:
                raise InvalidRequest("a soft link leads to a path")
            group, link = self._names.free(operation.name)
            self._changing()
            target = operation.target.encode("utf-8", "surrogateescape")
            group.links.create_soft(link, target, lcpl=utf8_names())
        else:
            found = self._names.find(operation.target)
            group, link = self._names.free(operation.name)
            self._changing()
            h5o.link(found, group, link, lcpl=utf8_names())
        self._linked(operation.name, "created")
        return Outcome()

    def _linked(self, name: str, kind: Any, shape: tuple[int, ...] | None = None) -> None:
        self._places.clear()
        self.effects.links = True
        self.effects.note(Change(name=_canonical(name), kind=kind, shape=shape))

    def _found(self, name: str) -> Object | None:
        try:
            return self._names.find(name)
        except NotFound:
            return None

    # -- datasets --

    @_do.register
    def _(self, operation: CreateDataset) -> Outcome:
        recipe = Recipe(operation, self._limits.chunk)
        if operation.exist_ok:
            found = self._found(operation.name)
            if found is not None:
                self._require_same(operation, found)
                return Outcome(shape=operation.shape, done=False)
        group, link = self._names.free(operation.name)
        data = None
        if operation.data is not None and operation.shape is not None:
            data = with_references(operation.data, self._names.find)
            if _is_spread(data, count := prod(operation.shape)):
                self._toil(count * memory_size(operation.dtype))
        self._changing()
        made = create(group, link, recipe)
        self._linked(operation.name, "created", operation.shape)
        if data is not None and operation.shape is not None:
            place = place_of(made, 0, operation.name)
            store(place, everything(operation.shape), data, self._threads)
        return Outcome(shape=operation.shape)

    def _require_same(self, operation: CreateDataset, found: Object) -> None:
        if not isinstance(found, h5d.DatasetID):
            raise Exists(f"{operation.name} is there already, and no dataset")
        place = place_of(found, 0, operation.name)
        if place.shape != operation.shape or type_of(found.get_type()) != operation.dtype:
            raise Exists(f"{operation.name} is there already, of another type or shape")

    @_do.register
    def _(self, operation: Write) -> Outcome:
        place, shape = self._dataset(operation.name)
        selection = from_plain(operation.selection, shape, most=self._limits.selections)
        data = with_references(operation.data, self._names.find)
        Source(data, place, selection.shape)  # says what is wrong
        if selection.count:
            if _is_spread(data, selection.count):
                self._toil(selection.count * place.width)
            self._rewriting(place)
            store(place, selection, data, self._threads)
            self._data_changed(operation.name, place, "written", shape)
        return Outcome(shape=shape, done=bool(selection.count))

    @_do.register
    def _(self, operation: WriteChunk) -> Outcome:
        place, shape = self._dataset(operation.name)
        if place.itemsize is None or place.grid is None:
            raise InvalidRequest(f"{operation.name} is not stored in chunks of elements of one size")
        now = check_chunk(operation, shape, place.grid, place.maxshape[0])
        stored = bytes_of(operation.data)
        if stored.size > self._limits.chunk:
            raise TooLarge(f"a chunk of {stored.size} bytes is more than the limit 'chunk' ({self._limits.chunk})")
        check_stored(operation, stored.size, len(place.filters), prod(place.grid) * place.width)
        self._check_growth(place, now, operation.name)
        if now == shape:
            self._rewriting(place)
            self._data_changed(operation.name, place, "written", shape)
        else:
            if operation.start[0] < shape[0]:
                self._rewriting(place)  # it holds rows that were there
            self._changing()
            place.id.set_extent(now)
            self.effects.grown.add(place.address)
            if operation.start[0] == shape[0]:
                self._data_changed(operation.name, place, "appended", now, appended=(shape[0], now[0]))
            else:
                self._data_changed(operation.name, place, "resized", now)
        place.put(operation.start, stored, operation.mask)
        return Outcome(shape=now)

    @_do.register
    def _(self, operation: Append) -> Outcome:
        place, shape = self._growing(operation)
        self._check_rows(operation, shape)
        data = with_references(operation.data, self._names.find)
        if operation.key is not None:
            return self._append_by_key(operation, place, shape, data)
        return self._append(operation, place, shape, data)

    def _append(self, operation: Append, place: Place, shape: tuple[int, ...], data: Payload) -> Outcome:
        assert data.shape is not None
        axis, start = operation.axis, shape[operation.axis]
        count = data.shape[axis]
        now = (*shape[:axis], start + count, *shape[axis + 1 :])
        self._check_growth(place, now, operation.name)
        Source(data, place, data.shape)
        if not count:
            return Outcome(shape=shape, start=start, done=False)
        self._changing()
        place.id.set_extent(now)
        self.effects.grown.add(place.address)
        store(place, _slab(now, axis, start, count), data, self._threads)
        self._data_changed(operation.name, place, "appended", now, axis=axis, appended=(start, start + count))
        return Outcome(shape=now, start=start)

    def _append_by_key(self, operation: Append, place: Place, shape: tuple[int, ...], data: Payload) -> Outcome:
        key = operation.key
        assert key is not None
        if not isinstance(place.dtype, Compound) or not isinstance(data.dtype, Compound) or len(shape) != 1:
            raise InvalidRequest("a key is the name of a field of a dataset of records with one axis")
        if place.itemsize is None:
            raise InvalidRequest("records with members of variable length have no key")
        if key not in {field.name for field in place.dtype.fields}:
            raise InvalidRequest(f"there is no field called {key!r}")
        rows = Source(data, place, data.shape or ()).take(0, (data.shape or (0,))[0])
        if not rows.size:
            return Outcome(shape=shape, start=shape[0], done=False)
        self._toil(shape[0] * place.width)
        there, kept, fresh = match(place, rows, key, shape[0])
        now = (shape[0] + fresh.size,)
        self._check_growth(place, now, operation.name)
        stored = msgspec.structs.replace(data, dtype=place.dtype)
        if kept.size:
            self._rewriting(place)
            some = msgspec.structs.replace(stored, shape=(kept.size,), data=rows[kept].tobytes())
            store(place, Selection(source=shape, axes=(pick(there),)), some, self._threads)
            self._data_changed(operation.name, place, "written", shape)
        if fresh.size:
            some = msgspec.structs.replace(stored, shape=(fresh.size,), data=rows[fresh].tobytes())
            self._append(operation, place, shape, some)
        return Outcome(shape=now, start=shape[0], replaced=int(kept.size))

    @_do.register
    def _(self, operation: Insert) -> Outcome:
        place, shape = self._growing(operation)
        self._check_rows(operation, shape)
        data = with_references(operation.data, self._names.find)
        assert data.shape is not None
        axis, index, count = operation.axis, operation.index, data.shape[operation.axis]
        if not 0 <= index <= shape[axis]:
            raise InvalidRequest(f"nothing can be inserted before {index} in {shape[axis]}")
        now = (*shape[:axis], shape[axis] + count, *shape[axis + 1 :])
        self._check_growth(place, now, operation.name)
        Source(data, place, data.shape)
        if not count:
            return Outcome(shape=shape, start=index, done=False)
        behind = _slab(now, axis, index, now[axis] - index)
        self._toil(behind.count * place.width)
        self._rewriting(place)
        place.id.set_extent(now)
        place.make_ready(behind)
        shift(place, now, axis, index, count)
        store(place, _slab(now, axis, index, count), data, self._threads)
        self._data_changed(operation.name, place, "resized", now, axis=axis)
        return Outcome(shape=now, start=index)

    @_do.register
    def _(self, operation: Resize) -> Outcome:
        place, shape = self._dataset(operation.name)
        if len(operation.shape) != len(shape):
            raise InvalidRequest(f"a dataset of {len(shape)} axes cannot get the shape {operation.shape}")
        if operation.shape == shape:
            return Outcome(shape=shape, done=False)
        self._check_growth(place, operation.shape, operation.name)
        if all(new >= old for new, old in zip(operation.shape, shape, strict=True)):
            self._changing()
            self.effects.grown.add(place.address)
        else:
            _check_walk(place, shape, operation.shape)
            self._rewriting(place)
            for edge in _edges(place, shape, operation.shape):
                place.make_ready(edge)
        place.id.set_extent(operation.shape)
        place.settle()
        self._data_changed(operation.name, place, "resized", operation.shape)
        return Outcome(shape=operation.shape)

    def _data_changed(self, name: str, place: Place, kind: Any, shape: tuple[int, ...], **more: Any) -> None:
        address = self._number ^ place.address
        self.effects.note(Change(name=_canonical(name), kind=kind, shape=shape, address=address, **more))

    def _rewriting(self, place: Place) -> None:
        self._changing()
        self.effects.rewritten.add(place.address)

    def _dataset(self, name: str) -> tuple[Place, tuple[int, ...]]:
        place = self._places.get(name)
        if place is None or not place.id.valid:
            found = self._names.find(name)
            if not isinstance(found, h5d.DatasetID):
                raise InvalidRequest(f"{name} is not a dataset")
            if len(self._places) >= _PLACES:
                self._places.clear()
            place = self._places[name] = place_of(found, h5o.get_info(found).addr, name)
        shape = place.shape
        if shape is None:
            raise InvalidRequest(f"{name} has a null dataspace: there are no elements")
        return place, shape

    def _growing(self, operation: Append | Insert) -> tuple[Place, tuple[int, ...]]:
        place, shape = self._dataset(operation.name)
        if not 0 <= operation.axis < len(shape):
            raise InvalidRequest(f"{operation.name} has no axis {operation.axis}")
        return place, shape

    def _check_rows(self, operation: Append | Insert, shape: tuple[int, ...]) -> None:
        axis, rows = operation.axis, operation.data.shape
        if (
            rows is None
            or len(rows) != len(shape)
            or any(one != other for number, (one, other) in enumerate(zip(rows, shape, strict=True)) if number != axis)
        ):
            raise InvalidRequest(f"data of shape {rows} does not continue {operation.name}, of shape {shape}")

    def _check_growth(self, place: Place, shape: tuple[int, ...], name: str) -> None:
        if shape == place.shape:
            return
        if place.grid is None:
            raise InvalidRequest(f"{name} is not stored in chunks: its shape cannot change")
        check_shape(shape)
        most = place.maxshape
        if any(limit is not None and side > limit for side, limit in zip(shape, most, strict=True)):
            raise InvalidRequest(f"{name} cannot have the shape {shape}: its largest is {most}")

    # -- attributes --

    @_do.register
    def _(self, operation: SetAttributes) -> Outcome:
        target = self._names.find(operation.name)
        values = {
            _link(name): AttributeValue(with_references(payload, self._names.find))
            for name, payload in operation.values.items()
        }
        for name, value in values.items():
            self._changing()
            value.put(target, name)
        if values:
            self._attributes_changed(operation.name, target)
        return Outcome(done=bool(values))

    @_do.register
    def _(self, operation: DeleteAttributes) -> Outcome:
        target = self._names.find(operation.name)
        there = [name for name in map(_link, operation.names) if h5a.exists(target, name)]
        if len(there) < len(operation.names) and not operation.missing_ok:
            missing = next(name for name in operation.names if _link(name) not in there)
            raise NotFound(f"{operation.name} has no attribute called {missing!r}")
        for name in there:
            self._changing()
            h5a.delete(target, name)
        if there:
            self._attributes_changed(operation.name, target)
        return Outcome(done=bool(there))

    def _attributes_changed(self, name: str, target: Object) -> None:
        shape = None
        if isinstance(target, h5d.DatasetID) and not isinstance(target, h5t.TypeID):
            shape = place_shape(target)
        self.effects.note(Change(name=_canonical(name), kind="attributes", shape=shape))


def place_shape(dataset: h5d.DatasetID) -> tuple[int, ...]:
    """Shape of a dataset; that of a null dataspace is empty."""
    return tuple(dataset.get_space().get_simple_extent_dims() or ())


def mergeable(first: Append, other: Operation) -> bool:
    """Whether an append can be carried out together with one before it: of the same rows, to the same dataset."""
    return (
        isinstance(other, Append)
        and other.name == first.name
        and other.axis == first.axis
        and first.key is other.key is None
        and other.data.dtype == first.data.dtype
        and other.data.shape is not None
        and first.data.shape is not None
        and len(other.data.shape) == len(first.data.shape) > first.axis >= 0
        and other.data.shape[: first.axis] == first.data.shape[: first.axis]
        and other.data.shape[first.axis + 1 :] == first.data.shape[first.axis + 1 :]
        and not isinstance(other.data.data, list)
    )


def _slab(shape: tuple[int, ...], axis: int, start: int, count: int) -> Selection:
    axes: list[Axis] = [Span(0, side) for side in shape]
    axes[axis] = Span(start, count)
    return Selection(source=shape, axes=tuple(axes))


def _is_spread(data: Payload, count: int) -> bool:
    """Whether `count` elements are made of fewer."""
    return count > prod(data.shape or ())


def _check_walk(place: Place, shape: tuple[int, ...], now: tuple[int, ...]) -> None:
    """Refuse to cut off more places of chunks, stored or not, than the library can go through one by one."""
    assert place.grid is not None
    kept = tuple(min(old, new) for old, new in zip(shape, now, strict=True))
    places = prod(chunk_counts(shape, place.grid)) - prod(chunk_counts(kept, place.grid))
    if places > _WALKED:
        raise TooLarge(f"{places} places of chunks would be cut off, {_WALKED} can be: make the dataset anew")


def _edges(place: Place, shape: tuple[int, ...], now: tuple[int, ...]) -> Iterator[Selection]:
    """Chunks of which a part is cut off, which the library writes anew, with what is left of them."""
    assert place.grid is not None
    for axis, length in enumerate(place.grid):
        over = now[axis] % length
        if over and now[axis] < shape[axis]:
            kept = tuple(min(old, new) for old, new in zip(shape, now, strict=True))
            yield _slab(kept, axis, now[axis] - over, over)


def _canonical(name: str) -> str:
    return "/" + "/".join(part for part in name.split("/") if part not in ("", "."))


def _is_within(name: str, group: str) -> bool:
    return (_canonical(name) + "/").startswith(_canonical(group) + "/")


def _link(name: str) -> bytes:
    if not name or "\0" in name:
        raise InvalidRequest(f"{name!r} cannot name an attribute")
    return spellings(name)[0]
