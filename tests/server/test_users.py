from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from ndstream.errors import ConfigError, InvalidRequest, NotFound
from ndstream.server import users
from ndstream.server.users import (
    UserFile,
    add_user,
    hash_password,
    read_users,
    remove_user,
    set_password,
    set_roles,
)

from .conftest import CHEAP


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "PasswordHasher", lambda: CHEAP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "users"


def test_a_missing_file_has_no_users(path: Path) -> None:
    assert read_users(path) == {}


def test_what_was_added_is_read_again(path: Path) -> None:
    added = add_user(path, "alice", "pässword", ["staff", "eagle"])
    assert read_users(path) == {"alice": added}
    assert added.roles == {"staff", "eagle"}
    assert PasswordHasher().verify(added.hash, "pässword")


def test_hashes_are_as_expensive_as_argon2_advises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    hashed = hash_password("x")
    assert hashed.startswith("$argon2id$")
    assert not PasswordHasher().check_needs_rehash(hashed)


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    add_user(path, "alice", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["users"]


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    add_user(path, "alice", "x")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_users(path)


def test_users_are_changed_and_removed(path: Path) -> None:
    before = add_user(path, "alice", "x", ["staff"])
    add_user(path, "bob", "y")
    set_password(path, "alice", "z")
    set_roles(path, "bob", ["guest"])
    after = read_users(path)
    assert after["alice"].hash != before.hash
    assert after["alice"].roles == {"staff"}
    assert after["bob"].roles == {"guest"}
    remove_user(path, "alice")
    assert list(read_users(path)) == ["bob"]


def test_what_cannot_be_is_refused_and_changes_nothing(path: Path) -> None:
    add_user(path, "alice", "x")
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match="there is a user of that name"):
        add_user(path, "alice", "y")
    for name in ("", "a:b", "a\nb", " a", "#a", "a" * 300):
        with pytest.raises(InvalidRequest):
            add_user(path, name, "y")
    with pytest.raises(InvalidRequest, match="password"):
        add_user(path, "bob", "")
    with pytest.raises(InvalidRequest, match="role"):
        add_user(path, "bob", "y", ["a,b"])
    with pytest.raises(NotFound):
        remove_user(path, "bob")
    with pytest.raises(NotFound):
        set_password(path, "bob", "y")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alice", "users:2: expected name:hash:roles"),
        ("alice:plain:", "users:2: alice: the hash is not one of argon2"),
        ("a b :$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA:", "users:2: 'a b ' cannot be the name"),
    ],
)
def test_a_wrong_line_is_told(path: Path, line: str, message: str) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(f"# users\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_users(path)


def test_several_processes_add_users_at_the_same_time_and_all_are_there(path: Path) -> None:
    script = "import sys; from pathlib import Path; from ndstream.server.users import add_user\n"
    script += "for n in range(2): add_user(Path(sys.argv[1]), f'{sys.argv[2]}{n}', 'x')"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(read_users(path)) == ["a0", "a1", "b0", "b1"]


def test_changes_are_noticed_and_wrong_ones_told_once(path: Path) -> None:
    file = UserFile(path)
    assert not file.refresh()
    alice = add_user(path, "alice", "x")
    assert file.refresh()
    assert not file.refresh()
    path.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        file.refresh()
    assert not file.refresh()
    assert file.users == {"alice": alice}
    path.unlink()
    assert file.refresh()
    assert file.users == {}
