"""Random operations of several clients on one file, against dictionaries and numpy arrays, and what h5py finds."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray

import ndstream
from ndstream.errors import Exists, NotFound
from ndstream.testing.fixtures import ServerFactory
from ndstream.testing.strategies import expected, keys, numbered

CLIENTS = 3
TEXT = "text"
RECORD = np.dtype([("key", "<i4"), ("value", "<f8")])
KINDS: tuple[Any, ...] = ("<f8", "<i4", ">u2", RECORD, TEXT)
NAMES = tuple([group + name for group in ("", "g/", "h/", "g/h/") for name in "abc"])
STORAGE: tuple[dict[str, Any], ...] = (
    {},
    {"chunks": True},
    {"compression": "gzip", "shuffle": True},
    {"compression": "lzf", "fletcher32": True},
)

HOUSE = settings(
    max_examples=8,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
numbers = itertools.count()


@dataclass
class Thing:
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Data(Thing):
    """A dataset; `kind` is a type, or TEXT for an array of str."""

    kind: Any = None
    values: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    growing: bool = False


@dataclass
class Group(Thing):
    members: dict[str, Any] = field(default_factory=dict)
    """Groups, datasets, and the targets of soft links."""

    def walk(self, name: str = "") -> Iterator[tuple[str, Any]]:
        for key, member in self.members.items():
            yield name + key, member
            if isinstance(member, Group):
                yield from member.walk(f"{name}{key}/")

    def parent(self, name: str) -> Group | None:
        """Group that holds what is called so; it is made, and None when it cannot be."""
        found = self
        for key in name.split("/")[:-1]:
            member = found.members.setdefault(key, Group())
            if not isinstance(member, Group):
                return None
            found = member
        return found


Operation = Callable[["Machine", st.DataObject], None]


class Machine(RuleBasedStateMachine):
    """Clients that work in one group of a file, and what it must hold."""

    clients: ClassVar[Sequence[Any]]
    path: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.name = str(next(numbers))
        self.root = Group()
        self.count = 0
        # Within a transaction, what it has been about: reads, and shapes, are those from before.
        self.about: set[str] | None = None

    @initialize()
    def begin(self) -> None:
        self.group = self.clients[0].create_group(self.name)

    @rule(client=st.integers(0, CLIENTS - 1), data=st.data())
    def operate(self, client: int, data: st.DataObject) -> None:
        self.group = self.look(client)
        data.draw(st.sampled_from(OPERATIONS))(self, data)

    @rule(client=st.integers(0, CLIENTS - 1), count=st.integers(2, 5), fails=st.booleans(), data=st.data())
    def transact(self, client: int, count: int, fails: bool, data: st.DataObject) -> None:
        self.group = self.look(client)
        before = copy.deepcopy(self.root)
        self.about = set()
        try:
            with self.clients[client].transaction():
                for _ in range(count):
                    data.draw(st.sampled_from(OPERATIONS))(self, data)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            self.root = before
        finally:
            self.about = None

    @rule(client=st.integers(0, CLIENTS - 1), name=st.sampled_from(NAMES))
    def refuse(self, client: int, name: str) -> None:
        file = self.clients[client]
        group = self.look(client)
        known = dict(self.root.walk())
        if name in known:
            with pytest.raises(Exists):
                group.create_dataset(name, data=[1])
            with pytest.raises(Exists), file.transaction():
                group.attrs["never"] = 1
                group.create_group(name)
        else:
            with pytest.raises(NotFound), file.transaction():
                group.attrs["never"] = 1
                del group[name]

    @precondition(lambda self: self.datasets())
    @rule(client=st.integers(0, CLIENTS - 1), data=st.data())
    def read(self, client: int, data: st.DataObject) -> None:
        name, there = data.draw(st.sampled_from(self.datasets()))
        key = data.draw(keys(there.values.shape))
        found = self.look(client)[name]
        view = found.asstr() if there.kind == TEXT else found
        np.testing.assert_array_equal(view[key], expected(there.values, key))

    def look(self, client: int) -> Any:
        """Group of a client, who knows what the others did."""
        self.clients[client].refresh()
        return self.clients[client][self.name]

    def teardown(self) -> None:
        with h5py.File(self.path) as file:
            compare(file[self.name], self.root)

    # -- what is there --

    def things(self) -> list[tuple[str, Any]]:
        """All objects that can be worked on; soft links besides."""
        found = [("", self.root), *self.root.walk()]
        return found if self.about is None else [pair for pair in found if self._fresh(pair[0])]

    def datasets(self) -> list[tuple[str, Data]]:
        return [(name, thing) for name, thing in self.things() if isinstance(thing, Data)]

    def free(self, data: st.DataObject, outside: str | None = None) -> tuple[Group, str] | None:
        """Find a name that is free, not below `outside`, and the group that it will be in."""
        name = data.draw(st.sampled_from(NAMES))
        if outside is not None and f"{name}/".startswith(f"{outside}/"):
            return None
        group = copy.deepcopy(self.root).parent(name) if self._fresh(name) else None
        if group is None or name.rpartition("/")[2] in group.members:
            return None
        self.note(name)
        found = self.root.parent(name)
        assert found is not None
        return found, name

    def note(self, name: str) -> None:
        if self.about is not None:
            self.about.add(name)

    def _fresh(self, name: str) -> bool:
        """Whether a transaction has not been about this, nor about what is above or below."""
        return not any(
            each == name or not each or not name or each.startswith(f"{name}/") or name.startswith(f"{each}/")
            for each in self.about or ()
        )

    def values(self, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Values that were nowhere before."""
        size = int(np.prod(shape, dtype=int))
        self.count += size
        new = np.arange(self.count - size, self.count).reshape(shape)
        if kind == TEXT:
            return np.array([f"größe {number}" for number in new.flat], object).reshape(shape)
        if kind is RECORD:
            made = np.empty(shape, RECORD)
            made["key"], made["value"] = new, new / 8
            return made
        return np.asarray(new % 60_000, kind)


