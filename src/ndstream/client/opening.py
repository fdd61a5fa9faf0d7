"""From an address to a remote directory or file."""

from __future__ import annotations

from dataclasses import replace

from ndstream.client.address import parse_address
from ndstream.client.connection import Connection, Reopen
from ndstream.client.credentials import Credentials
from ndstream.client.directories import RemoteDirectory
from ndstream.client.files import RemoteFile
from ndstream.client.groups import DATA_SIZE_LIMIT, MAX_DEPTH
from ndstream.client.hdfstream import cached, connect
from ndstream.client.settings import Alias, Config
from ndstream.core.model import Directory


def open_remote(
    url: str,
    name: str,
    *,
    user: str | None,
    password: str | None,
    config: Config,
    reopen: Reopen,
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
    connection = connection_to(address.base, alias, password, config, reopen)
    found = connection.lookup(address.path)
    if isinstance(found, Directory):
        return RemoteDirectory(connection, address.path, max_depth, data_size_limit, found)
    return RemoteFile(connection, address.path, max_depth, data_size_limit, found)


def connection_to(base: str, alias: Alias, password: str | None, config: Config, reopen: Reopen) -> Connection:
    """Connect to a server as the user of an alias, or give the connection that there is.

    Raises
    ------
    NotAuthenticated, TransportError, TimedOut, ServiceError
    """
    user = alias.user
    if password is None:
        known = cached(base, user, verify=config.verify, limits=config.limits)
        if known is not None:
            return known
    sources = replace(config.passwords, keyring=config.passwords.keyring or alias.use_keyring)
    if user is not None and password is None:
        password = sources.find(base, user)
    connection = connect(base, Credentials(user, password), verify=config.verify, limits=config.limits, reopen=reopen)
    if user is not None and password is not None:
        sources.keep(base, user, password)
    return connection
