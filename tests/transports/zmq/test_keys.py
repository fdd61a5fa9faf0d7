"""Encrypted streams: keys that are right, and errors where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from typer.testing import CliRunner

import ndstream
from ndstream import BIND, PULL, PUSH, Stream
from ndstream.cli.main import app
from ndstream.errors import ConfigError, Exists, InvalidRequest, NotAuthenticated
from ndstream.transports.zmq.keys import Curve, generate, public_key

LONG = 60_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    directory = tmp_path_factory.mktemp("keys")
    for name in ("server", "client", "other"):
        generate(directory, name)
    return lambda name: directory / name


def server(keys: Callable[[str], Path], **options: Any) -> Stream:
    key = keys("server.key_secret")
    return ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH, send_timeout=LONG, linger=0, key=key, **options)


def client(address: str, **options: Any) -> Stream:
    return ndstream.connect(address, receive_timeout=LONG, **options)


def test_both_ends_with_the_right_keys_talk(keys: Callable[[str], Path]) -> None:
    allowed = keys("client.key").read_text().split('"')[1]
    with (
        server(keys, allowed_keys=[allowed, keys("other.key")]) as sender,
        client(sender.address, key=keys("client.key_secret"), server_key=keys("server.key")) as receiver,
    ):
        sender.send(b'{"htype": "raw-1.0"}')
        assert receiver.receive() is not None
        assert sender.link.channel.watch.handshakes.refused == 0


def test_without_a_key_of_its_own_a_client_makes_one(keys: Callable[[str], Path]) -> None:
    with server(keys) as sender, client(sender.address, server_key=public_key(keys("server.key"))) as receiver:
        sender.send(b'{"htype": "raw-1.0"}')
        assert receiver.receive() is not None


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "key of another server": ({"key": "client.key_secret", "server_key": "other.key"}, "is another one"),
    "key that is not allowed": ({"key": "other.key_secret", "server_key": "server.key"}, "does not allow this key"),
    "no key": ({}, "encrypted"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_key_is_an_error_and_no_silence(keys: Callable[[str], Path], case: str) -> None:
    names, message = WRONG[case]
    options = {option: keys(name) for option, name in names.items()}
    with server(keys, allowed_keys=keys("client.key")) as sender:
        with client(sender.address, **options) as receiver, pytest.raises(NotAuthenticated, match=message) as caught:
            receiver.receive()
        assert sender.address in str(caught.value)
        assert isinstance(caught.value, PermissionError)
        # The server goes on, and has counted.
        good = {"key": keys("client.key_secret"), "server_key": keys("server.key")}
        with client(sender.address, **good) as receiver:
            sender.send(b'{"htype": "raw-1.0"}')
            assert receiver.receive() is not None
        sender.link.channel.check()
        assert sender.link.channel.watch.handshakes.refused > 0


def test_a_key_for_a_server_that_has_none_is_an_error(keys: Callable[[str], Path]) -> None:
    with (
        ndstream.connect("tcp://127.0.0.1:*", BIND, PUSH) as sender,
        client(sender.address, server_key=keys("server.key")) as receiver,
        pytest.raises(NotAuthenticated, match=r"the other is not$"),
    ):
        receiver.receive()


def test_a_sender_that_is_refused_learns_it(keys: Callable[[str], Path]) -> None:
    options: dict[str, Any] = {"key": keys("server.key_secret"), "allowed_keys": [keys("client.key")]}
    with ndstream.connect("tcp://127.0.0.1:*", BIND, PULL, **options) as receiver:
        sender = ndstream.connect(
            receiver.address, mode=PUSH, linger=200, queue_size=1, send_timeout=LONG, server_key=keys("server.key")
        )
        with sender, pytest.raises(NotAuthenticated):
            for _ in range(10_000):
                sender.send(b"{}")
        assert sender.statistics.undelivered + sender.statistics.uncertain >= sender.statistics.messages_sent


def test_a_listener_tells_the_waiting_thread(keys: Callable[[str], Path]) -> None:
    with server(keys) as sender, client(sender.address, server_key=keys("other.key")) as receiver:
        receiver.register_socket_monitor(lambda event: None)
        with pytest.raises(NotAuthenticated):
            receiver.receive()


def test_a_wrong_key_is_an_error_in_a_loop_too(keys: Callable[[str], Path]) -> None:
    async def main(address: str) -> None:
        async with ndstream.aconnect(address, receive_timeout=LONG, server_key=keys("other.key")) as receiver:
            with pytest.raises(NotAuthenticated):
                await receiver.receive()

    with server(keys) as sender:
        asyncio.run(main(sender.address))


def test_key_files_are_for_their_owner_and_never_replaced(tmp_path: Path) -> None:
    public, secret = generate(tmp_path / "new", "mine")
    assert (public.name, secret.name) == ("mine.key", "mine.key_secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    before = secret.read_bytes()
    with pytest.raises(Exists, match="mine"):
        generate(tmp_path / "new", "mine")
    secret.rename(tmp_path / "kept")
    with pytest.raises(Exists, match=r"mine\.key is"):
        generate(tmp_path / "new", "mine")
    assert not secret.exists()
    assert (tmp_path / "kept").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mine.key"]


def test_what_is_no_key_is_named(tmp_path: Path, keys: Callable[[str], Path]) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("nothing")
    for wrong in (nothing, tmp_path / "absent", "~" * 40):
        with pytest.raises(ConfigError, match="no key"):
            public_key(wrong)
    with pytest.raises(ConfigError, match="holds no secret key"):
        Curve.of(keys("server.key"), None, None)
    open_to_all = tmp_path / "open.key_secret"
    open_to_all.write_bytes(keys("server.key_secret").read_bytes())
    open_to_all.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read this key"):
        Curve.of(open_to_all, None, None)


def test_roles_that_contradict_each_other_are_refused(keys: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="need a key"):
        Curve.of(None, None, [keys("client.key")])
    with pytest.raises(ConfigError, match="server_key"):
        Curve.of(keys("server.key_secret"), keys("client.key"), [])
    with zmq.Context() as context, pytest.raises(InvalidRequest, match="context"):
        Stream().connect(
            "tcp://127.0.0.1:*", BIND, context=context, key=keys("server.key_secret"), allowed_keys=[keys("client.key")]
        )


def test_a_directory_stands_for_its_public_keys(keys: Callable[[str], Path]) -> None:
    found = Curve.of(keys("server.key_secret"), None, [keys("server.key").parent])
    assert found is not None
    assert found.allowed == frozenset(public_key(keys(f"{name}.key")) for name in ("server", "client", "other"))


def test_the_command_makes_keys(tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["keygen", "lab", "--directory", str(tmp_path)])
    assert done.exit_code == 0
    assert public_key(tmp_path / "lab.key").decode() in done.output
    assert (tmp_path / "lab.key_secret").stat().st_mode & 0o777 == 0o600
    again = runner.invoke(app, ["keygen", "lab", "-d", str(tmp_path)])
    assert again.exit_code == 1
    assert "is there already" in again.output