# -- operations: each is carried out by the client, and on the model --


def create(machine: Machine, data: st.DataObject) -> None:
    free = machine.free(data)
    if free is None:
        return
    group, name = free
    kind = data.draw(st.sampled_from(KINDS))
    rank = data.draw(st.integers(0, 3))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=rank, max_size=rank)))
    growing = rank > 0 and data.draw(st.booleans())
    options = dict(data.draw(st.sampled_from(STORAGE))) if rank and np.prod(shape) else {}
    if kind == TEXT:
        options.pop("fletcher32", None)
    if growing:
        options["maxshape"] = (None,) * rank
    values = machine.values(kind, shape)
    dtype = h5py.string_dtype() if kind == TEXT else kind
    machine.group.create_dataset(name, data=values, dtype=dtype, **options)
    group.members[name.rpartition("/")[2]] = Data(kind=kind, values=values, growing=growing)


def create_group(machine: Machine, data: st.DataObject) -> None:
    free = machine.free(data)
    if free is not None:
        group, name = free
        machine.group.create_group(name)
        group.members[name.rpartition("/")[2]] = Group()


def write(machine: Machine, data: st.DataObject) -> None:
    name, there = chosen(machine, data)
    if there is None:
        return
    key = data.draw(keys(there.values.shape))
    places = np.asarray(expected(numbered(there.values.shape), key))
    values = machine.values(there.kind, places.shape if data.draw(st.booleans()) else ())
    machine.group[name][key] = values if values.shape or there.kind is RECORD else values[()]
    there.values = there.values.copy()
    there.values.reshape(-1)[places.reshape(-1)] = np.broadcast_to(values, places.shape).reshape(-1)


def append(machine: Machine, data: st.DataObject) -> None:
    name, there = chosen(machine, data, growing=True)
    if there is None:
        return
    axis = data.draw(st.integers(0, there.values.ndim - 1))
    values = machine.values(there.kind, with_length(there.values.shape, axis, data.draw(st.integers(0, 3))))
    landed = machine.group[name].append(values, axis=axis)
    assert landed == (there.values.shape[axis] if machine.about is None else None)
    there.values = np.concatenate([there.values, values], axis, dtype=values.dtype)


def insert(machine: Machine, data: st.DataObject) -> None:
    name, there = chosen(machine, data, growing=True)
    if there is None:
        return
    axis = data.draw(st.integers(0, there.values.ndim - 1))
    index = data.draw(st.integers(0, there.values.shape[axis]))
    values = machine.values(there.kind, with_length(there.values.shape, axis, data.draw(st.integers(1, 3))))
    machine.group[name].insert(index, values, axis=axis)
    before, behind = np.split(there.values, [index], axis)
    there.values = np.concatenate([before, values, behind], axis, dtype=values.dtype)


def resize(machine: Machine, data: st.DataObject) -> None:
    name, there = chosen(machine, data, growing=True)
    if there is None:
        return
    rank = there.values.ndim
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=rank, max_size=rank)))
    machine.group[name].resize(shape)
    common = tuple([slice(0, min(pair)) for pair in zip(shape, there.values.shape, strict=True)])
    new = np.full(shape, "", object) if there.kind == TEXT else np.zeros(shape, there.kind)
    new[common] = there.values[common]
    there.values = new


def delete(machine: Machine, data: st.DataObject) -> None:
    name = member(machine, data)
    if name is not None:
        del machine.group[name]
        taken(machine, name)


def move(machine: Machine, data: st.DataObject) -> None:
    name = member(machine, data)
    target = None if name is None else machine.free(data, outside=name)
    if name is not None and target is not None:
        machine.group.move(name, target[1])
        thing = taken(machine, name)
        target[0].members[target[1].rpartition("/")[2]] = thing


