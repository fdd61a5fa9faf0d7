"""What commands are answered with, over the `Store` port (SPEC.md, A3, C4, E)."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import msgspec
from numpy.typing import NDArray

from ndstream.core import model
from ndstream.core import operations as ops
from ndstream.core.dtypes import memory_size
from ndstream.core.limits import KiB
from ndstream.core.operations import Committed, Operation, Payload
from ndstream.core.ports import Access, Prompt, Service, Store, WritableStore
from ndstream.core.selection import Selection, to_plain
from ndstream.errors import (
    Conflict,
    Exists,
    InvalidRequest,
    InvalidSelection,
    NDStreamError,
    NotFound,
    OutOfBounds,
    ReadOnly,
    ShapeMismatch,
    TooLarge,
    WrongKind,
)
from ndstream.protocols.rpc import codec
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc import operations as o
from ndstream.protocols.rpc.codes import Refused
from ndstream.protocols.rpc.describing import Describing
from ndstream.protocols.rpc.fitting import check_fits
from ndstream.protocols.rpc.reading import Data, choice_of, read_data
from ndstream.protocols.rpc.selections import read_selection
from ndstream.protocols.rpc.values import Presentation, Stored, payload_of, presentation_of, shown, to_array, to_stored
from ndstream.wire.framing import Buffer

T = TypeVar("T")

Fields: TypeAlias = dict[str, Any]
Events: TypeAlias = AsyncGenerator[Fields, None]
"""Fields of the frames of a streamed reply that has no end of its own; they say that more follow."""

_ATTEMPTS = 64
_SMALL = 64 * KiB
"""Bytes of data of a reply that is made at once, whatever others hold."""
_NUMBERED = re.compile(r"^operation \d+: ")


@dataclass(frozen=True, slots=True)
class Bulk:
    """A reply that takes `nbytes` of memory, which is made when it can be sent; `aclose` in any case."""

    nbytes: int
    make: Callable[[], Awaitable[Fields]]
    aclose: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Parts:
    """A streamed reply: fields of its frames, those in one list take `nbytes` together; close `frames` in any case.

    All but the last frame, which has the status, say that more follow.
    """

    nbytes: int
    frames: AsyncGenerator[list[Fields], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and what they take.

    Attributes
    ----------
    access : Access
    original : bool
        Whether the connection has not said hello.
    frame : int, bytes
        Longest frame that the peer accepts.
    streams : bool
        Whether it accepts replies of several frames.
    heavy : bool
        Whether the request is so large that looking at it is for a thread.
    """

    access: Access
    original: bool
    frame: int
    streams: bool = False
    heavy: bool = False


