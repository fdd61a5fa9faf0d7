"""Who the user is, and where a password comes from when it was not given."""

from __future__ import annotations

import getpass
import logging
import os
import stat
import sys
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ndstream.errors import ConfigError, MissingExtra, NotAuthenticated

_LONGEST_PASSWORD = 4096
PASSWORD_VARIABLE = "NDSTREAM_PASSWORD"  # noqa: S105 - a name, not a password
"""Environment variable that may hold the password; `ndstream.config` reads it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user, or nobody, and the password; it is never shown."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """Headers that let the user in (HTTP Basic, as the deployed servers have it)."""
        if self.user is None:
            return {}
        told = f"{self.user}:{self.password or ''}".encode()
        return {"Authorization": f"Basic {b64encode(told).decode()}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSources:
    """Where to look for a password, in this order: `known`, `token_file`, the keyring, the terminal.

    `known` comes from the environment. `token_file` holds nothing but the password and must be readable for its
    owner only. The keyring is asked only if `keyring` is set, the terminal only if there is one.
    """

    known: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    keyring: bool = False

    def find(self, server: str, user: str) -> str:
        """Find the password of a user.

        Raises
        ------
        NotAuthenticated
            There is none to be found.
        ConfigError
            The token file cannot be read, or by others too.
        MissingExtra
            The keyring is to be used and not installed.
        """
        if self.known is not None:
            return self.known
        if self.token_file is not None:
            return read_token(self.token_file)
        if self.keyring and (kept := _keyring().get_password(server, user)) is not None:
            return str(kept)
        if sys.stdin is not None and sys.stdin.isatty():
            return getpass.getpass(f"Password of {user} at {server}: ")
        raise NotAuthenticated(
            f"{server}: no password for user {user!r}: give password=, a token file, or {PASSWORD_VARIABLE}"
        )

    def keep(self, server: str, user: str, password: str) -> None:
        """Put a password that worked into the keyring, if that is to be used."""
        if not self.keyring:
            return
        keyring = _keyring()
        if keyring.get_password(server, user) != password:
            keyring.set_password(server, user, password)


def read_token(path: Path) -> str:
    """Read the password that a file holds, without white space around it.

    Raises
    ------
    ConfigError
        It cannot be read, is empty or far too long, or others than its owner may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{path}: others can read this password: chmod 600 {path}")
            token = file.read(_LONGEST_PASSWORD + 1).decode().strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
    if not token or len(token) > _LONGEST_PASSWORD:
        raise ConfigError(f"{path}: holds no password")
    return token


def _keyring() -> Any:
    try:
        import keyring
    except ImportError as error:
        raise MissingExtra("passwords in the keyring need: pip install ndstream[keyring]") from error
    return _Quiet(keyring)


class _Quiet:
    """A keyring that is not there holds nothing: a machine without a desktop has none."""

    def __init__(self, keyring: Any) -> None:
        self._keyring = keyring

    def get_password(self, server: str, user: str) -> str | None:
        try:
            found: str | None = self._keyring.get_password(_service(server), user)
        except self._keyring.errors.KeyringError as error:
            _log.info("the keyring cannot be used: %s", error)
            return None
        return found

    def set_password(self, server: str, user: str, password: str) -> None:
        try:
            self._keyring.set_password(_service(server), user, password)
        except self._keyring.errors.KeyringError as error:
            _log.info("the keyring cannot be used: %s", error)


def _service(server: str) -> str:
    return f"ndstream {server}"
