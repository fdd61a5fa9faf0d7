"""Batches of operations without end, the same for the same number, and what a file must hold after each of them.

Every object has a life of its own: it is made in one batch, written to, grown, cut, moved, copied, linked and deleted
in later ones, so that each batch has operations of every kind.
"""

from __future__ import annotations

import random
from typing import Any

import h5py
import numpy as np

from ndstream.core.dtypes import from_numpy
from ndstream.core.model import Filter, SoftLink
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
    Resize,
    SetAttributes,
    Write,
)
from ndstream.stores.draft import Draft
from ndstream.stores.tree import Array, Group, Values
from ndstream.testing.arrays import same
from ndstream.testing.payloads import dataset, payload, table

STEP = "step"
"""Attribute of the root group: number of the last batch."""

_GZIP = (Filter(id=2, name="shuffle"), Filter(id=1, name="deflate", options=(1,)))
_RECORD = np.dtype([("key", "<i4"), ("value", "<f8")])
_LENGTHS = (1, 30, 30, 1000, 40_000)


def batch(number: int) -> list[Operation]:
    """Operations of batch `number`, from 1 on; those before it have been carried out, in order."""
    chance = random.Random(number)
    operations = _beginning() if number == 1 else []
    for age, live in enumerate(_STAGES):
        if number > age:
            operations += live(number - age, random.Random((number - age) << 8 | age))
    row = np.full((1, 64), number, "<i8")
    operations += [
        Append(name="/rows", data=payload(row)),
        Append(name="/texts", data=payload([f"größer {number}" * chance.randrange(4)])),
        Append(name="/records", data=payload(_records(number, chance)), key="key"),
        Write(name="/everywhere", data=payload(number, "<i8")),
        SetAttributes(name="/", values={STEP: payload(number, "<i8")}),
    ]
    return operations


def refused(number: int) -> list[Operation]:
    """Operations that fail once most of them have been carried out."""
    large = dataset(f"/never{number}", np.arange(20_000) * number)
    return [large, Write(name="/everywhere", data=payload(-1, "<i8")), Delete(name="/not/there")]


class Expected:
    """What a file must hold, batch after batch."""

    def __init__(self) -> None:
        self.number = 0
        self._draft = Draft(Group())

    def advance(self, number: int) -> None:
        """Go on to the state after batch `number`."""
        while self.number < number:
            self.number += 1
            for operation in batch(self.number):
                self._draft.carry_out(operation)

    def difference(self, file: h5py.File) -> str | None:
        """Where the file, of which every object is read, is not as it must be; None when it is."""
        return difference(file, self._draft.root)


def difference(found: Any, expected: Group | Array) -> str | None:
    """Name of the first object or attribute in which an h5py object is not what is expected; None when all are."""
    if set(found.attrs) != set(expected.attributes):
        return f"{found.name}: attributes {sorted(found.attrs)}"
    for name, value in expected.attributes.items():
        if not _equal(found.attrs[name], value):
            return f"{found.name}: attribute {name}"
    if isinstance(expected, Array):
        return None if isinstance(found, h5py.Dataset) and _equal(found[()], expected.values) else str(found.name)
    if set(found) != set(expected.members):
        return f"{found.name}: members {sorted(found)}"
    for name, member in expected.members.items():
        if isinstance(member, Group | Array):
            inside = difference(found[name], member)
            if inside is not None:
                return inside
        else:
            link = found.get(name, getlink=True)
            if not (isinstance(member, SoftLink) and isinstance(link, h5py.SoftLink) and link.path == member.target):
                return f"{found.name}: link {name}"
    return None


def _equal(found: Any, expected: Values) -> bool:
    if isinstance(found, str):
        found = found.encode()
    return same(np.asarray(found, getattr(expected, "dtype", None)), np.asarray(expected))


def _beginning() -> list[Operation]:
    text = from_numpy(h5py.string_dtype())
    return [
        table("/rows", "<i8", (64,), chunks=(16, 64), filters=_GZIP),
        table("/records", _RECORD),
        CreateDataset(name="/texts", dtype=text, shape=(0,), maxshape=(None,)),
        dataset("/everywhere", np.zeros(5000, "<i8")),
    ]


def _records(number: int, chance: random.Random) -> np.ndarray[Any, Any]:
    keys = [chance.randrange(200) for _ in range(3)]
    return np.array([(key, number) for key in dict.fromkeys(keys)], _RECORD)


# -- the life of an object: what happens to that of batch `number` in the batches after it --


def _make(number: int, chance: random.Random) -> list[Operation]:
    values = np.arange(chance.choice(_LENGTHS), dtype="<i4") + number
    chunks = (min(len(values), 5000),)
    storage: dict[str, Any] = chance.choice([{}, {"chunks": True}, {"chunks": chunks, "filters": _GZIP}])
    return [
        CreateGroup(name=f"/young/{number}"),
        dataset(f"/young/{number}/plain", values, **storage),
        dataset(f"/young/{number}/growing", values, maxshape=(None,), filters=chance.choice([(), _GZIP])),
    ]


def _write(number: int, chance: random.Random) -> list[Operation]:
    data = payload(-number, "<i4")
    return [Write(name=f"/young/{number}/plain", data=data, selection=f"::{chance.randrange(1, 9)}")]


def _grow(number: int, chance: random.Random) -> list[Operation]:
    values = payload(np.arange(chance.choice(_LENGTHS), dtype="<i4"))
    name = f"/young/{number}/growing"
    return [Append(name=name, data=values), Insert(name=name, index=chance.randrange(2), data=values)]


def _describe(number: int, chance: random.Random) -> list[Operation]:
    values = {"unit": payload("größe"), "many": payload(np.arange(chance.choice([1, 400, 5000])) + number)}
    return [SetAttributes(name=f"/young/{number}", values=values)]


def _cut(number: int, chance: random.Random) -> list[Operation]:
    return [
        Resize(name=f"/young/{number}/growing", shape=(chance.randrange(2000),)),
        DeleteAttributes(name=f"/young/{number}", names=("many",)),
    ]


def _move(number: int, chance: random.Random) -> list[Operation]:
    return [Move(name=f"/young/{number}", target=f"/old/{number}")]


def _link(number: int, chance: random.Random) -> list[Operation]:
    return [
        Copy(name=f"/old/{number}", target=f"/copies/{number}"),
        Link(name=f"/links/soft{number}", target=f"/old/{number}"),
        Link(name=f"/links/hard{number}", target=f"/old/{number}/plain", kind="hard"),
    ]


def _delete(number: int, chance: random.Random) -> list[Operation]:
    return [Delete(name=f"/old/{number}"), Delete(name=f"/links/soft{number}")]


def _forget(number: int, chance: random.Random) -> list[Operation]:
    # The last link: with it goes what was deleted before.
    gone: list[Operation] = [Delete(name=f"/links/hard{number}")]
    return gone if number % 10 else [*gone, Delete(name=f"/copies/{number}")]


_STAGES = (_make, _write, _grow, _describe, _cut, _move, _link, _delete, _forget)