class Commands:
    """Commands on one file; for any number of connections at once.

    Parameters
    ----------
    service : Service
    path : str
        Virtual path of the file.
    """

    def __init__(self, service: Service, path: str) -> None:
        self._store: Store = service.store
        self._writing = service.store if isinstance(service.store, WritableStore) else None
        self._prompt = service.store if isinstance(service.store, Prompt) else None
        self._limits = service.limits
        self._path = path
        self._describing = Describing(service.store, path, service.limits)
        self._answers: dict[str, Callable[[Any, Caller], Any]] = {
            "ping": self._done,
            "flush": self._done,
            "create_group": self._create_group,
            "create_dataset": self._create_dataset,
            "read": self._read,
            "write": self._write,
            "update": self._update,
            "append": self._append,
            "insert": self._insert,
            "resize": self._resize,
            "delete": self._delete,
            "list": self._describing.list,
            "stat": self._describing.stat,
            "get_attrs": self._describing.get_attrs,
            "set_attrs": self._set_attrs,
            "delete_attrs": self._delete_attrs,
            "batch": self._batch,
            "follow": self._follow,
        }

    def writable(self, access: Access) -> bool:
        """Whether the caller may write."""
        return self._writing is not None and access.writes(self._path)

    async def answer(self, name: str, arguments: m.Command, caller: Caller) -> Fields | Bulk | Parts | Events:
        """Carry out a command.

        Returns
        -------
        dict, Bulk, Parts, or async generator of dict
            Fields of the reply, what makes them, or those of its frames.

        Raises
        ------
        NDStreamError, Refused
        """
        found: Fields | Bulk | Parts | Events = await self._answers[name](arguments, caller)
        return found

    async def _done(self, command: m.Nothing | m.Flush, caller: Caller) -> Fields:
        """Say so: whatever was acknowledged is in the file and on the disk."""
        return {"status": "success"}

    # -- reading --

    async def _read(self, command: m.Read, caller: Caller) -> Fields | Bulk | Parts:
        most = _longest(command, caller)
        try:
            data = await read_data(self._store, self._path, command, caller.access, self._limits)
        except NotFound as error:
            raise await self._kind_of(command.path, caller.access, error) from error
        except InvalidSelection as error:
            node = await self._describing.node(command.path, caller.access)
            if isinstance(node, model.Dataset) and node.shape is None and command.selection is None:
                return {"status": "success", "data": None}
            raise error
        piece = _piece(caller)
        if command.stream and caller.streams and data.shape and data.nbytes > (piece if data.fixed else 0):
            # That is how much a store reads at a time: elements of any length take all that a request may hold.
            most = self._limits.request_memory
            return Parts(min(data.nbytes, most // 2) if data.fixed else most, data.parts(piece))
        if data.nbytes > most:
            await data.aclose()
            raise Refused(
                TooLarge(f"{data.nbytes} bytes, {most} are accepted: ask for parts, or a stream"),
                nbytes=data.nbytes,
                limit=most,
            )
        if data.nbytes > _SMALL:
            return Bulk(data.nbytes, lambda: self._whole(command, data, caller), data.aclose)
        return await self._whole(command, data, caller)

    def read_at_hand(self, read: m.PlainRead, caller: Caller) -> list[Buffer] | Fields | None:
        """Carry out a read at once.

        Returns
        -------
        list of buffers, or dict, or None
            Payload of the reply, or its fields; None when it takes waiting, or is to be answered otherwise.

        Raises
        ------
        NDStreamError
        """
        if self._prompt is None:
            return None
        choice = choice_of(read, self._limits)
        reading = self._prompt.read_at_hand(self._path, read.path, caller.access, choice)
        if reading is None or reading.ready is None:
            return None
        most = min(_longest(read, caller), _piece(caller))
        presentation = presentation_of(reading.dtype)
        if presentation.as_stored and reading.shape and 0 < len(reading.ready) <= most:
            return _mould(presentation, reading.shape, caller.original).filled(reading.ready, read.id)
        data = Data([reading], joined=False)
        array = data.at_hand() if data.nbytes <= most else None
        if array is None or (data.maybe_serialized and read.selection is None):
            return None
        return _of_array(array, data.shape, original=caller.original)

    async def _whole(self, command: m.Read, data: Data, caller: Caller) -> Fields:
        array = await data.whole(_longest(command, caller))
        value: Any = array
        if data.maybe_serialized and command.selection is None and command.selections is None:
            value = await self._describing.deserialized(command.path, array, caller.access)
        if value is not array:
            return {"status": "success", "data": value}
        return _of_array(array, data.shape, original=caller.original)

    async def _kind_of(self, path: str, access: Access, error: NotFound) -> NDStreamError:
        """Error that says more than that there is no such dataset, if there is something else."""
        try:
            node = await self._describing.node(path, access)
        except NotFound:
            return error
        if isinstance(node, model.Dataset):
            return error
        return WrongKind(f"{path} is no dataset")

    # -- writing --

    def _writer(self, access: Access) -> WritableStore:
        if self._writing is None or not access.writes(self._path):
            raise ReadOnly("the file is served read-only")
        return self._writing

    async def _apply(self, operations: Sequence[Operation], caller: Caller, **how: Any) -> Committed:
        try:
            return await self._writer(caller.access).apply(self._path, caller.access, operations, **how)
        except NDStreamError as error:
            # Of operations the peer knows nothing.
            raise type(error)(_NUMBERED.sub("", str(error))) from error

    async def _aside(self, caller: Caller, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function, in a thread when the request is large."""
        return await asyncio.to_thread(function, *arguments) if caller.heavy else function(*arguments)

    async def _create_group(self, command: m.CreateGroup, caller: Caller) -> Fields:
        if command.path.strip("/"):
            await self._apply([ops.CreateGroup(name=command.path, exist_ok=True)], caller)
        else:
            self._writer(caller.access)
        return _success(caller, f"Group {command.path} created")

    async def _create_dataset(self, command: m.CreateDataset, caller: Caller) -> Fields:
        operation = await self._aside(caller, o.create_dataset, command)
        await self._apply([operation], caller)
        return _success(caller, f"Dataset {command.path} created")

    async def _write(self, command: m.Write | m.Update, caller: Caller) -> Fields:
        verb = "updated at" if isinstance(command, m.Update) else "written to"
        path = o.check_name(command.path)
        self._writer(caller.access)
        stored = await self._aside(caller, to_stored, command.data)
        if not await self._written_in_place(path, stored, command.compression, caller):
            await self._apply(o.replacing(path, command.data, command.compression), caller)
        return _success(caller, f"Data {verb} {path}")

    async def _written_in_place(self, path: str, stored: Stored, compression: str | None, caller: Caller) -> bool:
        """Write into a dataset of the same type and shape; False when it must be replaced."""
        if stored.serialized or compression is not None:
            return False
        try:
            await self._apply(o.overwriting(path, stored.payload), caller)
        except Exists:
            return False
        return True

    async def _update(self, command: m.Update, caller: Caller) -> Fields:
        if command.selection is None:
            return await self._write(command, caller)
        path = o.check_name(command.path)
        self._writer(caller.access)
        operation = await self._region(path, command, caller)
        await self._apply([operation], caller)
        return {"status": "success"}

    async def _region(self, path: str, command: m.Update, caller: Caller) -> Operation:
        """Write into the region of an update; the shape of the data is checked here, where it can be told."""
        assert command.selection is not None
        node = await self._dataset(path, caller.access)
        _check_elements(path, m.MARKER in node.attributes)
        selection = read_selection(command.selection, node.shape or (), self._limits.selections)
        payload = payload_of(await self._aside(caller, to_array, command.data))
        if not _broadcasts(payload.shape, selection):
            raise _mismatch(selection.shape, payload.shape)
        await self._aside(caller, check_fits, payload, node.dtype)
        return ops.Write(name=path, data=payload, selection=to_plain(selection, explicit=True))

    async def _append(self, command: m.Append, caller: Caller) -> Fields:
        path = o.check_name(command.path)
        self._writer(caller.access)
        rows = await self._aside(caller, o.rows_of, command.data)
        operation = ops.Append(name=path, data=rows, key=command.deduplicate_on)
        outcome = await self._added(path, operation, command.compression, caller)
        return _success(caller, f"Data appended to {path}", o.outcome_fields("append", outcome))

    async def _insert(self, command: m.Insert, caller: Caller) -> Fields:
        path = o.check_name(command.path)
        self._writer(caller.access)
        if command.index < 0:
            raise OutOfBounds(f"nothing can be inserted before {command.index}")
        rows = await self._aside(caller, o.rows_of, command.data)
        operation = ops.Insert(name=path, index=command.index, data=rows)
        outcome = await self._added(path, operation, command.compression, caller)
        message = f"Data inserted into {path} at index {command.index}"
        return _success(caller, message, o.outcome_fields("insert", outcome))

    async def _added(
        self, path: str, operation: ops.Append | ops.Insert, compression: str | None, caller: Caller
    ) -> ops.Outcome:
        """Add rows; make the dataset when there is none, one that can grow when this one cannot.

        Others may do the same at the same time: whoever comes second finds the dataset made.
        """
        for _ in range(_ATTEMPTS):
            await self._check_fits(operation, (), caller)
            try:
                return (await self._apply([operation], caller)).outcomes[-1]
            except NotFound:
                first: Operation = ops.Append(name=path, data=operation.data, key=getattr(operation, "key", None))
                try:
                    made = [o.growing(path, operation.data, compression), first]
                    return (await self._apply(made, caller)).outcomes[-1]
                except Exists:
                    continue
            except InvalidRequest as error:
                try:
                    await self._let_grow(path, operation, error, caller)
                except Conflict:
                    continue
        raise Conflict(f"{path}: others change the file all the time")

    async def _check_fits(
        self, operation: ops.Append | ops.Insert, before: Sequence[Operation], caller: Caller
    ) -> None:
        """Refuse rows that lose something in the dataset that they are added to, which is there or made before."""
        for earlier in reversed(before):
            if isinstance(earlier, ops.SetAttributes) and earlier.name == operation.name:
                _check_elements(operation.name, m.MARKER in earlier.values)
            if isinstance(earlier, ops.CreateDataset) and earlier.name == operation.name:
                await self._aside(caller, check_fits, operation.data, earlier.dtype)
                return
        try:
            node = await self._describing.node(operation.name, caller.access)
        except NotFound:
            return
        if isinstance(node, model.Dataset):
            _check_elements(operation.name, m.MARKER in node.attributes)
            await self._aside(caller, check_fits, operation.data, node.dtype)

    async def _let_grow(
        self, path: str, operation: ops.Append | ops.Insert, error: InvalidRequest, caller: Caller
    ) -> None:
        """Put a dataset that can grow in the place of one that cannot; raises what else the matter is.

        Raises
        ------
        Conflict
            The file was changed meanwhile.
        """
        number = (await self._writer(caller.access).state(self._path, caller.access)).commit
        node = await self._describing.node(path, caller.access)
        if not isinstance(node, model.Dataset) or node.shape is None:
            raise WrongKind(f"{path} is no dataset that has rows") from error
        rows = operation.data.shape or ()
        if node.shape and (len(rows) != len(node.shape) or rows[1:] != node.shape[1:]):
            raise _mismatch((rows[0], *node.shape[1:]), rows) from error
        count = (node.shape or (1,))[0]
        if isinstance(operation, ops.Insert) and operation.index > count:
            raise OutOfBounds(f"nothing can be inserted before {operation.index} in {count} rows") from error
        if node.shape and node.chunks is not None and node.maxshape is not None and node.maxshape[0] is None:
            raise error
        await self._apply(await self._converted(path, node, caller), caller, condition=number)

    async def _converted(self, path: str, node: model.Dataset, caller: Caller) -> list[Operation]:
        """Operations that give a dataset an axis 0 without end, everything else kept."""
        nbytes = memory_size(node.dtype)
        for side in node.shape or ():
            nbytes *= side
        if nbytes > self._limits.write_queue:
            raise TooLarge(f"{path} cannot grow, and is too large to be copied (limit: write_queue)")
        reading = await self._store.read(self._path, path, caller.access, None)
        try:
            data: Any
            if reading.nbytes is None:
                data = [item async for items in reading.elements() for item in items]
            else:
                data = b"".join([buffer async for buffer in reading.buffers()])
        finally:
            await reading.aclose()
        shape = node.shape or (1,)
        beside = f"{path.rstrip('/')}.{secrets.token_hex(8)}"
        payload = Payload(dtype=reading.dtype, shape=shape, data=data)
        made = msgspec.structs.replace(
            o.growing(beside, payload, None), shape=shape, filters=node.filters, fill=node.fill, data=payload
        )
        found: list[Operation] = [made]
        kept = {name: value for name, value in node.attributes.items() if value.dtype is not None}
        if any(value.problem for value in kept.values()) or len(kept) < len(node.attributes):
            raise InvalidRequest(f"{path} cannot grow, and has attributes that cannot be copied")
        if kept:
            values = {
                name: Payload(dtype=value.dtype, shape=value.shape, data=value.value or b"")
                for name, value in kept.items()
                if value.dtype is not None
            }
            found.append(ops.SetAttributes(name=beside, values=values))
        return [*found, ops.Delete(name=path), ops.Move(name=beside, target=path)]

    async def _resize(self, command: m.Resize, caller: Caller) -> Fields:
        path = o.check_name(command.path)
        operation = ops.Resize(name=path, shape=command.shape)
        if command.shrink:
            outcome = (await self._apply([operation], caller)).outcomes[-1]
            return o.outcome_fields("resize", outcome)
        for _ in range(_ATTEMPTS):
            number = (await self._writer(caller.access).state(self._path, caller.access)).commit
            shape = (await self._dataset(path, caller.access)).shape or ()
            if len(shape) == len(command.shape) and any(
                new < old for new, old in zip(command.shape, shape, strict=True)
            ):
                raise InvalidRequest(f"{path}: from {shape} to {command.shape} cuts data off, which takes shrink=true")
            try:
                outcome = (await self._apply([operation], caller, condition=number)).outcomes[-1]
            except Conflict:
                continue
            return o.outcome_fields("resize", outcome)
        raise Conflict(f"{path}: others change the file all the time")

    async def _delete(self, command: m.Delete, caller: Caller) -> Fields:
        path = o.check_name(command.path)
        committed = await self._apply([ops.Delete(name=path, missing_ok=True)], caller)
        return _success(caller, f"Data deleted from {path}", o.outcome_fields("delete", committed.outcomes[-1]))

    async def _set_attrs(self, command: m.SetAttrs, caller: Caller) -> Fields:
        await self._apply([await self._aside(caller, o.set_attrs, command)], caller)
        return {"status": "success"}

    async def _delete_attrs(self, command: m.DeleteAttrs, caller: Caller) -> Fields:
        operation = ops.DeleteAttributes(name=command.path, names=command.names, missing_ok=True)
        committed = await self._apply([operation], caller)
        return o.outcome_fields("delete_attrs", committed.outcomes[-1])

    # -- ours --

    async def _batch(self, command: m.Batch, caller: Caller) -> Fields:
        operations: list[Operation] = []
        ends: list[tuple[str, int]] = []
        if len(command.commands) > self._limits.operations:
            raise TooLarge(f"{len(command.commands)} commands are more than the limit 'operations'")
        for number, entry in enumerate(command.commands):
            name = entry.get("command")
            if not isinstance(name, str) or name not in m.COMMANDS or m.COMMANDS[name][1] != "write":
                raise InvalidRequest(f"command {number} of the batch: {str(name)[:40]!r} cannot be part of one")
            given = {key: value for key, value in entry.items() if key != "command"}
            arguments = o.arguments_of(name, given, known_only=False)
            for operation in await self._batched(name, arguments, caller):
                if isinstance(operation, ops.Append | ops.Insert):
                    await self._check_fits(operation, operations, caller)
                operations.append(operation)
            ends.append((name, len(operations) - 1))
        key = None if command.key is None else f"{caller.access.user or ''}:{command.key}"
        committed = await self._apply(operations, caller, condition=command.condition, key=key)
        results = [o.outcome_fields(name, committed.outcomes[end]) for name, end in ends]
        return {"status": "success", "commit": committed.number, "results": results, "repeated": committed.repeated}

    async def _batched(self, name: str, arguments: m.Command, caller: Caller) -> list[Operation]:
        if isinstance(arguments, m.Update) and arguments.selection is not None:
            return [await self._region(o.check_name(arguments.path), arguments, caller)]
        return await self._aside(caller, o.batched, name, arguments)

    async def _follow(self, command: m.Follow, caller: Caller) -> Events:
        if self._writing is None or not caller.streams:
            raise InvalidRequest("events come as a stream, and from a file that is served for writing")
        await self._writing.state(self._path, caller.access)
        return _events(self._writing, self._path, caller.access, command.since)

    async def _dataset(self, path: str, access: Access) -> model.Dataset:
        node = await self._describing.node(path, access)
        if not isinstance(node, model.Dataset) or node.shape is None:
            raise WrongKind(f"{path} is no dataset that has elements")
        return node


async def _events(store: WritableStore, path: str, access: Access, since: int | None) -> Events:
    async for event in store.follow(path, access, since=since):
        yield {"event": msgspec.to_builtins(event)}


def _check_elements(path: str, serialized: bool) -> None:
    """Refuse to change a part of a value that was serialized: it would not be one any more."""
    if serialized:
        raise WrongKind(f"{path} holds a value that is no array: write all of it")


def _longest(command: m.Read | m.PlainRead, caller: Caller) -> int:
    """Bytes that a reply may have."""
    return caller.frame if command.max_bytes is None else min(command.max_bytes, caller.frame)


def _piece(caller: Caller) -> int:
    """Bytes of data in a frame of a streamed reply; a reply of no more is whole."""
    return min(m.PIECE, caller.frame // 2)


def _of_array(array: NDArray[Any], shape: tuple[int, ...], *, original: bool) -> Fields:
    fields: Fields = {"status": "success", "data": shown(array, original=original)}
    if not original:
        fields["shape"] = list(shape)
    return fields


@lru_cache(maxsize=1024)
def _mould(presentation: Presentation, shape: tuple[int, ...], original: bool) -> codec.Mould:
    """Make what replies with an array of this type and shape have in common, or find it."""
    array = presentation.of_bytes(memoryview(b""), shape)
    form = m.Form.MSGPACK if original else m.Form.EXTENDED
    return codec.Mould(_of_array(array, shape, original=original), form, array.nbytes)


def _success(caller: Caller, message: str, fields: Fields | None = None) -> Fields:
    """Reply of success: with the words of the original to its clients, with more to ours."""
    return {"status": "success", "message": message} if caller.original else fields or {"status": "success"}


def _broadcasts(shape: tuple[int, ...] | None, selection: Selection) -> bool:
    """Whether data has the shape of a selection, or is a single element."""
    return shape == selection.shape or shape == ()


def _mismatch(expected: tuple[int, ...], got: tuple[int, ...] | None) -> Refused:
    error = ShapeMismatch(f"data of shape {got}, where {expected} is needed")
    return Refused(error, expected=list(expected), got=None if got is None else list(got))
