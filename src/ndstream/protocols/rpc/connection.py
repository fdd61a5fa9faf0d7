"""One connection of the framed TCP protocol, from its first byte to its last (SPEC.md, B1, B2, C1 to C5)."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ndstream.core.limits import SLOWEST, KiB, MiB
from ndstream.errors import (
    Busy,
    Cancelled,
    InvalidRequest,
    NDStreamError,
    NotAuthenticated,
    NotSupported,
    ProtocolError,
    ServiceError,
    TooLarge,
)
from ndstream.protocols.rpc import codec
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.codes import Refused, failure_of
from ndstream.protocols.rpc.operations import arguments_of
from ndstream.protocols.rpc.order import Running, running
from ndstream.protocols.rpc.outgoing import Outgoing
from ndstream.protocols.rpc.service import Bulk, Caller, Events, Fields, Parts
from ndstream.protocols.rpc.session import Session, agree, config_fields, read_hello, welcome
from ndstream.transports.tcp import Link
from ndstream.wire.framing import Buffer, Fault

if TYPE_CHECKING:
    from ndstream.protocols.rpc.serve import Connections

T = TypeVar("T")

_HEAVY = 64 * KiB
"""Bytes of a payload that is taken apart in a thread."""
_AT_ONCE = 32
"""Requests of one connection that are answered before others have their turn."""
_BULKY = 1 * MiB
"""Bytes of arrays in a message that is put together in a thread; items of lists count too."""
_LINGER = 1.0
"""Seconds in which a peer that is cut off may still take the reason."""

_PRESSED = 10.0
"""Seconds in which a peer must take something of its replies when others wait for the memory of these."""

log = logging.getLogger("ndstream.rpc")


class Connection:
    """Reads requests, starts them in order, sends the replies.

    Parameters
    ----------
    app : Connections
        What all connections share.
    """

    def __init__(self, app: Connections) -> None:
        self.link = Link(app.limits.frame, self._on_frames, self._on_end, self._on_begin, self._on_eof)
        self._outgoing = Outgoing(self.link, app.replies)
        self._app = app
        self._limits = app.limits
        self._session: Session | None = None
        self._known = False
        self._first = True
        self._caller: Caller
        self._waiting: deque[Buffer | Fault] = deque()
        self._whole = 0
        self._taken = 0
        self._unpacked = 0
        self._reader: asyncio.Task[None] | None = None
        self._open: dict[m.Ident | Running, Running] = {}
        self._room = asyncio.Event()
        self._held = False
        self._over = False
        self._all_asked = False
        self._faulty = False
        self._progress = (0, 0.0)
        self._unsent = (0, 0.0)

    # -- the life of the connection --

    def _on_begin(self) -> None:
        self._progress = (0, asyncio.get_running_loop().time())
        self._access(self._app.admission.anonymous(self.link.address))
        if not self._app.enter(self):
            self._app.counters.add("rpc_errors", label="connections")
            # This answers no request, so it has its code; our clients would take us for a server of old without.
            self._refuse(Refused(Busy("too many connections"), retry_after=1.0), None, m.Form.MSGPACK, typed=True)
            self._end()

    def _access(self, access: Any) -> None:
        session = self._session
        self._caller = Caller(
            access=access,
            original=session is None,
            frame=self._limits.frame if session is None else session.frame,
            streams=session is not None and session.streams,
        )

    def _on_end(self, error: Exception | None) -> None:
        self._app.leave(self)
        self._over = True
        self._forget_waiting()
        for one in list(self._open.values()):
            # What writes goes on: it may have begun, and its end is known to the file at least.
            if one.task is not None and one.access != "write":
                one.task.cancel()

    def _on_eof(self) -> bool:
        """Note that no more is asked; whether there is still something to answer."""
        self._all_asked = True
        for one in list(self._open.values()):
            # Nobody could tell that its peer is gone altogether.
            if one.endless and one.task is not None and not one.cancelled:
                one.cancelled = True
                one.task.cancel()
        return self._busy

    @property
    def _busy(self) -> bool:
        return bool(self._waiting or self._open or self._reader is not None)

    def _close_if_done(self) -> None:
        """Close the connection when all that was asked is answered, and no more will be."""
        if self._all_asked and not self._busy and not self._over:
            self.link.close()

    def _end(self) -> None:
        """Send what is left, take no more, and close before long."""
        if not self._over:
            self._over = True
            self._forget_waiting()
            self.link.finish()
            asyncio.get_running_loop().call_later(_LINGER, self.link.abort)

    async def drain(self) -> None:
        """Let what is under way end, then close."""
        self.link.hold()
        while self._reader is not None or self._open:
            for one in self._open.values():
                if one.streams and one.task is not None and not one.stopped:
                    one.stopped = True
                    one.task.cancel()
            ends: list[asyncio.Future[None]] = [one.done for one in self._open.values()]
            if self._reader is not None:
                ends.append(self._reader)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await self.link.drained()
        self.link.close()

    def check(self, now: float) -> None:
        """Cut the connection when its peer is too slow."""
        total, since = self._progress
        frames = self.link.frames
        if not frames.partial or self._held or self._app.intake.holds(self.link):
            self._progress = (frames.total, now)
        elif now - since > self._limits.frame_timeout + (frames.total - total) / SLOWEST:
            self._cut("sent a frame too slowly")
        waiting, since = self._unsent
        size = self.link.untaken
        patience = self._limits.send_timeout
        if self._outgoing.blocks:
            patience = min(patience, _PRESSED)
        if not size or size != waiting:
            self._unsent = (size, now)
        elif now - since > patience:
            self._cut("took nothing of its replies")

    def _cut(self, what: str) -> None:
        log.info("connection of %s cut: it %s", self.link.address or "?", what)
        self._app.counters.add("rpc_errors", label="slow")
        self.link.abort()

    # -- requests --

    def _on_frames(self, payloads: list[Buffer]) -> None:
        for payload in payloads:
            self._waiting.append(payload)
            self._whole += _weight(payload)
        fault = self.link.frames.fault
        if fault is not None and not self._faulty:
            self._faulty = True
            self._waiting.append(fault)
        if self._reader is None:
            self._answer_at_once()
        self._weigh()
        if self._waiting and self._reader is None and not self._over:
            self._reader = asyncio.get_running_loop().create_task(self._read())

    def _weigh(self) -> None:
        """Read on, or not: by what waits here, and by what all connections hold together."""
        self._app.intake.note(self.link, 0 if self._over else self.link.frames.held, self._whole)
        full = len(self._waiting) + len(self._open) >= self._limits.in_flight
        if full != self._held and not self.link.closed:
            self._held = full
            if full:
                self.link.hold()
            else:
                self.link.release()

    def _forget_waiting(self) -> None:
        self._whole -= sum([_weight(one) for one in self._waiting])
        self._waiting.clear()
        self._weigh()

    async def _read(self) -> None:
        """Take requests apart and start them, until none is left."""
        try:
            while self._waiting:
                payload = self._waiting.popleft()
                if isinstance(payload, Fault):
                    self._refuse_frame(payload)
                    return
                self._taken = _weight(payload)
                try:
                    await self._take(payload)
                finally:
                    self._whole -= self._taken
                    self._taken = 0
                    self._weigh()
        except Exception as error:  # noqa: BLE001 - logged with its trace, told as an incident
            # Nobody can tell what else it would be taken for.
            self._refuse(_incident("a request", error), None, m.Form.MSGPACK)
            self._end()
        finally:
            self._reader = None
            self._close_if_done()

    async def _take(self, payload: Buffer) -> None:
        """Start what one payload asks for; wait for its end when it has no id."""
        heavy = len(payload) > _HEAVY
        aside = heavy or self._expands(payload)
        while aside and self._unpacked > self._limits.frame:
            self._room.clear()
            await self._room.wait()
        try:
            request = await _aside(aside, self._understand, payload)
        except _Misunderstood as why:
            self._refuse(why.error, why.ident, why.form)
            if isinstance(why.error, ProtocolError):
                self._end()
            return
        weight = await _aside(aside, codec.weight_of, request.arguments) if aside else 0
        await self._start(request, heavy=heavy, weight=weight)

    def _expands(self, payload: Buffer) -> bool:
        """Whether a payload may be long, being compressed, in spite of a short frame."""
        return self._session is not None and bool(self._session.agreed.codecs) and codec.is_extended(payload)

    def _understand(self, payload: Buffer) -> m.Request:
        """Take a payload apart.

        Raises
        ------
        _Misunderstood
        """
        session = self._session
        ident: m.Ident | None = None
        form = m.Form.MSGPACK
        try:
            codec.check_values(payload, self._limits.values)
        except TooLarge as error:
            form, ident = codec.ident_alone(payload)
            raise _Misunderstood(error, ident, form) from error
        try:
            unpacked = codec.unpack(payload, extended=session is not None)
            form = unpacked.form
            if session is None:
                _check_original(unpacked.fields)
            else:
                ident = codec.ident_of(unpacked.fields.get("id"))
                if ident is not None and ident in self._open:
                    raise InvalidRequest(f"request {ident!r} is under way already")
            fields = codec.restore(unpacked, session.agreed if session else codec.Agreed(most=self._limits.frame))
            return codec.request_of(fields, form, ident)
        except NDStreamError as error:
            raise _Misunderstood(error, ident, form) from error

    def _answer_at_once(self) -> None:
        """Answer small reads whose data are at hand without a step of the event loop, as long as they come first."""
        for _ in range(min(len(self._waiting), _AT_ONCE)):
            if self._open or self.link.unsent or self._over:
                return
            payload = self._waiting[0]
            reply = self._at_hand(payload) if isinstance(payload, bytes) else None
            if reply is None:
                return
            self._first = False
            self._waiting.popleft()
            self._app.counters.add("rpc_requests", label="read")
            self.link.send(reply)

    def _at_hand(self, payload: bytes) -> list[Buffer] | None:
        """Reply to a read that needs no waiting; None for all others, and when anything is wrong."""
        read = codec.plain_read(payload)
        if read is None or (self._app.admission.required and not self._known):
            return None
        if not (read.is_bare if self._session is None else self._session.plain):
            return None
        try:
            reply = self._app.commands.read_at_hand(read, self._caller)
            if isinstance(reply, dict):
                reply = self._pack(reply, read.id, m.Form.MSGPACK)
        except (NDStreamError, Refused):
            return None  # whoever waits meets it again, and says it
        return reply

    async def _start(self, request: m.Request, *, heavy: bool, weight: int) -> None:
        first, self._first = self._first, False
        if request.command == "hello":
            await self._greet(request, first=first, heavy=heavy)
            return
        if self._session is not None and request.command == "cancel":
            await self._cancel(request)
            return
        while len(self._open) >= self._limits.in_flight:
            self._room.clear()
            await self._room.wait()
        one = running(request)
        one.nbytes, self._taken = self._taken, 0
        one.weight = weight
        self._unpacked += weight
        one.before = [other.done for other in self._open.values() if one.conflicts(other)]
        key = one if request.ident is None else request.ident
        self._open[key] = one
        if request.ident is None:
            one.task = asyncio.current_task()
            await self._carry_out(request, one, key, heavy=heavy)
        else:
            work = self._carry_out(request, one, key, heavy=heavy)
            one.task = asyncio.get_running_loop().create_task(work)
            one.task.add_done_callback(lambda _: self._never_begun(request, one, key))

    def _never_begun(self, request: m.Request, one: Running, key: m.Ident | Running) -> None:
        """End a request that was cancelled before its first step."""
        if not one.done.done():
            if one.cancelled:
                self._refuse(_TAKEN_BACK, request.ident, request.form)
            self._finish(one, key)

    async def _carry_out(self, request: m.Request, one: Running, key: m.Ident | Running, *, heavy: bool) -> None:
        """Answer one request, whatever becomes of it."""
        try:
            for earlier in one.before:
                if not earlier.done():
                    await asyncio.wait([earlier])
            # Who does not take replies gets no new ones made.
            await self.link.drained()
            answer = await self._answer(request, one, heavy=heavy)
            if isinstance(answer, dict):
                await self._send(answer, request)
            elif isinstance(answer, Bulk):
                await self._send_bulk(answer, request)
            elif isinstance(answer, Parts):
                one.streams = True
                await self._send_parts(answer, request)
            else:
                one.streams = True
                await self._send_events(answer, request)
        except (NDStreamError, Refused) as error:
            self._refuse(error, request.ident, request.form)
        except asyncio.CancelledError:
            if not one.cancelled:
                raise
            self._refuse(_TAKEN_BACK, request.ident, request.form)
        except Exception as error:  # noqa: BLE001 - logged with its trace, told as an incident
            self._refuse(_incident(request.command, error), request.ident, request.form)
        finally:
            self._finish(one, key)

    def _finish(self, one: Running, key: m.Ident | Running) -> None:
        if not one.done.done():
            del self._open[key]
            # What ended a task keeps the frames of the task, and they this: its data would wait for a collection.
            one.task = None
            self._whole -= one.nbytes
            self._unpacked -= one.weight
            one.done.set_result(None)
            self._room.set()
            self._weigh()
            self._close_if_done()

    async def _answer(self, request: m.Request, one: Running, *, heavy: bool) -> Fields | Bulk | Parts | Events:
        command, caller, session = request.command, self._caller, self._session
        self._app.counters.add("rpc_requests", label=command if command in m.COMMANDS else "unknown")
        self._check(request)
        arguments = await _aside(heavy, arguments_of, command, request.arguments, known_only=session is None)
        if command == "get_config":
            return config_fields(request.form, self._limits, known=session is not None)
        if isinstance(arguments, m.Follow):
            one.streams = one.endless = True
            if self._all_asked:
                raise Cancelled(str(_TAKEN_BACK))
            if sum([other.streams for other in self._open.values()]) > self._limits.follows:
                raise Busy(f"{self._limits.follows} streams are open on this connection already")
        return await self._app.commands.answer(command, arguments, replace(caller, heavy=True) if heavy else caller)

    def _check(self, request: m.Request) -> None:
        """Refuse what is not known, not allowed, or not agreed on."""
        if request.command not in m.COMMANDS or (self._session is None and request.command not in m.ORIGINAL):
            raise NotSupported("Unknown command")
        if self._app.admission.required and not self._known:
            raise NotAuthenticated("this server asks for a token, which hello carries")
        if self._session is not None:
            self._session.check(request)

    async def _greet(self, request: m.Request, *, first: bool, heavy: bool) -> None:
        """Answer a hello; it closes the connection when the token is wrong."""
        try:
            if not first:
                raise InvalidRequest("hello is the first request, or none")
            if heavy:
                raise InvalidRequest(f"hello has at most {_HEAVY} bytes")
            hello = read_hello(request.arguments)
            session = agree(hello, self._limits)
            admission = self._app.admission
            access = self._caller.access
            if hello.token is not None:
                access = await admission.check(hello.token, hello.user, self.link.address)
                self._known = True
            elif admission.required:
                raise NotAuthenticated("this server asks for a token")
        except NotAuthenticated as error:
            self._refuse(error, request.ident, request.form, typed=True)
            self._end()
            return
        except (NDStreamError, Refused) as error:
            self._refuse(error, request.ident, request.form, typed=True)
            return
        self._session = session
        self._access(access)
        writable = self._app.commands.writable(access)
        await self._send(welcome(session, self._limits, writable=writable), request)

    async def _cancel(self, request: m.Request) -> None:
        """End a request that does not write; what writes may have begun, and is told of when it ends."""
        self._app.counters.add("rpc_requests", label="cancel")
        try:
            target = msgspec.convert(request.arguments, m.Cancel).target
        except msgspec.ValidationError as error:
            self._refuse(InvalidRequest(f"cancel: {error}"), request.ident, request.form)
            return
        one = self._open.get(target)
        found = one is not None and one.access != "write" and not one.cancelled and not one.done.done()
        if one is not None and one.task is not None and found:
            one.cancelled = True
            one.task.cancel()
        await self._send({"status": "success", "cancelled": found}, request)

    # -- replies --

    def _form(self, request_form: m.Form, fields: Fields) -> m.Form:
        """Form of a reply: that of the request, extended when there are arrays in it and both know how."""
        if request_form is m.Form.JSON:
            return m.Form.JSON
        if self._session is not None and self._session.binary and codec.arrays_in(fields):
            return m.Form.EXTENDED
        return m.Form.MSGPACK

    async def _send(self, fields: Fields, request: m.Request, *, more: bool = False) -> None:
        bulky = codec.is_bulky(fields, _HEAVY if request.form is m.Form.JSON else _BULKY)
        payload = await _aside(bulky, self._pack, fields, request.ident, request.form, more=more)
        # Before it is sent, and nothing to wait for behind it: who is cancelled has not been answered.
        await self.link.drained()
        self._put(payload)

    def _pack(self, fields: Fields, ident: m.Ident | None, request_form: m.Form, *, more: bool = False) -> list[Buffer]:
        form = m.Form.EXTENDED if more else self._form(request_form, fields)
        compress = self._session is not None and self._session.compresses
        payload = codec.pack(_named(fields, ident), form, more=more, compress=compress, most=self._caller.frame)
        length = sum([len(piece) for piece in payload])
        if length > self._caller.frame:
            raise Refused(
                TooLarge(f"a reply of {length} bytes, {self._caller.frame} are accepted"),
                nbytes=length,
                limit=self._caller.frame,
            )
        return payload

    async def _send_bulk(self, bulk: Bulk, request: m.Request) -> None:
        """Make a reply that is large when there is room for it, and send it."""
        try:
            async with self._outgoing.room(bulk.nbytes):
                await self._send(await bulk.make(), request)
        finally:
            await bulk.aclose()

    async def _send_parts(self, parts: Parts, request: m.Request) -> None:
        """Send a reply of several frames; what comes next is read when the peer has taken what was read before."""
        more = True
        async with aclosing(parts.frames):
            while more:
                async with self._outgoing.room(parts.nbytes):
                    frames = await anext(parts.frames)
                    while frames:
                        more = await self._send_part(frames.pop(0), request)

    async def _send_part(self, fields: Fields, request: m.Request) -> bool:
        """Send a frame of a streamed reply; False when it is the last one."""
        more = "status" not in fields
        await self._send(fields, request, more=more)
        return more

    async def _send_events(self, events: Events, request: m.Request) -> None:
        """Send a reply of a frame for each event."""
        async with aclosing(events):
            async for fields in events:
                await self._send(fields, request, more=True)
        await self._send({"status": "success"}, request)

    def _refuse(
        self, error: NDStreamError | Refused, ident: m.Ident | None, form: m.Form, *, typed: bool = False
    ) -> None:
        """Send why something was refused."""
        failure = failure_of(error)
        self._app.counters.add("rpc_errors", label=failure.code)
        if self.link.closed or self._over:
            return
        fields = codec.failure_fields(failure, typed=typed or self._session is not None)
        self._put(codec.pack_failure(_named(fields, ident), form))

    def _refuse_frame(self, fault: Fault) -> None:
        """Refuse a length that no frame may have, and cut the connection off."""
        if fault.kind == "empty":
            self._refuse(ProtocolError("a frame of no length"), None, m.Form.MSGPACK)
        else:
            error = TooLarge(f"a frame of {fault.length} bytes, {self._limits.frame} are accepted")
            self._refuse(Refused(error, "frame_too_large", limit=self._limits.frame), None, m.Form.MSGPACK)
        self._end()

    def _put(self, payload: list[Buffer]) -> None:
        if not self._over:
            self.link.send(payload)


_TAKEN_BACK = Cancelled("taken back by the client")


class _Misunderstood(Exception):
    """What is wrong with a payload, and what is known of the request that it is."""

    def __init__(self, error: NDStreamError, ident: m.Ident | None, form: m.Form) -> None:
        super().__init__(error)
        self.error = error
        self.ident = ident
        self.form = form


async def _aside(heavy: bool, function: Callable[..., T], *arguments: Any, **how: Any) -> T:
    """Call a function, in a thread when it has much to do."""
    return await asyncio.to_thread(function, *arguments, **how) if heavy else function(*arguments, **how)


def _weight(payload: Buffer | Fault) -> int:
    """Bytes that a payload takes in `Intake`: small ones are counted by `in_flight`."""
    return len(payload) if isinstance(payload, memoryview) else 0


def _incident(what: str, error: Exception) -> Refused:
    """Log a failure that should not be, and tell no more of it than where to find it."""
    incident = secrets.token_hex(4)
    log.error("%s failed, incident %s", what, incident, exc_info=error)
    return Refused(ServiceError(f"internal error, logged as {incident}"), incident=incident)


def _check_original(fields: Fields) -> None:
    """Refuse what would be left out, and so mean something else than was meant."""
    reserved = [key for key in m.RESERVED if fields.get(key) is not None]
    if reserved and fields.get("command") != "hello":
        raise InvalidRequest(f"{reserved[0]} means nothing before hello; nothing was done")


def _named(fields: Fields, ident: m.Ident | None) -> Fields:
    return fields if ident is None else {"id": ident, **fields}
