"""One connection of a client of the framed TCP protocol: requests go out, replies find who asked.

With a server that says hello, requests have ids and may overtake each other. With one that does not, such as the
original, they go one after the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ndstream.core.limits import Limits
from ndstream.errors import (
    CertificateError,
    ConnectionLost,
    NDStreamError,
    NotSupported,
    ProtocolError,
    TimedOut,
    TooLarge,
)
from ndstream.protocols.rpc import codec
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.codes import error_of
from ndstream.transports.tcp import Link
from ndstream.wire.framing import LONGEST, Buffer

Fields = dict[str, Any]
Told = Callable[[Fields], object]

_WRITES = frozenset(name for name, (_, access) in m.COMMANDS.items() if access == "write")
_QUESTIONS: tuple[Fields, ...] = ({"command": "get_config"}, {"command": "read", "path": "/ndstream: are you there"})
"""What a server of the original protocol is asked to find out whether it is one; nothing is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, and what it takes to get in."""

    host: str
    port: int
    token: str | None = None
    user: str | None = None
    tls: ssl.SSLContext | None = None
    compress: bool = False

    def __str__(self) -> str:
        return f"{'tls' if self.tls else 'tcp'}://{self.host}:{self.port}"


class Welcome(msgspec.Struct, frozen=True):
    """What matters of the reply to a hello."""

    version: int
    max_frame: int
    max_inflight: int
    features: frozenset[str]
    writable: bool = False


class Pending:
    """A request that is sent: what is told of each of its frames, and its end."""

    __slots__ = ("end", "told", "writes")

    def __init__(self, told: Told | None, *, writes: bool) -> None:
        self.told = told
        self.writes = writes
        self.end: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()


class RPCLink:
    """A connection on which hello was said, or found to mean nothing; make one with `connect`.

    Attributes
    ----------
    welcome : Welcome or None
        What the server said to our hello; None for a server of the original protocol.
    form : Form
        What requests are put into.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self.welcome: Welcome | None = None
        self.form = m.Form.MSGPACK
        self._heard: m.Form | None = None
        self._address = address
        self._limits = limits
        self._link = Link(limits.frame, self._on_frames, self._on_end)
        self._pending: dict[int, Pending] = {}
        self._in_turn: deque[Pending] = deque()
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(1)
        self._agreed = codec.Agreed(most=limits.frame)
        self._numbers = 0
        self._lost: NDStreamError | None = None

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._lost is None

    @property
    def features(self) -> frozenset[str]:
        """What both ends agreed on; empty for a server of the original protocol."""
        return frozenset() if self.welcome is None else self.welcome.features

    @classmethod
    async def connect(cls, address: Address, limits: Limits) -> RPCLink:
        """Connect, and find out what the server speaks (SPEC.md, B7).

        Raises
        ------
        ConnectionLost, CertificateError, TimedOut
            There is no server, or not one of this protocol.
        NotAuthenticated, NotSupported
            It refuses us: the token, or the version.
        """
        found = await cls._opened(address, limits)
        try:
            if await found._greet():
                return found
        except BaseException:
            await found.close()
            raise
        await found.close()
        # Some drop what they do not know, and the earliest did not know get_config. But all of them can read.
        for request in _QUESTIONS:
            for form in (m.Form.MSGPACK, m.Form.JSON):
                found = await cls._opened(address, limits)
                if await found._answers(request, form):
                    return found
        raise ConnectionLost(f"{address}: whatever is asked is dropped: another protocol, or it wants TLS")

    @classmethod
    async def _opened(cls, address: Address, limits: Limits) -> RPCLink:
        found = cls(address, limits)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.connect_timeout):
                await loop.create_connection(lambda: found._link, address.host, address.port, ssl=address.tls)
        except TimeoutError as error:
            raise TimedOut(f"{address}: no connection within {limits.connect_timeout:g} seconds") from error
        except ssl.SSLCertVerificationError as error:
            raise CertificateError(f"{address}: the certificate of the server is not trusted: {error}") from error
        except OSError as error:
            raise ConnectionLost(f"{address}: no connection: {error.strerror or error}") from error
        return found

    async def _greet(self) -> bool:
        """Say hello; False when the server does not know what that is."""
        features = [name for name in m.FEATURES if name != "zlib" or self._address.compress]
        hello = {"protocol": m.PROTOCOL, "version": m.VERSION, "client": "ndstream", "features": features}
        hello |= {"max_frame": self._limits.frame}
        given = {"token": self._address.token, "user": self._address.user}
        hello |= {key: value for key, value in given.items() if value is not None}
        try:
            reply = await self.ask({"command": "hello", **hello})
        except ConnectionLost:
            return False
        if reply.get("status") != "success":
            if "code" not in reply:
                return False
            raise refusal(reply, f"{self._address}")
        try:
            self.welcome = msgspec.convert(reply, Welcome)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"{self._address}: not a reply to hello: {error}") from error
        self._agreed = codec.Agreed(m.CODECS & self.features, self._limits.frame)
        self._places = asyncio.Semaphore(max(1, self.welcome.max_inflight - 1))
        return True

    async def _answers(self, request: Fields, form: m.Form) -> bool:
        """Whether a server of the original protocol answers a request, and in which form; else the link is closed."""
        self.form = form
        try:
            reply = await self.ask(request)
        except ConnectionLost:
            await self.close()
            return False
        except BaseException:
            await self.close()
            raise
        if m.Form.JSON in (self._heard, form) or reply.get("serialization_format") == m.Form.JSON.value:
            self.form = m.Form.JSON
        return True

    # -- requests --

    async def ask(self, fields: Fields, told: Told | None = None, *, patient: bool = False) -> Fields:
        """Send a request and wait for its reply.

        Parameters
        ----------
        fields : dict
            The request, arrays in it as ndarrays; arrays that can be sent as they are are not copied.
        told : callable, optional
            Called with every frame of a reply that has several, but the last.
        patient : bool
            Whether the server may say nothing for any time.

        Returns
        -------
        dict
            The reply, or the last frame of it, arrays in it as ndarrays.

        Raises
        ------
        NotSupported
            The server does not have the command; nothing was sent.
        ConnectionLost
            The connection is gone; of a request that writes, nobody knows whether it was carried out.
        TimedOut
            Nothing came from the server for ``read_timeout``; of a request that writes, the same.
        TooLarge, UnsupportedDType
            The request cannot be sent.
        """
        self._check(fields)
        if "ids" not in self.features:
            return await self._ask_in_turn(fields)
        async with self._places:
            return await self._ask_by_number(fields, told, patient=patient)

    def _check(self, fields: Fields) -> None:
        command = fields["command"]
        if self.welcome is None:
            strange = [key for key in m.RESERVED if key in fields]
            if command not in (*m.ORIGINAL, "hello") or command in m.NEEDS or strange:
                raise NotSupported(
                    f"{self._address}: a server of the original protocol has no {[command, *strange][-1]}"
                )
        elif (needed := m.NEEDS.get(command)) is not None and needed not in self.features:
            raise NotSupported(f"{self._address}: the server has no {command}")

    async def _ask_by_number(self, fields: Fields, told: Told | None, *, patient: bool) -> Fields:
        self._numbers += 1
        number = self._numbers
        pending = self._pending[number] = Pending(told, writes=fields["command"] in _WRITES)
        try:
            await self._put({"id": number, **fields})
            return await self._end_of(pending, patient=patient)
        except BaseException as error:
            # Whatever still comes for it is nobody's.
            if self._pending.pop(number, None) is not None and self.alive and told is not None:
                self._cancel(number)
            raise error
        finally:
            self._pending.pop(number, None)

    async def _ask_in_turn(self, fields: Fields) -> Fields:
        async with self._turn:
            pending = Pending(None, writes=fields["command"] in _WRITES)
            payload = self._packed(fields)
            # Only now: the next reply is for what was sent.
            self._in_turn.append(pending)
            try:
                self._link.send(payload)
                await self._link.drained()
                return await self._end_of(pending, patient=False)
            except (asyncio.CancelledError, TimedOut):
                # The reply would be taken for that of the next request. What becomes of this one, nobody asks.
                pending.end.cancel()
                self._link.abort()
                raise

    async def _end_of(self, pending: Pending, *, patient: bool) -> Fields:
        """Wait for the end of a request, as long as anything comes from the server."""
        timeout = None if patient else self._limits.read_timeout
        while True:
            seen = self._link.frames.total
            await asyncio.wait([pending.end], timeout=timeout)
            if pending.end.done():
                return pending.end.result()
            if self._link.frames.total == seen:
                unknown = ": whether it was carried out is unknown" if pending.writes else ""
                raise TimedOut(f"{self._address}: nothing came for {self._limits.read_timeout:g} s{unknown}")

    def _cancel(self, number: int) -> None:
        # Without an id of its own: the reply is not waited for, and finds nobody.
        self._numbers += 1
        request = {"id": self._numbers, "command": "cancel", "target": number}
        self._link.send(codec.pack(request, m.Form.MSGPACK))

    async def _put(self, fields: Fields) -> None:
        self._link.send(self._packed(fields))
        await self._link.drained()

    def _packed(self, fields: Fields) -> list[Buffer]:
        if self._lost is not None:
            raise self._lost
        form = self.form
        if form is m.Form.MSGPACK and "binary" in self.features and codec.arrays_in(fields):
            form = m.Form.EXTENDED
        payload = codec.pack(fields, form, compress="zlib" in self.features)
        length, most = sum(map(len, payload)), LONGEST if self.welcome is None else self.welcome.max_frame
        if length > most:
            # The server would cut off everybody who uses this connection.
            raise TooLarge(f"{self._address}: a request of {length} bytes, {most} are accepted")
        return payload

    # -- replies --

    def _on_frames(self, payloads: list[Buffer]) -> None:
        try:
            for payload in payloads:
                self._take(payload)
            fault = self._link.frames.fault
            if fault is not None:
                raise ProtocolError(f"{self._address}: a frame of {fault.length} bytes")
        except NDStreamError as error:
            self._fail(error)
            self._link.abort()

    def _take(self, payload: Buffer) -> None:
        unpacked = codec.unpack(payload, extended=True)
        self._heard = unpacked.form
        fields = codec.restore(unpacked, self._agreed)
        number = fields.pop("id", None)
        if number is None:
            if not self._in_turn:
                raise self._unasked(fields)
            self._settle(self._in_turn.popleft(), fields)
            return
        if type(number) is not int:
            raise ProtocolError(f"{self._address}: a reply with an id that nobody chose")
        pending = self._pending.get(number)
        if pending is None:
            return  # who asked has given up
        if not unpacked.more:
            del self._pending[number]
            self._settle(pending, fields)
        elif pending.told is not None:
            pending.told(fields)

    def _unasked(self, fields: Fields) -> NDStreamError:
        """Make an error of what the server says before it cuts us off."""
        if "code" in fields or fields.get("status") == "error":
            return refusal(fields, f"{self._address}")
        return ProtocolError(f"{self._address}: a reply that nobody asked for")

    def _settle(self, pending: Pending, fields: Fields) -> None:
        if not pending.end.done():
            pending.end.set_result(fields)

    def _on_end(self, error: Exception | None) -> None:
        self._fail(ConnectionLost(f"{self._address}: the connection was lost"))

    def _fail(self, error: NDStreamError) -> None:
        """End every request that waits, and all that will be made."""
        if self._lost is None:
            self._lost = error
        waiting = [*self._pending.values(), *self._in_turn]
        self._pending.clear()
        self._in_turn.clear()
        for one in waiting:
            if not one.end.done():
                unknown = ": whether it was carried out is unknown" if one.writes else ""
                one.end.set_exception(type(error)(f"{error.args[0]}{unknown}"))

    def shut(self) -> None:
        """Begin to close the connection; safe to call more than once."""
        if self._lost is None:
            self._lost = ConnectionLost(f"{self._address}: closed")
        self._link.close()

    async def close(self) -> None:
        """Close the connection; safe to call more than once."""
        self.shut()
        await self._link.gone()


def refusal(fields: Fields, where: str) -> NDStreamError:
    """Error that a reply tells of."""
    code = fields.get("code")
    if code is None:
        code = "not_found" if fields.get("status") == "not_found" else "internal"
    failure = m.Failure(code=code, message=f"{where}: {fields.get('message') or fields.get('status')}")
    return error_of(failure)


def is_refusal(fields: Fields) -> bool:
    """Whether a reply tells that something was refused."""
    return fields.get("status") not in ("success", None)
