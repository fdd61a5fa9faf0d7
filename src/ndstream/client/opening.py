"""From an address to a remote directory or file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ndstream.client.address import NATIVE, PREFIX, Address, parse_address
from ndstream.client.connection import Connection, Reopen
from ndstream.client.connections import cached, shared
from ndstream.client.credentials import Credentials, PasswordSources
from ndstream.client.directories import RemoteDirectory
from ndstream.client.files import RemoteFile
from ndstream.client.groups import DATA_SIZE_LIMIT, MAX_DEPTH
from ndstream.client.hdfstream import HDFStreamConnection
from ndstream.client.native import NativeConnection
from ndstream.client.settings import Alias, Config
from ndstream.client.writable import NEW, WritableFile, check_mode, must_make
from ndstream.core.model import Directory, File
from ndstream.errors import Conflict, Exists, NotAuthenticated, NotFound, ProtocolError, RequestError


def open_remote(
    url: str,
    name: str,
    *,
    user: str | None,
    password: str | None,
    config: Config,
    reopen: Reopen,
    mode: str = "r",
    max_depth: int = MAX_DEPTH,
    data_size_limit: int = DATA_SIZE_LIMIT,
) -> RemoteDirectory | RemoteFile:
    """Open what is at `name` on a server; see `ndstream.open`.

    Parameters
    ----------
    config : Config
        Aliases, where passwords are, whom to trust, limits.
    reopen : callable
        How another process connects when it gets a pickle of what is opened here.
    """
    alias = config.resolve_alias(url, user)
    address = parse_address(alias.url, name)
    connection = best_connection(address, alias, password, config, reopen)
    if mode != "r":
        return _writable(connection, address.path, mode, max_depth)
    found = connection.lookup(address.path)
    if isinstance(found, Directory):
        return RemoteDirectory(connection, address.path, max_depth, data_size_limit, found)
    return RemoteFile(connection, address.path, max_depth, data_size_limit, found)


def _writable(connection: Connection, path: str, mode: str, max_depth: int) -> WritableFile:
    """Open a file for writing, or make it, as the mode says."""
    check_mode(mode)
    place = f"{connection.server}: /{path}"
    found: Directory | File | None = None
    with suppress(NotFound):
        found = connection.lookup(path)
    if must_make(found, place, mode):
        with new_file(place):
            connection.apply(path, [], create=True, condition=None if mode == "a" else NEW)
        found = connection.lookup(path)
    return WritableFile(connection, path, max_depth, 0, found if isinstance(found, File) else None)


@contextmanager
def new_file(place: str) -> Iterator[None]:
    """Say, when a file cannot be made on condition that it is new, that somebody else has made it.

    Raises
    ------
    Exists
    """
    try:
        yield
    except Conflict as error:
        raise Exists(f"{place} has been made meanwhile") from error


def connection_to(base: str, alias: Alias, password: str | None, config: Config, reopen: Reopen) -> Connection:
    """Connect to a server as the user of an alias, or give the connection that there is.

    What is spoken is said by the last component of `base`.

    Raises
    ------
    NotAuthenticated, TransportError, TimedOut, ServiceError
    """
    if password is None:
        known = cached(base, alias.user, verify=config.verify, limits=config.limits)
        if known is not None:
            return known
        password = password_of(base, alias, config)
    make = NativeConnection if base.endswith(f"/{NATIVE}") else HDFStreamConnection
    credentials = Credentials(alias.user, password)
    connection = shared(make, base, credentials, verify=config.verify, limits=config.limits, reopen=reopen)
    if alias.user is not None and password is not None:
        _sources(alias, config).keep(_account(base), alias.user, password)
    return connection


def best_connection(address: Address, alias: Alias, password: str | None, config: Config, reopen: Reopen) -> Connection:
    """Connect in the native protocol if the server has it and the address does not say otherwise, else in hdfstream.

    Raises
    ------
    NotAuthenticated, TransportError, TimedOut, ServiceError
    """
    bases = [base for base in (address.native, address.base) if base is not None]
    if password is None:
        for base in bases:
            known = cached(base, alias.user, verify=config.verify, limits=config.limits)
            if known is not None:
                return known
        password = password_of(address.base, alias, config)
    if address.native is not None:
        try:
            return connection_to(address.native, alias, password, config, reopen)
        except NotAuthenticated:
            raise
        except (RequestError, ProtocolError):
            pass  # not one of ours: it has no such endpoint
    return connection_to(address.base, alias, password, config, reopen)


def password_of(base: str, alias: Alias, config: Config) -> str | None:
    """Find the password of the user of an alias, wherever passwords are; None for nobody."""
    return None if alias.user is None else _sources(alias, config).find(_account(base), alias.user)


def _sources(alias: Alias, config: Config) -> PasswordSources:
    return replace(config.passwords, keyring=config.passwords.keyring or alias.use_keyring)


def _account(base: str) -> str:
    """Name under which the password of a server is kept, whatever is spoken with it."""
    return f"{base.removesuffix(NATIVE)}{PREFIX}" if base.endswith(f"/{NATIVE}") else base
