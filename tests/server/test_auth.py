from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndstream.core.ports import Access, Receive, Scope, Send
from ndstream.errors import Busy, NotAuthenticated
from ndstream.server import auth
from ndstream.server.auth import Authenticator
from ndstream.server.users import UserFile

from .conftest import Start, answer, ask, write_users

RULES = {"closed": frozenset({"staff"}), "closed/more": frozenset({"eagle"})}


def basic(name: str, password: str, encoding: str = "utf-8") -> bytes:
    return b"Basic " + b64encode(f"{name}:{password}".encode(encoding))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return write_users(
        tmp_path / "users", alice=("secret", "staff,eagle"), bob=("s3:ret", "eagle"), zoë=("pässword", "")
    )


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(users: Path, clock: Clock) -> Iterator[Authenticator]:
    authenticator = Authenticator(UserFile(users), RULES, clock=clock)
    yield authenticator
    authenticator.close()


def test_a_user_sees_what_all_roles_allow(authenticator: Authenticator) -> None:
    async def check() -> None:
        alice = await authenticator.check(basic("alice", "secret"), "::1")
        bob = await authenticator.check(basic("bob", "s3:ret"), "::1")
        assert (alice.user, alice.key) == ("alice", "alice")
        assert [alice.sees(path) for path in ("closed", "closed/more/x", "open")] == [True, True, True]
        # The role of the inner directory does not help where the outer one is closed.
        assert [bob.sees(path) for path in ("closed", "closed/more/x", "open")] == [False, False, True]

    asyncio.run(check())


def test_nobody_in_particular_sees_what_takes_no_role(authenticator: Authenticator) -> None:
    nobody = authenticator.anonymous("192.0.2.1")
    assert (nobody.user, nobody.key) == (None, "192.0.2.1")
    assert not nobody.sees("closed/a")
    assert nobody.sees("open")
    assert authenticator.anonymous("192.0.2.1") is nobody


@pytest.mark.parametrize(
    "credentials",
    [
        basic("alice", "wrong"),
        basic("mallory", "secret"),
        basic("", ""),
        b"Basic",
        b"Basic !!!!",
        b"Basic YQ",
        b"Bearer c2VjcmV0",
        b"",
    ],
)
def test_what_is_wrong_is_refused(authenticator: Authenticator, credentials: bytes) -> None:
    with pytest.raises(NotAuthenticated):
        asyncio.run(authenticator.check(credentials, "::1"))
    assert authenticator.remembered(credentials) is None


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_both_encodings_in_use_are_understood(authenticator: Authenticator, encoding: str) -> None:
    assert asyncio.run(authenticator.check(basic("zoë", "pässword", encoding), "::1")).user == "zoë"


def test_what_was_right_is_remembered_for_some_minutes(authenticator: Authenticator, clock: Clock) -> None:
    credentials = basic("alice", "secret")
    access = asyncio.run(authenticator.check(credentials, "::1"))
    assert authenticator.remembered(credentials) is access
    clock.now += auth.SESSION + 1
    assert authenticator.remembered(credentials) is None


def test_a_user_who_is_removed_is_out_at_once(authenticator: Authenticator, users: Path) -> None:
    credentials = basic("alice", "secret")
    asyncio.run(authenticator.check(credentials, "::1"))
    write_users(users, bob=("x", ""))
    assert authenticator.remembered(credentials) is None
    with pytest.raises(NotAuthenticated):
        asyncio.run(authenticator.check(credentials, "::1"))


def test_a_broken_file_leaves_the_users_as_they_were(
    authenticator: Authenticator, users: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = basic("alice", "secret")
    access = asyncio.run(authenticator.check(credentials, "::1"))
    users.write_text("nonsense\n", encoding="utf-8")
    assert authenticator.remembered(credentials) is access
    assert "the users stay as they were" in caplog.text


def test_the_same_credentials_at_the_same_time_are_checked_once(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []
    matches = auth._matches

    def count(*given: str) -> bool:
        checks.append(given)
        return matches(*given)

    monkeypatch.setattr(auth, "_matches", count)

    async def check() -> list[Access]:
        many = (authenticator.check(basic("alice", "secret"), "::1") for _ in range(64))
        return await asyncio.gather(*many)

    assert len(set(map(id, asyncio.run(check())))) == 1
    assert len(checks) == 1


def test_who_gives_up_does_not_cancel_the_check_of_another(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(*given: object) -> bool:
        begun.set()
        return go_on.wait(10)

    monkeypatch.setattr(auth, "_matches", wait)

    async def check() -> None:
        first = asyncio.create_task(authenticator.check(basic("alice", "secret"), "::1"))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(authenticator.check(basic("alice", "secret"), "::1"))
        await asyncio.sleep(0)
        first.cancel()
        go_on.set()
        assert (await second).user == "alice"

    asyncio.run(check())


def test_at_most_two_passwords_are_checked_at_a_time(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = threading.Semaphore(2)
    together = threading.Barrier(2, timeout=10)

    def count(*given: object) -> bool:
        assert at_work.acquire(blocking=False)
        together.wait()
        at_work.release()
        return True

    monkeypatch.setattr(auth, "_matches", count)

    async def check() -> None:
        await asyncio.gather(
            *(authenticator.check(basic("alice", f"{number}"), f"192.0.2.{number}") for number in range(6))
        )

    asyncio.run(check())


def test_an_address_that_fails_again_and_again_waits_and_nobody_else(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)

    async def fail(number: int, address: str) -> float:
        with pytest.raises(NotAuthenticated):
            await authenticator.check(basic("alice", f"wrong{number}"), address)
        return waits[-1]

    async def check() -> None:
        assert [await fail(number, "2001:db8::1") for number in range(6)] == [0, 0, 0, 0.1, 0.2, 0.4]
        assert await fail(7, "192.0.2.1") == 0
        # Of IPv6 the neighbours count as one.
        assert await fail(8, "2001:db8::2") == 0.8
        assert [await fail(number, "2001:db8::1") for number in range(10, 20)][-1] == 5
        clock.now += 301
        assert await fail(21, "2001:db8::1") == 0

    asyncio.run(check())


def test_an_address_cannot_queue_without_end(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(auth, "_matches", lambda *_: go_on.wait(10))
    monkeypatch.setattr(auth, "_MOST_QUEUED", 3)

    async def check() -> None:
        tasks = [asyncio.create_task(authenticator.check(basic("alice", f"{n}"), "::1")) for n in range(4)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, Busy) for result in results] == [False, False, False, True]

    asyncio.run(check())


async def tell_user(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, str(scope["ndstream.access"].user).encode())


def test_credentials_are_asked_for_by_nobody_and_refused_when_wrong(start: Start, users: Path) -> None:
    server = start(tell_user)
    assert ask(server, "/scripted/public").body == b"None"
    assert ask(server, "/scripted/public", headers={"Authorization": basic("bob", "s3:ret").decode()}).body == b"bob"
    refused = ask(server, "/scripted/public", headers={"Authorization": basic("bob", "no").decode()})
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith('Basic realm="')
    assert refused.headers["content-type"].startswith("text/html")


def test_without_users_any_credentials_are_wrong(start: Start) -> None:
    refused = ask(start(tell_user), "/scripted/x", headers={"Authorization": basic("bob", "no").decode()})
    assert refused.status == 401
