"""Opening by address, alias and user: settings, passwords, connections that are shared."""

from __future__ import annotations

import getpass
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.client.credentials import Credentials, PasswordSources, read_token
from ndstream.client.settings import Config
from ndstream.config import client_settings
from ndstream.errors import ConfigError, Corrupt, InvalidRequest, NotAuthenticated, NotFound
from ndstream.testing.fixtures import ServerFactory
from ndstream.testing.scripted import Answer

from .conftest import StartField, directory, file_entry

BASIC = "Basic bWU6c2VjcmV0"  # me:secret


def test_an_alias_stands_for_a_server_and_a_user(field: StartField) -> None:
    server = field({("f", None): file_entry()})
    config = Config(passwords=PasswordSources(known="secret"))
    config.add_alias("lab", server.url, "me")
    ndstream.set_config(config)
    assert ndstream.open("lab", "f").size == 10
    assert {asked.headers["authorization"] for asked in server.asked} == {BASIC}
    with pytest.raises(InvalidRequest, match="nowhere"):
        ndstream.open("nowhere")


def test_the_server_that_everybody_knows_needs_no_configuration() -> None:
    assert Config().resolve_alias("cosma").url.startswith("https://dataweb.cosma.dur.ac.uk:8443")
    assert Config().resolve_alias("cosma", "me").user == "me"


def test_a_name_that_looks_like_an_address_cannot_be_an_alias() -> None:
    for name in ("", "a/b", "http://host"):
        with pytest.raises(ConfigError):
            Config().add_alias(name, "http://host")


def test_users_have_connections_of_their_own(field: StartField) -> None:
    server = field({("", None): directory({}, {})})
    url = server.url + "/hdfstream"
    first = ndstream.open(url)
    second = ndstream.open(url, user="me", password="secret")
    assert ndstream.open(url).connection is first.connection
    assert ndstream.open(url, user="me").connection is second.connection
    assert ndstream.open(url, user="me", password="new").connection is not second.connection
    assert "secret" not in repr(second.connection) + repr(vars(second.connection))
    assert "authorization" not in server.asked[0].headers
    assert server.asked[1].headers["authorization"] == BASIC


def test_a_wrong_password_is_not_remembered(field: StartField) -> None:
    server = field({("", None): directory({}, {})})
    right = server.script
    server.script = lambda asked: (
        right(asked)
        if asked.headers.get("authorization") == BASIC
        else Answer(b"<html>", 401, "text/html", {"WWW-Authenticate": 'Basic realm="x"'})
    )
    with pytest.raises(NotAuthenticated):
        ndstream.open(server.url, user="me", password="wrong")
    assert len(ndstream.open(server.url, user="me", password="secret")) == 0


def test_a_password_comes_from_the_first_source_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("from file\n")
    token.chmod(0o600)
    kept = {("ndstream s", "me"): "from keyring"}
    errors = SimpleNamespace(KeyringError=RuntimeError)
    keyring = SimpleNamespace(
        errors=errors,
        get_password=lambda service, user: kept.get((service, user)),
        set_password=lambda service, user, password: kept.update({(service, user): password}),
    )
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    assert PasswordSources(known="given", token_file=token, keyring=True).find("s", "me") == "given"
    assert PasswordSources(token_file=token, keyring=True).find("s", "me") == "from file"
    assert PasswordSources(keyring=True).find("s", "me") == "from keyring"
    PasswordSources(keyring=True).keep("s", "you", "new")
    PasswordSources().keep("s", "nobody", "new")
    assert kept == {("ndstream s", "me"): "from keyring", ("ndstream s", "you"): "new"}


def test_a_keyring_that_does_not_work_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("no desktop")

    errors = SimpleNamespace(KeyringError=RuntimeError)
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(errors=errors, get_password=fail, set_password=fail))
    PasswordSources(keyring=True).keep("s", "me", "x")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(NotAuthenticated, match="password"):
        PasswordSources(keyring=True).find("s", "me")


