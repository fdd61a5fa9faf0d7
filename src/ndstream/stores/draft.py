"""Operations on a tree of values: what they mean, in the plainest way.

A `Draft` is a copy of a file of `ndstream.stores.memory` that may be changed; when all went well it takes the place of
the file. Hard links to one object stay links to one object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatchmethod
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.casting import array_of, broadcast, bytes_of, cast, check_cast
from ndstream.core.chunking import check_chunk, check_stored, chunk_shape
from ndstream.core.dtypes import from_numpy, item_size, memory_size, to_numpy
from ndstream.core.keys import keys_of
from ndstream.core.model import ExternalLink, SoftLink
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
    Outcome,
    Payload,
    Resize,
    SetAttributes,
    Write,
    WriteChunk,
)
from ndstream.core.selection import from_plain
from ndstream.errors import Exists, Forbidden, InvalidRequest, NotFound, UnsupportedDType, UnsupportedFilter, WrongKind
from ndstream.stores.tree import Array, Group, Member, Null, Values

_LINKS = 32


class Draft:
    """A file that is being changed.

    Attributes
    ----------
    root : Group
        Its root group, as the operations left it.
    changes : list of Change
    """

    def __init__(self, root: Group) -> None:
        self.root = _copy(root, {})
        self.changes: list[Change] = []

    @singledispatchmethod
    def carry_out(self, operation: Any) -> Outcome:
        """Carry out one operation; raises what `ndstream.core.ports.WritableStore.apply` says."""
        raise InvalidRequest(f"no such operation: {type(operation).__name__}")

    @carry_out.register
    def _(self, operation: CreateGroup) -> Outcome:
        if operation.exist_ok and isinstance(self._look(operation.name), Group):
            return Outcome(done=False)
        self._put(operation.name, Group({}, {}))
        return Outcome()

    @carry_out.register
    def _(self, operation: CreateDataset) -> Outcome:
        made = _made(operation)
        if operation.exist_ok:
            found = self._look(operation.name)
            if found is not None:
                if not isinstance(found, Array) or _kind(found) != _kind(made):
                    raise Exists(f"{operation.name} is there already, of another type or shape")
                return Outcome(shape=operation.shape, done=False)
        self._put(operation.name, made, operation.shape)
        return Outcome(shape=operation.shape)

    @carry_out.register
    def _(self, operation: Write) -> Outcome:
        array, values = self._dataset(operation.name)
        selection = from_plain(operation.selection, values.shape)
        numbers = selection.apply(np.arange(values.size).reshape(values.shape))
        data = _broadcast(operation.data, values, selection.shape)
        if not numbers.size:
            return Outcome(shape=values.shape, done=False)
        changed = values.copy()
        flat = changed.reshape(values.size, *data.shape[numbers.ndim :])
        flat[numbers.reshape(-1)] = data.reshape(numbers.size, *data.shape[numbers.ndim :])
        self._swap(array, replace(array, values=changed))
        self._note(operation.name, "written", values.shape)
        return Outcome(shape=values.shape)

    @carry_out.register
    def _(self, operation: WriteChunk) -> Outcome:
        array, values = self._dataset(operation.name)
        size = item_size(from_numpy(values.dtype))
        if array.chunks is None or size is None:
            raise InvalidRequest(f"{operation.name} is not stored in chunks of elements of one size")
        now = check_chunk(operation, values.shape, array.chunks, (array.maxshape or values.shape)[0])
        stored = bytes_of(operation.data)
        check_stored(operation, stored.size, len(array.filters), prod(array.chunks) * size)
        if operation.mask != (1 << len(array.filters)) - 1:
            raise UnsupportedFilter("values in memory have no filters: only chunks that skip all of them can be stored")
        if now != values.shape:
            _check_growth(array, now, operation.name)
        changed = _filled(now, values.dtype, array.fill)
        changed[tuple(map(slice, values.shape))] = values
        there = tuple(slice(low, low + side) for low, side in zip(operation.start, array.chunks, strict=True))
        part = changed[there]
        part[...] = stored.view(values.dtype).reshape(array.chunks)[tuple(map(slice, part.shape))]
        self._swap(array, replace(array, values=changed))
        name, appended = _canonical(operation.name), (values.shape[0], now[0])
        if now == values.shape:
            self._note(operation.name, "written", now)
        elif operation.start[0] == values.shape[0]:
            self.changes.append(Change(name=name, kind="appended", shape=now, appended=appended))
        else:
            self._note(operation.name, "resized", now)
        return Outcome(shape=now)

    @carry_out.register
    def _(self, operation: Append) -> Outcome:
        array, values = self._rows(operation)
        rows = _broadcast(operation.data, values, operation.data.shape or ())
        if operation.key is not None:
            return self._append_by_key(operation, array, values, rows)
        return self._append(operation, array, values, rows)

    def _append(self, operation: Append, array: Array, values: NDArray[Any], rows: NDArray[Any]) -> Outcome:
        start = values.shape[operation.axis]
        if not rows.shape[operation.axis]:
            return Outcome(shape=values.shape, start=start, done=False)
        changed = np.concatenate((values, rows), axis=operation.axis, dtype=values.dtype)
        _check_growth(array, changed.shape, operation.name)
        self._swap(array, replace(array, values=changed))
        appended = (start, changed.shape[operation.axis])
        self.changes.append(
            Change(
                name=_canonical(operation.name),
                kind="appended",
                shape=changed.shape,
                axis=operation.axis,
                appended=appended,
            )
        )
        return Outcome(shape=changed.shape, start=start)

    def _append_by_key(self, operation: Append, array: Array, values: NDArray[Any], rows: NDArray[Any]) -> Outcome:
        key = operation.key
        if values.ndim != 1 or not values.dtype.names or not rows.dtype.names:
            raise InvalidRequest("a key is the name of a field of a dataset of records with one axis")
        if item_size(from_numpy(values.dtype)) is None:
            raise InvalidRequest("records with members of variable length have no key")
        if key not in values.dtype.names:
            raise InvalidRequest(f"there is no field called {key!r}")
        if not rows.size:
            return Outcome(shape=values.shape, start=values.size, done=False)
        last = {item: number for number, item in enumerate(keys_of(rows[key]))}
        changed = values.copy()
        keys = keys_of(values[key])
        there = [number for number, item in enumerate(keys) if item in last]
        for number in there:
            changed[number] = rows[last[keys[number]]]
        known = {keys[number] for number in there}
        fresh = sorted(number for item, number in last.items() if item not in known)
        if there:
            self._swap(array, replace(array, values=changed))
            self._note(operation.name, "written", values.shape)
        if fresh:
            array, changed = self._dataset(operation.name)
            self._append(operation, array, changed, rows[fresh])
        return Outcome(shape=(values.size + len(fresh),), start=values.size, replaced=len(there))

    @carry_out.register
    def _(self, operation: Insert) -> Outcome:
        array, values = self._rows(operation)
        rows = _broadcast(operation.data, values, operation.data.shape or ())
        axis, index = operation.axis, operation.index
        if not 0 <= index <= values.shape[axis]:
            raise InvalidRequest(f"nothing can be inserted before {index} in {values.shape[axis]}")
        if not rows.shape[axis]:
            return Outcome(shape=values.shape, start=index, done=False)
        before, behind = np.split(values, [index], axis=axis)
        changed = np.concatenate((before, rows, behind), axis=axis, dtype=values.dtype)
        _check_growth(array, changed.shape, operation.name)
        self._swap(array, replace(array, values=changed))
        self._note(operation.name, "resized", changed.shape)
        return Outcome(shape=changed.shape, start=index)

    @carry_out.register
    def _(self, operation: Resize) -> Outcome:
        array, values = self._dataset(operation.name)
        if len(operation.shape) != values.ndim:
            raise InvalidRequest(f"a dataset of {values.ndim} axes cannot get the shape {operation.shape}")
        if operation.shape == values.shape:
            return Outcome(shape=values.shape, done=False)
        _check_growth(array, operation.shape, operation.name)
        changed = _filled(operation.shape, values.dtype, array.fill)
        both = tuple(slice(0, min(pair)) for pair in zip(values.shape, operation.shape, strict=True))
        changed[both] = values[both]
        self._swap(array, replace(array, values=changed))
        self._note(operation.name, "resized", changed.shape)
        return Outcome(shape=changed.shape)

    @carry_out.register
    def _(self, operation: Delete) -> Outcome:
        try:
            members, leaf = self._taken(operation.name)
        except NotFound:
            if operation.missing_ok:
                return Outcome(done=False)
            raise
        del members[leaf]
        self._note(operation.name, "deleted")
        return Outcome()

    @carry_out.register
    def _(self, operation: Move) -> Outcome:
        members, leaf = self._taken(operation.name)
        if isinstance(members[leaf], Group) and _is_within(operation.target, operation.name):
            raise InvalidRequest(f"{operation.name} cannot be moved into itself")
        self._put(operation.target, members[leaf])
        created = self.changes.pop()
        del members[leaf]
        self._note(operation.name, "deleted")
        self.changes.append(created)
        return Outcome()

    @carry_out.register
    def _(self, operation: Copy) -> Outcome:
        self._taken(operation.name)
        found = self._find(operation.name)
        if isinstance(found, Group) and _is_within(operation.target, operation.name):
            raise InvalidRequest(f"{operation.name} cannot be copied into itself")
        self._put(operation.target, _copy(found, {}) if isinstance(found, Group) else replace(found))
        return Outcome()

    @carry_out.register
    def _(self, operation: Link) -> Outcome:
        if operation.kind == "hard":
            self._put(operation.name, self._find(operation.target))
        elif not operation.target:
            raise InvalidRequest("a soft link leads to a path")
        else:
            self._put(operation.name, SoftLink(target=operation.target))
        return Outcome()

    @carry_out.register
    def _(self, operation: SetAttributes) -> Outcome:
        found = self._find(operation.name)
        values = {name: _attribute(payload) for name, payload in operation.values.items()}
        self._swap(found, replace(found, attributes={**found.attributes, **values}))
        if values:
            self._note(operation.name, "attributes", _shape(found))
        return Outcome(done=bool(values))

    @carry_out.register
    def _(self, operation: DeleteAttributes) -> Outcome:
        found = self._find(operation.name)
        missing = [name for name in operation.names if name not in found.attributes]
        if missing and not operation.missing_ok:
            raise NotFound(f"{operation.name} has no attribute called {missing[0]!r}")
        rest = {name: value for name, value in found.attributes.items() if name not in operation.names}
        done = len(rest) < len(found.attributes)
        self._swap(found, replace(found, attributes=rest))
        if done:
            self._note(operation.name, "attributes", _shape(found))
        return Outcome(done=done)

    # -- names --

    def _find(self, name: str) -> Group | Array:
        return self._walk(name, _parts(name), create=False)

    def _look(self, name: str) -> Group | Array | None:
        try:
            return self._find(name)
        except NotFound:
            return None

    def _taken(self, name: str) -> tuple[dict[str, Member], str]:
        members, leaf = self._parent(name, create=False)
        if leaf not in members:
            raise NotFound(f"{name}: there is no such object")
        return members, leaf

    def _put(self, name: str, member: Member, shape: tuple[int, ...] | None = None) -> None:
        members, leaf = self._parent(name, create=True)
        if leaf in members:
            raise Exists(f"{name} is there already")
        members[leaf] = member
        self._note(name, "created", shape)

    def _parent(self, name: str, *, create: bool) -> tuple[dict[str, Member], str]:
        parts = _parts(name)
        if not parts:
            raise InvalidRequest("the root group is always there")
        group = self._walk(name, parts[:-1], create=create)
        if not isinstance(group, Group):
            raise WrongKind(f"{name}: there is an object in the way that is not a group")
        return _members(group), parts[-1]

    def _walk(self, name: str, parts: list[str], *, create: bool) -> Group | Array:
        ahead, trail, followed = parts[::-1], [self.root], 0
        found: Group | Array = self.root
        while ahead:
            part = ahead.pop()
            if part == "..":
                if len(trail) > 1:
                    trail.pop()
                found = trail[-1]
                continue
            if not isinstance(found, Group):
                kind = WrongKind if create else NotFound
                raise kind(f"{name}: there is an object in the way that is not a group")
            if part not in found.members and create:
                _members(found)[part] = Group({}, {})
            member = found.members.get(part)
            if member is None:
                raise NotFound(f"{name}: there is no such object")
            if isinstance(member, ExternalLink):
                raise Forbidden(f"{name}: leads into another file, which must be written to by its own name")
            if isinstance(member, SoftLink):
                followed += 1
                if followed > _LINKS:
                    raise NotFound(f"{name}: more than {_LINKS} links one after another")
                if member.target.startswith("/"):
                    del trail[1:]
                    found = self.root
                ahead.extend(part for part in reversed(member.target.split("/")) if part not in ("", "."))
                create = False
                continue
            found = member
            if isinstance(found, Group):
                trail.append(found)
        return found

    def _dataset(self, name: str) -> tuple[Array, NDArray[Any]]:
        found = self._find(name)
        if not isinstance(found, Array):
            raise InvalidRequest(f"{name} is not a dataset")
        if isinstance(found.values, Null):
            raise InvalidRequest(f"{name} has a null dataspace: there are no elements")
        return found, found.values

    def _rows(self, operation: Append | Insert) -> tuple[Array, NDArray[Any]]:
        array, values = self._dataset(operation.name)
        axis, rows = operation.axis, operation.data.shape
        if not 0 <= axis < values.ndim:
            raise InvalidRequest(f"{operation.name} has no axis {axis}")
        if (
            rows is None
            or len(rows) != values.ndim
            or ((*rows[:axis], *rows[axis + 1 :]) != (*values.shape[:axis], *values.shape[axis + 1 :]))
        ):
            raise InvalidRequest(f"data of shape {rows} does not continue {operation.name}, of shape {values.shape}")
        return array, values

    def _swap(self, old: Group | Array, new: Group | Array) -> None:
        """Put an object in the place of another, under all its names."""
        if old is self.root:
            assert isinstance(new, Group)
            self.root = new
        _visit(self.root, lambda members: members.update({k: new for k, v in members.items() if v is old}), set())

    def _note(self, name: str, kind: Any, shape: tuple[int, ...] | None = None) -> None:
        self.changes.append(Change(name=_canonical(name), kind=kind, shape=shape))


def _copy(group: Group, memo: dict[int, Group | Array]) -> Group:
    if id(group) in memo:
        found = memo[id(group)]
        assert isinstance(found, Group)
        return found
    made = memo[id(group)] = Group({}, dict(group.attributes))
    for name, member in group.members.items():
        if isinstance(member, Group):
            _members(made)[name] = _copy(member, memo)
        elif isinstance(member, Array):
            _members(made)[name] = memo.setdefault(id(member), replace(member))
        else:
            _members(made)[name] = member
    return made


def _members(group: Group) -> dict[str, Member]:
    assert isinstance(group.members, dict)  # those of a draft are
    return group.members


def _visit(group: Group, change: Callable[[dict[str, Member]], None], seen: set[int]) -> None:
    if id(group) in seen:
        return
    seen.add(id(group))
    change(_members(group))
    for member in group.members.values():
        if isinstance(member, Group):
            _visit(member, change, seen)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if "\0" in name or ".." in parts:
        raise InvalidRequest(f"{name!r} cannot name an object that is written to")
    return parts


def _canonical(name: str) -> str:
    return "/" + "/".join(part for part in name.split("/") if part not in ("", "."))


def _is_within(name: str, group: str) -> bool:
    return (_canonical(name) + "/").startswith(_canonical(group) + "/")


def _made(operation: CreateDataset) -> Array:
    spelled = to_numpy(operation.dtype)
    if operation.shape is None:
        return Array(Null(spelled))
    shape, maxshape = operation.shape, operation.maxshape
    if maxshape is not None and (
        len(maxshape) != len(shape)
        or any(most is not None and most < side for side, most in zip(shape, maxshape, strict=True))
    ):
        raise InvalidRequest(f"a dataset of shape {shape} cannot have the largest shape {maxshape}")
    chunks = operation.chunks
    needed = bool(operation.filters) or (maxshape is not None and maxshape != shape)
    if not shape and (chunks or operation.filters):
        raise InvalidRequest("a single element has no chunks and no filters")
    if chunks is False and needed:
        raise InvalidRequest("a dataset that may grow, or has filters, is stored in chunks")
    if chunks is True or (chunks is None and needed):
        chunks = chunk_shape(shape, maxshape, memory_size(operation.dtype))
    if operation.fill is not None and len(operation.fill) != item_size(operation.dtype):
        raise (UnsupportedDType if item_size(operation.dtype) is None else InvalidRequest)("no such fill value")
    values = _filled(shape, spelled, operation.fill)
    if operation.data is not None:
        values = np.array(_broadcast(operation.data, values, shape), values.dtype)
    return Array(
        values, {}, maxshape=maxshape or shape, chunks=chunks or None, filters=operation.filters, fill=operation.fill
    )


def _filled(shape: tuple[int, ...], spelled: np.dtype[Any], fill: bytes | None) -> NDArray[Any]:
    values = np.zeros(shape, spelled)
    if spelled.kind == "O":
        values[...] = b""
    if fill is not None:
        values[...] = np.frombuffer(fill, spelled)[0]
    return values


def _broadcast(payload: Payload, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    target = from_numpy(values.dtype)
    check_cast(payload.dtype, target)
    return cast(broadcast(payload, shape), payload.dtype, target)


def _check_growth(array: Array, shape: tuple[int, ...], name: str) -> None:
    if array.chunks is None:
        raise InvalidRequest(f"{name} is not stored in chunks: its shape cannot change")
    assert array.maxshape is not None
    if any(most is not None and side > most for side, most in zip(shape, array.maxshape, strict=True)):
        raise InvalidRequest(f"{name} cannot have the shape {shape}: its largest is {array.maxshape}")


def _attribute(payload: Payload) -> Values:
    return Null(to_numpy(payload.dtype)) if payload.shape is None else array_of(payload).copy()


def _kind(array: Array) -> tuple[Any, ...]:
    values = array.values
    return from_numpy(values.dtype), None if isinstance(values, Null) else values.shape


def _shape(found: Group | Array) -> tuple[int, ...] | None:
    return found.values.shape if isinstance(found, Array) and not isinstance(found.values, Null) else None
