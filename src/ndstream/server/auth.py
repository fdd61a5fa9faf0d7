"""Who is asking: HTTP Basic, roles, and what they must not see.

Anonymous requests are served; credentials only widen what is visible, and wrong ones are refused even for what is
public (specs: hdfstream section 2.4). A password takes 50 ms and 64 MiB to check, so a good one is remembered for
some minutes, at most two are checked at a time, and addresses that fail again and again are made to wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from ndstream.core.ports import Access, ASGIApp, Receive, Scope, Send
from ndstream.errors import Busy, ConfigError, NotAuthenticated
from ndstream.server.answer import HTML, Answer
from ndstream.server.users import UserFile, hash_password

SESSION = 300.0
"""Seconds for which a password that was right is not checked again."""
_MOST_SESSIONS = 4096
_MOST_ADDRESSES = 4096
_MOST_QUEUED = 256
_FREE_FAILURES = 3
_LONGEST_DELAY = 5.0
_FORGIVEN = 300.0

log = logging.getLogger("ndstream.server")


class Authenticator:
    """Turns credentials into an `Access`.

    Parameters
    ----------
    users : UserFile
        Who there is; looked at again with every request that brings credentials, so that a user who was removed is
        out at once.
    access : mapping of str to frozenset of str
        Virtual directory to the roles that it takes, all of them, to see it and what is below.
    writable : mapping of str to frozenset of str, optional
        Virtual directory to the roles that it takes, all of them, to write to it and what is below; none at all lets
        everybody who sees it. What is in no such directory is written to by nobody.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self,
        users: UserFile,
        access: Mapping[str, frozenset[str]],
        writable: Mapping[str, frozenset[str]] | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._users = users
        self._access = dict(access)
        self._writable = dict(writable or {})
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._anonymous: dict[str, Access] = {}
        self._sessions: OrderedDict[bytes, tuple[Access, float]] = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[Access]] = {}
        self._suspects: OrderedDict[str, _Suspect] = OrderedDict()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="password")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def reload(
        self,
        users: UserFile,
        access: Mapping[str, frozenset[str]],
        writable: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """Take other users and rules from now on."""
        self._users = users
        self._access = dict(access)
        self._writable = dict(writable or {})
        self._forget()

    def anonymous(self, address: str) -> Access:
        """Access of somebody without credentials."""
        access = self._anonymous.get(address)
        if access is None:
            if len(self._anonymous) >= _MOST_ADDRESSES:
                self._anonymous.clear()
            access = self._anonymous[address] = self._allowed(None, address, frozenset())
        return access

    def remembered(self, credentials: bytes) -> Access | None:
        """Access for the value of an Authorization header that was found right a short time ago."""
        self._refresh()
        session = self._sessions.get(self._digest(credentials))
        return session[0] if session is not None and session[1] > self._clock() else None

    async def check(self, credentials: bytes, address: str) -> Access:
        """Access for the value of an Authorization header.

        Raises
        ------
        NotAuthenticated
            Unknown user or wrong password, which cannot be told apart.
        Busy
            Too many wait for theirs to be checked.
        """
        digest = self._digest(credentials)
        check = self._checks.get(digest)
        if check is None:
            check = asyncio.create_task(self._check(digest, *_parse(credentials), _neighbourhood(address)))
            self._checks[digest] = check
            check.add_done_callback(partial(self._checked, digest))
        # Whoever sent the same meanwhile waits for the same check, and none of them can cancel it for the others.
        return await asyncio.shield(check)

    async def _check(self, digest: bytes, name: str, password: str, address: str) -> Access:
        suspect = self._suspect(address)
        if suspect.queued >= _MOST_QUEUED:
            raise Busy("too many passwords from this address wait to be checked")
        suspect.queued += 1
        try:
            async with suspect.turn:
                await asyncio.sleep(suspect.delay(self._clock()))
                user = self._users.users.get(name)
                matches = await asyncio.get_running_loop().run_in_executor(
                    self._threads, _matches, user.hash if user is not None else None, password
                )
                # The file may have changed while the thread was at it.
                if not matches or user is None or self._users.users.get(name) != user:
                    suspect.fail(self._clock())
                    raise NotAuthenticated("unknown user or wrong password")
        finally:
            suspect.queued -= 1
        access = self._allowed(name, name, user.roles)
        self._sessions[digest] = (access, self._clock() + SESSION)
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return access

    def _checked(self, digest: bytes, check: asyncio.Task[Access]) -> None:
        del self._checks[digest]
        if not check.cancelled():
            # Asked for, so that asyncio does not complain when nobody waits any more.
            check.exception()

    def _allowed(self, user: str | None, key: str, roles: frozenset[str]) -> Access:
        hidden = frozenset(path for path, needed in self._access.items() if not needed <= roles)
        writable = frozenset(path for path, needed in self._writable.items() if needed <= roles)
        return Access(user=user, key=key, hidden=hidden, writable=writable)

    def _digest(self, credentials: bytes) -> bytes:
        # Keyed, so that what is kept in memory says nothing about the password.
        return blake2b(credentials, key=self._secret, digest_size=16).digest()

    def _refresh(self) -> None:
        try:
            if self._users.refresh():
                self._forget()
        except ConfigError as error:
            log.error("the users stay as they were: %s", error)

    def _forget(self) -> None:
        self._sessions.clear()
        self._anonymous.clear()

    def _suspect(self, address: str) -> _Suspect:
        suspect = self._suspects.pop(address, None)
        if suspect is None or (not suspect.queued and self._clock() - suspect.last > _FORGIVEN):
            suspect = _Suspect()
        self._suspects[address] = suspect
        if len(self._suspects) > _MOST_ADDRESSES:
            self._suspects.popitem(last=False)
        return suspect


class _Suspect:
    """What an address did so far: its checks go one after the other, the slower the more of them failed."""

    __slots__ = ("failures", "last", "queued", "turn")

    def __init__(self) -> None:
        self.failures = 0
        self.last = 0.0
        self.queued = 0
        self.turn = asyncio.Lock()

    def delay(self, now: float) -> float:
        if self.failures < _FREE_FAILURES or now - self.last > _FORGIVEN:
            return 0.0
        return float(min(0.1 * 2 ** min(self.failures - _FREE_FAILURES, 10), _LONGEST_DELAY))

    def fail(self, now: float) -> None:
        self.failures = self.failures + 1 if now - self.last <= _FORGIVEN else 1
        self.last = now


class Authenticated:
    """Application that finds in ``scope["ndstream.access"]`` who is asking; wrong credentials do not reach it."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request; who is known already waits for nothing here."""
        client = scope.get("client")
        address = client[0] if client else ""
        access: Access | None = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                access = self._authenticator.remembered(value)
                if access is None:
                    return self._check(value, address, scope, receive, send)
                break
        scope["ndstream.access"] = access or self._authenticator.anonymous(address)
        return self._app(scope, receive, send)

    async def _check(self, credentials: bytes, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["ndstream.access"] = await self._authenticator.check(credentials, address)
        except NotAuthenticated:
            await _REFUSAL.send(send)
        except Busy:
            await _TOO_MANY.send(send)
        else:
            await self._app(scope, receive, send)


_REFUSAL = Answer(
    401,
    HTML,
    b"<!doctype html><title>401 Unauthorized</title><h1>401 Unauthorized</h1><p>Unknown user or wrong password.</p>\n",
    ((b"www-authenticate", b'Basic realm="ndstream", charset="UTF-8"'),),
)
_TOO_MANY = Answer(
    429,
    HTML,
    b"<!doctype html><title>429 Too Many Requests</title><h1>429 Too Many Requests</h1><p>Try again later.</p>\n",
    ((b"retry-after", b"5"),),
)


def _parse(credentials: bytes) -> tuple[str, str]:
    """User name and password from the value of an Authorization header (RFC 7617)."""
    scheme, _, encoded = credentials.strip().partition(b" ")
    try:
        if scheme.lower() != b"basic":
            raise ValueError(f"unknown scheme {scheme!r}")
        decoded = b64decode(encoded.strip(), validate=True)
    except ValueError as error:
        raise NotAuthenticated("credentials that are not HTTP Basic") from error
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        # Older clients, the stock hdfstream one among them, send Latin-1.
        text = decoded.decode("latin-1")
    name, _, password = text.partition(":")
    return name, password


def _neighbourhood(address: str) -> str:
    """What counts as one address: of IPv6, where everybody has very many, the whole /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address


def _matches(hashed: str | None, password: str) -> bool:
    """Whether the password is the hashed one; takes as long when there is no such user."""
    try:
        return PasswordHasher().verify(hashed or _nobodys_hash(), password)
    except (Argon2Error, InvalidHashError):
        return False


@cache
def _nobodys_hash() -> str:
    return hash_password(secrets.token_urlsafe())
