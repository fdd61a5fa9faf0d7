"""Users of a server: a file of names, argon2 hashes and roles, one user a line.

::

    # name:hash:roles
    alice:$argon2id$v=19$m=65536,t=3,p=4$…$…:eagle,collaborators

The file is replaced as a whole, so that a reader sees one state of it, and is for its owner only.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError

from ndstream.core.limits import MiB
from ndstream.errors import ConfigError, InvalidRequest, NotFound

_LARGEST_FILE = 16 * MiB
_LONGEST_PASSWORD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One user; `hash` is in argon2's own notation, salt included."""

    name: str
    hash: str
    roles: frozenset[str] = frozenset()


def read_users(path: Path) -> dict[str, User]:
    """Read the users in `path`, by name; none when there is no such file.

    Raises
    ------
    ConfigError
        The file cannot be read or understood, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    # A group may be let in on purpose (a service account), the world never.
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise ConfigError(f"{path}: password hashes that others may read or change; chmod 600 {path}")
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{path}: longer than {_LARGEST_FILE} bytes")
    users: dict[str, User] = {}
    for number, line in enumerate(content.decode(errors="replace").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            user = _parse(line)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
        if user.name in users:
            raise ConfigError(f"{path}:{number}: {user.name} is there twice")
        users[user.name] = user
    return users


def add_user(path: Path, name: str, password: str, roles: Iterable[str] = ()) -> User:
    """Add a user, making the file (mode 0600) when it is not there.

    Raises
    ------
    InvalidRequest
        The name, password or a role cannot be one, or the user exists.
    """
    user = User(name=_checked_name(name), roles=_checked_roles(roles), hash=hash_password(password))

    def change(users: dict[str, User]) -> None:
        if name in users:
            raise InvalidRequest(f"{name}: there is a user of that name")
        users[name] = user

    _change(path, change)
    return user


def remove_user(path: Path, name: str) -> None:
    """Remove a user.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    _change(path, lambda users: users.__delitem__(_existing(users, name).name))


def set_password(path: Path, name: str, password: str) -> None:
    """Give a user another password.

    Raises
    ------
    NotFound
        There is no user of that name.
    InvalidRequest
        The password cannot be one.
    """
    hashed = hash_password(password)
    _change(path, lambda users: users.update({name: replace(_existing(users, name), hash=hashed)}))


def set_roles(path: Path, name: str, roles: Iterable[str]) -> None:
    """Give a user these roles in place of those they have.

    Raises
    ------
    NotFound
        There is no user of that name.
    InvalidRequest
        A role cannot be one.
    """
    checked = _checked_roles(roles)
    _change(path, lambda users: users.update({name: replace(_existing(users, name), roles=checked)}))


def hash_password(password: str) -> str:
    """Hash with argon2id as argon2-cffi advises (64 MiB, about 50 ms).

    Raises
    ------
    InvalidRequest
        The password is empty or longer than 1024 bytes.
    """
    if not password or len(password.encode()) > _LONGEST_PASSWORD:
        raise InvalidRequest(f"a password has between 1 and {_LONGEST_PASSWORD} bytes")
    return PasswordHasher().hash(password)


class UserFile:
    """The users of a file, read again when it changes.

    Parameters
    ----------
    path : Path
        The file need not exist.

    Raises
    ------
    ConfigError
        The file is there and wrong. Once it was read, a wrong one leaves the users as they were.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _state(path)
        self.users: Mapping[str, User] = self.read(path)

    @staticmethod
    def read(path: Path) -> Mapping[str, User]:
        """Read what is in the file."""
        return read_users(path)

    def refresh(self) -> bool:
        """Look at the file; say whether the users were read again.

        Raises
        ------
        ConfigError
            The file has changed and is wrong; said once for each change.
        """
        state = _state(self.path)
        if state == self._state:
            return False
        self._state = state
        self.users = self.read(self.path)
        return True


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - on the way of every request with a password; Path.stat costs twice
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _change(path: Path, change: Callable[[dict[str, User]], None]) -> None:
    """Apply `change` to the users of the file, nobody else changing it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent) as directory:
        users = read_users(path)
        change(users)
        _replace(path, "".join(map(_format, users.values())))
        os.fsync(directory)


@contextmanager
def _alone(directory: Path) -> Iterator[int]:
    """Hold the lock of a directory; gives its descriptor."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    """Put `text` in place of the file, in one step; mkstemp gives mode 0600."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("# name:hash:roles - written by `ndstream user`\n" + text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _parse(line: str) -> User:
    parts = line.strip().split(":")
    if len(parts) != 3:
        raise ValueError("expected name:hash:roles")
    name, hashed, roles = parts
    try:
        extract_parameters(hashed)
    except InvalidHashError as error:
        raise ValueError(f"{name}: the hash is not one of argon2; set it with `ndstream user passwd`") from error
    return User(name=_checked_name(name), hash=hashed, roles=_checked_roles(filter(None, roles.split(","))))


def _format(user: User) -> str:
    return f"{user.name}:{user.hash}:{','.join(sorted(user.roles))}\n"


def _existing(users: Mapping[str, User], name: str) -> User:
    if name not in users:
        raise NotFound(f"{name}: no user of that name")
    return users[name]


def _checked_name(name: str) -> str:
    # HTTP Basic splits at the first colon, the file at every one, and "#" begins a comment.
    if not 0 < len(name) <= 255 or not name.isprintable() or set(name) & set(":,#") or name != name.strip():
        raise InvalidRequest(f"{name!r} cannot be the name of a user: no blanks around it, no colon, comma or #")
    return name


def _checked_roles(roles: Iterable[str]) -> frozenset[str]:
    checked = frozenset(roles)
    for role in checked:
        if not role or not role.isprintable() or set(role) & set(":, #"):
            raise InvalidRequest(f"{role!r} cannot be a role: no blank, colon, comma or #")
    return checked
