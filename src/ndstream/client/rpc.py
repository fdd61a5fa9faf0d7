"""Clients of the framed TCP protocol: one HDF5 file, read and written by many.

>>> async with ndstream.HDF5Client("127.0.0.1", 8888) as client:  # doctest: +SKIP
...     await client.write("/run/counts", np.arange(10))
...     reply = await client.read("/run/counts")
...     reply.get("data")
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from math import prod
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ndstream.client.loop_thread import LoopThread
from ndstream.client.rpc_home import Home
from ndstream.client.rpc_link import Address, Fields, Welcome, is_refusal, refusal
from ndstream.core.limits import DEFAULT_LIMITS, KiB, Limits
from ndstream.errors import ConnectionLost, InvalidRequest, NDStreamError, NotSupported, ProtocolError
from ndstream.protocols.rpc.arrays import fits_padded
from ndstream.protocols.rpc.dtypes import spell_array
from ndstream.protocols.rpc.selections import spell

T = TypeVar("T")

_ROOM = 64 * KiB
"""Bytes of a frame that are kept for what is not the array."""
_EVENTS = 1024
"""Events that wait for whoever follows; with more than that the iteration ends in an error."""


class HDF5Client:
    """Reads and writes the HDF5 file of a server, with ``await``.

    Works with ``ndstream serve --rpc-port`` and with the original server of this protocol, which has fewer commands.
    May be used by any number of tasks and threads at once: requests share one connection, which is made with the
    first of them, and made anew when it was lost.

    Parameters
    ----------
    host : str
    port : int
    unwrap : bool
        Return the data, and raise the typed error of what is refused; else replies are returned as the maps that they
        are: ``{"status": "success", "data": …}``.
    token, user : str, optional
        What the server asks for: its token, or the password of a user of it and their name.
    tls : bool or ssl.SSLContext
        Encrypt; True checks the certificate of the server against those that the system trusts.
    compress : bool
        Compress arrays on their way, for slow networks.
    limits : Limits, optional
        Longest frame and timeouts.

    Notes
    -----
    Arrays in replies are ndarrays in C order, of the shape of what was selected, views of the memory in which they
    arrived; a single element is a scalar. A selection is what stands between the brackets of an array: integers,
    slices with a step from 1 on, lists and masks of one axis (combined as an outer product), an Ellipsis. A list alone
    is one of axis 0.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8888,
        *,
        unwrap: bool = False,
        token: str | None = None,
        user: str | None = None,
        tls: bool | ssl.SSLContext = False,
        compress: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        context = ssl.create_default_context() if tls is True else tls or None
        self._address = Address(host=host, port=port, token=token, user=user, tls=context, compress=compress)
        self._unwrap = unwrap
        self._limits = limits
        self._home: Home | None = None
        self._guard = threading.Lock()

    # -- connection --

    async def connect(self) -> None:
        """Connect, if that was not done; every request does it by itself.

        Raises
        ------
        ConnectionLost, TimedOut
            There is no server, or not one of this protocol.
        CertificateError
            Its certificate is not trusted.
        NotAuthenticated, NotSupported
            It refuses us.
        """
        await self._at_home(Home.connected)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._home is not None and self._home.link is not None and self._home.link.alive

    @property
    def server(self) -> Welcome | None:
        """What the server said of itself; None before there is a connection, and for the original."""
        return None if self._home is None or self._home.link is None else self._home.link.welcome

    async def close(self) -> None:
        """Close the connection; requests that wait for replies fail."""
        with self._guard:
            home, self._home = self._home, None
        if home is not None:
            await home.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- commands of the original --

    async def create_group(self, path: str) -> Any:
        """Make a group and its parents; one that is there is fine."""
        return await self._do("create_group", path=path)

    async def write(self, path: str, data: Any, compression: str | None = None) -> Any:
        """Put data in the place of whatever is at the path; parents are made.

        An array that is longer than a frame goes in several requests, into a dataset that was made for it: should that
        fail half way, the error says from which row on it is missing.
        """
        parts = await self._parts(data)
        if parts is None:
            return await self._do("write", path=path, data=data, compression=compression)
        return await self._write_parts(path, data, compression, parts)

    async def read(
        self, path: str, selection: Any = None, *, selections: Sequence[Any] | None = None, max_bytes: int | None = None
    ) -> Any:
        """Read a dataset, a part of it, or many parts, one behind the other along axis 0.

        Parameters
        ----------
        selection : optional
            Part of it: ``np.s_[10:20, ::2]``.
        selections : sequence, optional
            Parts of it, in place of `selection`.
        max_bytes : int, optional
            Refuse to read more.
        """
        arguments: Fields = {"path": path}
        if selection is not None:
            arguments["selection"] = spell(selection)
        if selections is not None:
            arguments["selections"] = [spell(one) for one in selections]
        if max_bytes is not None:
            return await self._do("read", **arguments, max_bytes=max_bytes)
        return self._shown(await self._at_home(lambda home: _read(home, arguments)))

    async def update(self, path: str, data: Any, compression: str | None = None, *, selection: Any = None) -> Any:
        """Write into a part of a dataset; without `selection` the same as `write`."""
        if selection is None:
            return await self._do("update", path=path, data=data, compression=compression)
        return await self._do("update", path=path, data=data, compression=compression, selection=spell(selection))

    async def delete(self, path: str) -> Any:
        """Remove a dataset, or a group with all in it; what is not there is removed already."""
        return await self._do("delete", path=path)

    async def append(
        self, path: str, data: Any, compression: str | None = None, deduplicate_on: str | None = None
    ) -> Any:
        """Add rows along axis 0; the dataset is made when there is none.

        Parameters
        ----------
        deduplicate_on : str, optional
            Member of a compound type: rows that have the same value there are replaced.
        """
        return await self._do("append", path=path, data=data, compression=compression, deduplicate_on=deduplicate_on)

    async def insert(self, path: str, index: int, data: Any, compression: str | None = None) -> Any:
        """Put rows before the one at `index`, which is from 0 to the number of rows."""
        return await self._do("insert", path=path, index=index, data=data, compression=compression)

    async def get_config(self) -> Any:
        """Ask how the server is set up."""
        return await self._do("get_config")

    async def request(self, request: Mapping[str, Any]) -> Any:
        """Send a request as it is: a map with the key ``command``; its reply comes whole, even with ``stream``.

        Raises
        ------
        InvalidRequest
            It names no command, it has an id, which the client gives, or its reply is not one (see `follow`).
        """
        if not isinstance(request.get("command"), str) or "id" in request or request["command"] == "follow":
            raise InvalidRequest("a request names its command, has no id, and is answered once")
        if request.get("stream"):
            return self._shown(await self._at_home(lambda home: _gathered(home, dict(request))))
        return self._shown(await self._ask(dict(request)))

    # -- commands that the original does not have --

    async def ping(self) -> Any:
        """Ask whether the server is there."""
        return await self._do("ping")

    async def list(self, path: str = "/", *, depth: int = 1, limit: int = 1000, after: str | None = None) -> Any:
        """Name what is in a group, sorted; ``more`` says that there is more behind the last one."""
        return await self._do("list", path=path, depth=depth, limit=limit, after=after)

    async def stat(self, path: str) -> Any:
        """Describe an object: kind, shape, maxshape, dtype, chunks, filters, sizes, names of attributes."""
        return await self._do("stat", path=path)

    async def create_dataset(
        self, path: str, shape: Any = None, dtype: Any = None, data: Any = None, **how: Any
    ) -> Any:
        """Make a dataset.

        Parameters
        ----------
        shape : int or tuple of int, optional
        dtype : optional
            Whatever numpy takes, or the spelling of the protocol; with `data` it may be left out, as the shape.
        **how
            ``chunks``, ``maxshape``, ``compression``, ``compression_opts``, ``shuffle``, ``fillvalue``, ``exist_ok``.
        """
        sides = [int(shape)] if isinstance(shape, int | np.integer) else shape
        sides = None if sides is None else [int(side) for side in sides]
        return await self._do("create_dataset", path=path, shape=sides, dtype=_spelled(dtype), data=data, **how)

    async def resize(self, path: str, shape: Sequence[int], *, shrink: bool = False) -> Any:
        """Give a dataset another shape; `shrink` allows that data are cut off."""
        return await self._do("resize", path=path, shape=[int(side) for side in shape], shrink=shrink)

    async def get_attrs(self, path: str, names: Sequence[str] | None = None) -> Any:
        """Read attributes."""
        return await self._do("get_attrs", path=path, names=None if names is None else [*names])

    async def set_attrs(self, path: str, attrs: Mapping[str, Any]) -> Any:
        """Set attributes, all or none of them."""
        return await self._do("set_attrs", path=path, attrs=dict(attrs))

    async def delete_attrs(self, path: str, names: Sequence[str]) -> Any:
        """Remove attributes."""
        return await self._do("delete_attrs", path=path, names=[*names])

    async def flush(self, *, sync: bool = False) -> Any:
        """Wait until what was sent before is in the file."""
        return await self._do("flush", sync=sync)

    async def batch(
        self, commands: Sequence[Mapping[str, Any]], *, condition: int | None = None, key: str | None = None
    ) -> Any:
        """Carry out commands that write, together or not at all.

        Parameters
        ----------
        commands : sequence of map
            Requests as for `request`.
        condition : int, optional
            Number of the last commit that must still be the last one.
        key : str, optional
            Name of this batch: sent again under the same key it is not carried out twice.
        """
        spelled = [_selected(dict(command)) for command in commands]
        return await self._do("batch", commands=spelled, condition=condition, key=key)

    async def follow(self, since: int | None = None) -> AsyncGenerator[Any]:
        """Wait for the commits of the file: iterate over events with their number and what they touched.

        Parameters
        ----------
        since : int, optional
            Number of a commit: begin with the one after it.
        """
        home = self._place()
        events = self._events(home, since)
        with home.kept():
            try:
                while (event := await home.run(_next(events))) is not None:
                    yield event
            finally:
                with suppress(ConnectionLost):
                    await home.run(_awaited(events.aclose()))

    async def _events(self, home: Home, since: int | None) -> AsyncGenerator[Any]:
        """Events as they come, in the event loop that has the connection."""
        link = await home.connected()
        # Without a limit it would be the memory of this process that waits for whoever follows.
        events: asyncio.Queue[Fields] = asyncio.Queue(_EVENTS)
        overflow: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(fields: Fields) -> None:
            if not events.full():
                events.put_nowait(fields)
            elif not overflow.done():
                overflow.set_result(None)

        request = {"command": "follow"} | ({} if since is None else {"since": since})
        end = asyncio.ensure_future(link.ask(request, told, patient=True))
        try:
            while not events.empty() or not (end.done() or overflow.done()):
                waiting = asyncio.ensure_future(events.get())
                try:
                    await asyncio.wait((waiting, end, overflow), return_when=asyncio.FIRST_COMPLETED)
                    if waiting.done():
                        yield waiting.result().get("event")
                finally:
                    waiting.cancel()
            if not end.done():
                raise ConnectionLost(f"more than {_EVENTS} events waited: follow again from the last number")
            reply = end.result()
            if is_refusal(reply):
                raise refusal(reply, str(self._address))
        finally:
            end.cancel()
            with suppress(asyncio.CancelledError, NDStreamError):
                await end

    # -- inside --

    async def _do(self, command: str, **arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None or key == "data"}
        if command in ("get_config", "create_dataset") and given.get("data", 0) is None:
            del given["data"]
        return self._shown(await self._ask({"command": command, **given}))

    def _shown(self, reply: Fields) -> Any:
        if "data" in reply:
            reply["data"] = _single(reply["data"])
        if isinstance(reply.get("attrs"), dict):
            reply["attrs"] = {name: _single(value) for name, value in reply["attrs"].items()}
        if not self._unwrap:
            return reply
        if is_refusal(reply):
            raise refusal(reply, str(self._address))
        if "data" in reply:
            return reply["data"]
        rest = {key: value for key, value in reply.items() if key not in ("status", "message")}
        return rest or None

    async def _ask(self, fields: Fields) -> Fields:
        return await self._at_home(lambda home: _ask(home, fields))

    async def _parts(self, data: Any) -> int | None:
        """Rows of an array that fit into one frame; None when all of it does, or the server takes no parts."""
        if not isinstance(data, np.ndarray) or not data.ndim or data.dtype.hasobject or data.dtype.kind == "U":
            return None
        link = await self._at_home(Home.connected)
        if link.welcome is None or not {"create", "selection", "binary"} <= link.features:
            return None
        room = link.welcome.max_frame - _ROOM
        if data.nbytes <= room:
            return None
        row = data.nbytes // len(data)
        if row > room:
            raise InvalidRequest(f"a row of {row} bytes does not fit into a frame of {link.welcome.max_frame}")
        return max(1, room // row)

    async def _write_parts(self, path: str, data: NDArray[Any], compression: str | None, rows: int) -> Any:
        made = {"command": "create_dataset", "path": path, "shape": [*data.shape], "dtype": _spelled(data.dtype)}
        made |= {} if compression is None else {"compression": compression}
        begun = [{"command": "delete", "path": path}, made]
        reply = await self._ask({"command": "batch", "commands": begun})
        if is_refusal(reply):
            return self._shown(reply)
        for start in range(0, len(data), rows):
            part = {"path": path, "data": data[start : start + rows], "selection": [[start, start + rows]]}
            try:
                reply = await self._ask({"command": "update", **part})
            except NDStreamError as error:
                raise type(error)(f"{path}: from row {start} on nothing was written: {error}") from error
            if is_refusal(reply):
                told = f"{path}: from row {start} on nothing was written: {reply.get('message')}"
                return self._shown({**reply, "message": told})
        return self._shown(reply)

    async def _at_home(self, work: Callable[[Home], Coroutine[Any, Any, T]]) -> T:
        """Do work in the event loop that has the connection, wherever it was asked for."""
        home = self._place()
        return await home.run(work(home))

    def _place(self) -> Home:
        """Where requests of this event loop are made: in the first one, and in a thread once there is a second."""
        here = asyncio.get_running_loop()
        with self._guard:
            home = self._home
            if home is None or not home.lasts:
                home = Home(self._address, self._limits, shared=False)
            elif not home.serves(here):
                home.leave()
                home = Home(self._address, self._limits, shared=True)
            self._home = home
        return home


def _single(value: Any) -> Any:
    """Element of an array without axes, as a scalar of numpy; anything else as it is."""
    return value[()] if isinstance(value, np.ndarray) and not value.ndim else value


async def _ask(home: Home, fields: Fields) -> Fields:
    return await (await home.connected()).ask(fields)


async def _read(home: Home, arguments: Fields) -> Fields:
    """Read in one frame or in many, straight into one array."""
    link = await home.connected()
    if not {"stream", "binary", "ids"} <= link.features:
        return await link.ask({"command": "read", **arguments})
    return await _gathered(home, {"command": "read", **arguments, "stream": True})


async def _gathered(home: Home, fields: Fields) -> Fields:
    """Ask for a reply in many frames."""
    gathered = _Gathered()
    reply = await (await home.connected()).ask(fields, gathered.take)
    return gathered.complete(reply)


class _Gathered:
    """Array that arrives in several frames."""

    def __init__(self) -> None:
        self._array: NDArray[Any] | None = None
        self._shape: list[int] = []
        self._filled = 0
        self._wrong: str | None = None

    def take(self, fields: Fields) -> None:
        """Take the next frame but the last."""
        try:
            self._wrong = self._wrong or self._taken(fields.get("data"), fields.get("start"), fields)
        except (ValueError, TypeError, MemoryError) as error:
            self._wrong = f"a piece that does not fit: {error}"

    def _taken(self, piece: Any, start: Any, fields: Fields) -> str | None:
        """Put a piece in its place; what is wrong with it, if anything is."""
        if not isinstance(piece, np.ndarray) or start != self._filled:
            return "a piece that does not follow the one before"
        if self._array is None:
            self._shape = [int(side) for side in fields.get("shape", ())]
            # Behind the axes of the dataset are those of its elements, if these are arrays.
            self._array = np.empty((prod(self._shape), *piece.shape[1:]), piece.dtype)
        if start + len(piece) > len(self._array):
            return "more elements than were said"
        if piece.dtype != self._array.dtype:
            # Each piece has the room that its own text takes.
            self._array = self._array.astype(_common(piece.dtype, self._array), copy=False)
        self._array[start : start + len(piece)] = piece
        self._filled += len(piece)
        return None

    def complete(self, reply: Fields) -> Fields:
        """Reply with all of the array in it, when it came in parts.

        Raises
        ------
        ProtocolError
            The parts are not all of it.
        """
        if is_refusal(reply):
            return reply
        if self._wrong is not None:
            raise ProtocolError(f"a reply in parts: {self._wrong}")
        if self._array is None:
            return reply
        if self._filled != len(self._array):
            raise ProtocolError("a reply in parts: some are missing")
        data = self._array.reshape([*self._shape, *self._array.shape[1:]])
        return {"status": "success", "data": data, "shape": self._shape}


def _common(dtype: np.dtype[Any], array: NDArray[Any]) -> np.dtype[Any]:
    """Type for elements of an array and of others; objects, where text would take much more memory than it has."""
    found = np.promote_types(dtype, array.dtype)
    return found if found.kind != "U" or fits_padded(found.itemsize // 4, array.size) else np.dtype(object)


def _spelled(dtype: Any) -> Any:
    """Spell a dtype as the protocol does; what is spelled already stays."""
    if dtype is None or isinstance(dtype, dict | list) or dtype == "str":
        return dtype
    found = np.dtype(dtype)
    return "str" if found.kind in "UO" else spell_array(found)


def _selected(command: Fields) -> Fields:
    if command.get("selection") is not None:
        command["selection"] = spell(command["selection"])
    return command


class BlockingHDF5Client:
    """`HDF5Client` for programs without an event loop: the same methods, which return when the reply is there.

    Parameters are those of `HDF5Client`. May be used by any number of threads at once; it has one of its own, until
    `close`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = HDF5Client(*arguments, **options)
        self._thread = LoopThread("ndstream-rpc")
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._client, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            return self._result(method(*arguments, **options))

        call.__doc__ = method.__doc__
        return call

    def follow(self, since: int | None = None) -> Generator[Any]:
        """Wait for the commits of the file, see `HDF5Client.follow`."""
        events = self._client.follow(since)
        try:
            while True:
                try:
                    yield self._result(anext(events))
                except StopAsyncIteration:
                    return
        finally:
            self._result(events.aclose())

    def close(self) -> None:
        """Close the connection and end the thread; safe to call more than once."""
        if self._closed:
            return
        self._closed = True
        try:
            self._thread.submit(self._client.close()).result()
        finally:
            self._thread.close()

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._closed:
            work.close()
            raise NotSupported("the client is closed")
        future: Future[Any] = self._thread.submit(_awaited(work))
        try:
            return future.result()
        except CancelledError:
            # Nobody else cancels it.
            raise ConnectionLost("the client was closed") from None
        except BaseException:
            future.cancel()
            raise


async def _awaited(work: Any) -> Any:
    return await work


async def _next(events: AsyncGenerator[Any]) -> Any:
    """Next event, None behind the last."""
    return await anext(events, None)
