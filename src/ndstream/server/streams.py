"""Protocols over TCP ports of their own, beside HTTP: who may come in, on which sockets, over which file."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError

from ndstream.config import Config, StreamSettings
from ndstream.core import registry
from ndstream.core.ports import Access, Detail, Exposure, Service, StreamApp, StreamPlugin
from ndstream.errors import ConfigError, DataError, NDStreamError, NotFound
from ndstream.server.auth import Authenticator
from ndstream.server.listen import bind, is_loopback, tls_context, url_of
from ndstream.server.users import User, UserFile, hash_password

log = logging.getLogger("ndstream.server")

_LONGEST_TOKEN = 4096
_BEARER = "token"


class TokenFile(UserFile):
    """A file with one token, plain or as Argon2 hash; read again when it changes.

    It takes the place of a file of users that has one user, whose password is the token.

    Raises
    ------
    ConfigError
        It is not there, holds no token, or others may read it.
    """

    @staticmethod
    def read(path: Path) -> Mapping[str, User]:
        """Read the token."""
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(_LONGEST_TOKEN).decode(errors="replace").strip()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        if mode & (stat.S_IWGRP | stat.S_IRWXO):
            raise ConfigError(f"{path}: a token that others may read or change; chmod 600 {path}")
        if not text:
            raise ConfigError(f"{path}: holds no token")
        try:
            extract_parameters(text)
        except InvalidHashError:
            text = hash_password(text)
        return {_BEARER: User(name=_BEARER, hash=text)}


class Gatekeeper:
    """Lets in over TCP whom the server lets in over HTTP, and whoever has the token; see `Admission` of the ports.

    Whoever has the token sees everything, and may write wherever anybody may.
    """

    def __init__(self, users: Authenticator, tokens: Authenticator | None) -> None:
        self._users = users
        self._tokens = tokens

    @property
    def required(self) -> bool:
        """Whether there is a token."""
        return self._tokens is not None

    def anonymous(self, address: str) -> Access:
        """Access without a token."""
        return self._users.anonymous(address)

    async def check(self, secret: str, user: str | None, address: str) -> Access:
        """Access with a token, or with the password of a user."""
        if user is None and self._tokens is None:
            return self._users.anonymous(address)
        authenticator = self._users if user is not None or self._tokens is None else self._tokens
        credentials = b"Basic " + b64encode(f"{_BEARER if user is None else user}:{secret}".encode())
        return authenticator.remembered(credentials) or await authenticator.check(credentials, address)

    def close(self) -> None:
        """End the threads."""
        if self._tokens is not None:
            self._tokens.close()


class Stream:
    """One protocol on its sockets, which listen from the moment this is made.

    Parameters
    ----------
    name : str
        In the registry, and of its section of the configuration.
    config : Config
    service : Service
    users : Authenticator

    Raises
    ------
    ConfigError
        A setting is wrong, the port is taken, or it would be open to everybody.
    """

    def __init__(self, name: str, config: Config, service: Service, users: Authenticator) -> None:
        settings, server = config.streams[name], config.server
        assert settings.port is not None
        self.name = name
        self._backlog = server.backlog
        self._tls = tls_context(server)
        plugin: StreamPlugin = registry.load(registry.STREAMS, name)
        self._path = _path(name, config, settings)
        self._store = service.store
        self._gate = Gatekeeper(users, _tokens(config, settings))
        self._servers: list[asyncio.Server] = []
        try:
            self.app: StreamApp = plugin.app(service, Exposure(path=self._path, admission=self._gate))
            self.sockets = bind(server.host, settings.port, server.backlog, section=name)
        except BaseException:
            self._gate.close()
            raise
        self.port: int = self.sockets[0].getsockname()[1]
        self.url = url_of(server.host, self.port, tls=self._tls is not None, scheme="tcp")
        if not is_loopback(self.sockets) and not (self._gate.required or self._tls is not None or settings.public):
            self.close()
            raise ConfigError(
                f"{name}.port: other machines could reach it: set {name}.token_file, server.certificate, "
                f"or {name}.public = true when everybody is meant"
            )

    async def check(self) -> None:
        """Make sure that there is a file to serve.

        Raises
        ------
        ConfigError
            There is none, or it is no HDF5 file. One that cannot be read just now is for those who ask to wait for.
        """
        try:
            await self._store.describe(self._path, "/", Access(), Detail())
        except (NotFound, DataError) as error:
            raise ConfigError(f"{self.name}.file: {self._path} cannot be served over TCP: {error}") from error
        except NDStreamError as error:
            log.warning("%s cannot be read yet: %s", self._path, error)

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        for one in self.sockets:
            self._servers.append(
                await loop.create_server(self.app.connection, sock=one, ssl=self._tls, backlog=self._backlog)
            )

    async def stop(self, seconds: float) -> None:
        """Accept no more, and let what is under way end."""
        for server in self._servers:
            server.close()
        await self.app.drain(seconds)

    def close(self) -> None:
        """Close the sockets; safe to call more than once."""
        self._gate.close()
        for one in self.sockets:
            one.close()


def open_streams(config: Config, service: Service, users: Authenticator) -> list[Stream]:
    """Listen for every protocol that has a port.

    Raises
    ------
    ConfigError
    """
    opened: list[Stream] = []
    try:
        for name, settings in config.streams.items():
            if settings.port is not None:
                opened.append(Stream(name, config, service, users))
    except BaseException:
        for stream in opened:
            stream.close()
        raise
    return opened


def _path(name: str, config: Config, settings: StreamSettings) -> str:
    """Virtual path of the file that is served: what was said, else the only root when that is a file."""
    path = settings.file.strip("/")
    if path:
        if path.partition("/")[0] not in config.roots and "" not in config.roots:
            raise ConfigError(f"{name}.file: nothing is served as {path!r}")
        return path
    files = [root for root, place in config.roots.items() if root and place.is_file()]
    if len(files) != 1 or len(config.roots) != 1:
        raise ConfigError(f"{name}.file: one HDF5 file is served over TCP: say which, by its virtual path")
    return files[0]


def _tokens(config: Config, settings: StreamSettings) -> Authenticator | None:
    if settings.token_file is None:
        return None
    everywhere = {path: frozenset[str]() for path in config.writable}
    return Authenticator(TokenFile(settings.token_file), {}, everywhere)
