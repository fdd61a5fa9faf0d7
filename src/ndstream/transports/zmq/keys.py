"""Keys of CURVE, which encrypts streams and says who may take part.

Key files are the certificates of ``zmq.auth``: ``NAME.key`` holds the public key, ``NAME.key_secret`` both keys. A key
is 40 characters of Z85, 32 bytes.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import zmq
import zmq.auth
from zmq.utils import z85

from ndstream.errors import ConfigError, Exists

Key: TypeAlias = "str | bytes | os.PathLike[str]"
"""A public key in Z85, or the path of a file that holds it."""

ZAP_DOMAIN = "ndstream"
"""Names who is asked whether a key is allowed; without a name, nobody would be."""

_LENGTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Keys of one end of a stream, in Z85.

    Attributes
    ----------
    public, secret : bytes
        Its own.
    server : bytes or None
        Public key of the other end, which this one checks. Without it, this end is the one that is checked.
    allowed : frozenset of bytes or None
        Public keys of those who may connect; None lets everybody who knows the key of this end.
    """

    public: bytes
    secret: bytes
    server: bytes | None = None
    allowed: frozenset[bytes] | None = None

    @classmethod
    def of(
        cls, key: str | os.PathLike[str] | None, server_key: Key | None, allowed_keys: Iterable[Key] | None
    ) -> Self | None:
        """Read what a user named; None when it is nothing.

        Parameters
        ----------
        key : path, optional
            File of the secret key. An end that has `server_key` may go without: it makes a pair for itself.
        server_key : str, bytes or path, optional
        allowed_keys : iterable of str, bytes or path, optional
            A directory stands for all ``*.key`` in it.

        Raises
        ------
        ConfigError
            A file cannot be read, is no key, or others may read the secret; or the roles contradict each other.
        """
        if key is None and server_key is None:
            if allowed_keys is not None:
                raise ConfigError("allowed_keys need a key of this end: key=")
            return None
        if server_key is not None and allowed_keys is not None:
            raise ConfigError("server_key makes this end the one that asks, allowed_keys the one that is asked")
        public, secret = zmq.curve_keypair() if key is None else _pair(Path(key))
        server = None if server_key is None else public_key(server_key)
        allowed = None if allowed_keys is None else frozenset(_all(allowed_keys))
        return cls(public=public, secret=secret, server=server, allowed=allowed)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set the options of a socket that is not yet in use."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        if self.server is not None:
            socket.curve_serverkey = self.server
        else:
            socket.curve_server = True
            if self.allowed is not None:
                socket.zap_domain = ZAP_DOMAIN.encode()


def generate(directory: Path, name: str) -> tuple[Path, Path]:
    """Make a pair of keys in two files.

    Returns
    -------
    public, secret : Path
        ``NAME.key``, readable for all, and ``NAME.key_secret``, for the owner only.

    Raises
    ------
    Exists
        One of them is there already; nothing was changed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    public, secret = directory / f"{name}.key", directory / f"{name}.key_secret"
    # What is made elsewhere and linked is never readable for others, and replaces nothing.
    with tempfile.TemporaryDirectory(dir=directory) as closed:
        made_public, made_secret = map(Path, zmq.auth.create_certificates(closed, "pair"))
        made_public.chmod(0o644)
        made_secret.chmod(0o600)
        try:
            secret.hardlink_to(made_secret)
        except FileExistsError as error:
            raise Exists(f"{secret} is there already") from error
        try:
            public.hardlink_to(made_public)
        except FileExistsError as error:
            secret.unlink()
            raise Exists(f"{public} is there already") from error
    return public, secret


def public_key(key: Key) -> bytes:
    """Public key in Z85, given as such or as a file.

    Raises
    ------
    ConfigError
    """
    if isinstance(key, str | bytes) and len(key) == _LENGTH:
        text = key.encode() if isinstance(key, str) else key
        try:
            z85.decode(text)
        except (KeyError, ValueError):
            pass  # then it is a path of that length
        else:
            return text
    return _load(Path(os.fsdecode(key)))[0]


def _pair(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load(path)
    if secret is None:
        raise ConfigError(f"{path}: holds no secret key; that is in the file that ends with .key_secret")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path}: others can read this key: chmod 600 {path}")
    return public, secret


def _all(keys: Iterable[Key]) -> Iterable[bytes]:
    for key in [keys] if isinstance(keys, str | bytes | os.PathLike) else keys:
        if not isinstance(key, bytes) and Path(key).is_dir():
            yield from (public_key(path) for path in sorted(Path(key).glob("*.key")))
        else:
            yield public_key(key)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no key can be read: {error}") from error