def duplicate(machine: Machine, data: st.DataObject) -> None:
    name = member(machine, data, soft=False)
    target = None if name is None else machine.free(data, outside=name)
    if name is not None and target is not None:
        machine.group.copy(name, target[1])
        target[0].members[target[1].rpartition("/")[2]] = copy.deepcopy(dict(machine.root.walk())[name])


def link_soft(machine: Machine, data: st.DataObject) -> None:
    free = machine.free(data)
    if free is not None:
        group, name = free
        target = data.draw(st.sampled_from(NAMES))
        machine.group[name] = ndstream.SoftLink(target)
        group.members[name.rpartition("/")[2]] = target


def set_attribute(machine: Machine, data: st.DataObject) -> None:
    pairs = [pair for pair in machine.things() if isinstance(pair[1], Thing)]
    if not pairs:
        return
    name, thing = data.draw(st.sampled_from(pairs))
    machine.note(name)
    kind = data.draw(st.sampled_from(KINDS))
    values = machine.values(kind, data.draw(st.sampled_from([(), (3,), (2, 2)])))
    key = data.draw(st.sampled_from(["unit", "größe"]))
    (machine.group[name] if name else machine.group).attrs[key] = values[()] if kind == TEXT else values
    thing.attributes[key] = values


def delete_attribute(machine: Machine, data: st.DataObject) -> None:
    pairs = [pair for pair in machine.things() if isinstance(pair[1], Thing) and pair[1].attributes]
    if not pairs:
        return
    name, thing = data.draw(st.sampled_from(pairs))
    machine.note(name)
    key = data.draw(st.sampled_from(sorted(thing.attributes)))
    del (machine.group[name] if name else machine.group).attrs[key]
    del thing.attributes[key]


OPERATIONS: tuple[Operation, ...] = (
    create,
    create,
    create_group,
    write,
    write,
    append,
    append,
    insert,
    resize,
    delete,
    move,
    duplicate,
    link_soft,
    set_attribute,
    delete_attribute,
)


def chosen(machine: Machine, data: st.DataObject, *, growing: bool = False) -> tuple[str, Any]:
    """Choose a dataset; ("", None) when there is none."""
    pairs = [pair for pair in machine.datasets() if pair[1].growing or not growing]
    if not pairs:
        return "", None
    name, there = data.draw(st.sampled_from(pairs))
    machine.note(name)
    return name, there


def member(machine: Machine, data: st.DataObject, *, soft: bool = True) -> str | None:
    """Choose anything but the root."""
    names = [name for name, thing in machine.things() if name and (soft or isinstance(thing, Thing))]
    if not names:
        return None
    name: str = data.draw(st.sampled_from(names))
    machine.note(name)
    return name


def taken(machine: Machine, name: str) -> Any:
    """Take a member out of the model."""
    group = machine.root.parent(name)
    assert group is not None
    return group.members.pop(name.rpartition("/")[2])


def with_length(shape: tuple[int, ...], axis: int, length: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis + 1 :])


# -- the oracle --


def compare(found: h5py.Group, there: Group) -> None:
    compare_attributes(found, there)
    assert sorted(found) == sorted(there.members), found.name
    for name, member in there.members.items():
        if isinstance(member, str):
            assert found.get(name, getlink=True).path == member
        elif isinstance(member, Group):
            compare(found[name], member)
        else:
            compare_attributes(found[name], member)
            assert same(found[name][()], found[name].dtype, member.values), found[name].name


def compare_attributes(found: Any, there: Thing) -> None:
    assert sorted(found.attrs) == sorted(there.attributes), found.name
    for name, values in there.attributes.items():
        assert same(found.attrs[name], found.attrs.get_id(name).dtype, values), (found.name, name)


def same(found: Any, dtype: np.dtype[Any], there: NDArray[Any]) -> bool:
    """Whether h5py's value, which is no array when it is a scalar, is the same; texts are str in the model."""
    if there.dtype == object:
        texts = [item.decode() if isinstance(item, bytes) else item for item in np.asarray(found, object).flat]
        return np.shape(found) == there.shape and texts == list(there.flat)
    return dtype == there.dtype and np.array_equal(found, there)


def test_a_file_is_as_numpy_says(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    server = ndstream_server(tmp_path, writable={"/": []})
    ran: list[tuple[str, Group]] = []

    class Here(Machine):
        path = tmp_path / "f.h5"
        clients = tuple([ndstream.open(server.url, "f.h5", mode="a") for _ in range(CLIENTS)])

        def teardown(self) -> None:
            super().teardown()
            ran.append((self.name, self.root))

    run_state_machine_as_test(Here, settings=HOUSE)
    server.stop()
    with h5py.File(Here.path) as file:  # closed by its owner
        for name, root in ran:
            compare(file[name], root)