def test_the_terminal_is_asked_only_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: f"typed for {prompt}")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert PasswordSources().find("s", "me") == "typed for Password of me at s: "
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(NotAuthenticated):
        PasswordSources().find("s", "me")


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(token)
    token.chmod(stat.S_IRUSR)
    assert read_token(token) == "secret"
    for wrong in ("", "x" * 5000):
        token.chmod(0o600)
        token.write_text(wrong)
        with pytest.raises(ConfigError):
            read_token(token)
    with pytest.raises(ConfigError):
        read_token(tmp_path / "none")


def test_credentials_do_not_show_the_password() -> None:
    assert "secret" not in repr(Credentials("me", "secret"))
    assert "secret" not in repr(PasswordSources(known="secret"))
    assert Credentials().headers() == {}


def test_settings_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(
        '[client]\nkeyring = true\ntoken_file = "token"\n\n[limits]\nretries = 7\n\n'
        '[aliases.lab]\nurl = "http://host:8000"\nuser = "me"\n'
    )
    config = client_settings({"NDSTREAM_CLIENT_CONFIG": str(file), "NDSTREAM_PASSWORD": "secret"})
    assert config.passwords == PasswordSources(known="secret", token_file=tmp_path / "token", keyring=True)
    assert config.limits.retries == 7
    assert config.verify is True
    assert config.aliases["lab"].url == "http://host:8000"
    assert "cosma" in config.aliases
    over = client_settings({"NDSTREAM_CLIENT_CONFIG": str(file), "NDSTREAM_CLIENT_VERIFY": "false"})
    assert over.verify is False


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[client]\nverify = 3\n", 2),
        ("[client]\n\nverifi = true\n", 3),
        ("[aliases.lab]\nuser = 'me'\n", 1),
        ('[aliases."a/b"]\nurl = "http://host"\n', 1),
        ('[aliases.lab]\nurl = "http://host"\nuse_keyrng = true\n', 3),
        ('[aliases]\nlab = "http://host"\n', 2),
        ("\naliases = 3\n", 2),
        ("[other]\n", 1),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "client.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"client.toml:{line}:"):
        client_settings({"NDSTREAM_CLIENT_CONFIG": str(file)})


def test_certificates_are_checked_until_told_otherwise() -> None:
    assert ndstream.get_config().verify is True
    ndstream.verify_cert(False)
    assert ndstream.get_config().verify is False


def test_local_and_remote_files_are_opened_by_the_same_call(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.arange(3)
    server = ndstream_server(tmp_path)
    for place in (f"{server.url}/f.h5", str(tmp_path / "f.h5")):
        with ndstream.open_any(place) as opened:
            assert opened["x"][1] == 1

    class Reader(ndstream.LocalOrRemoteFile):
        def total(self, name: str) -> int:
            with self.open_file(name) as opened:
                return int(opened["x"][:].sum())

    reader = Reader()
    assert reader.total(str(tmp_path / "f.h5")) == 3
    reader.set_directory(ndstream.open(server.url))
    assert reader.total("f.h5") == 3
    with pytest.raises(NotFound):
        ndstream.open_any(str(tmp_path / "none.h5"))
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    with pytest.raises(Corrupt):
        ndstream.open_any(str(tmp_path / "bad.h5"))


def test_a_client_goes_on_when_its_server_was_started_again(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.arange(100_000)
    server = ndstream_server(tmp_path)
    data = ndstream.open(server.url, "f.h5", data_size_limit=0)["x"]
    assert data[5] == 5
    server.stop()
    with pytest.raises(ConnectionError):
        data[6]
    ndstream_server(tmp_path, port=server.port)
    assert data[7] == 7


def test_objects_reach_other_processes(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.arange(100_000)
    server = ndstream_server(tmp_path)
    data: Any = ndstream.open(server.url, "f.h5", data_size_limit=0)["x"]
    import pickle

    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer)[99_999])"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(data), capture_output=True, check=True)
    assert done.stdout.split() == [b"99999"]
