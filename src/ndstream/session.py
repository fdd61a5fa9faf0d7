"""What a user of the library calls first: `open` and the settings of this process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ndstream.client.address import parse_address
from ndstream.client.connection import Connection
from ndstream.client.credentials import Credentials
from ndstream.client.groups import DATA_SIZE_LIMIT, MAX_DEPTH
from ndstream.client.local import open_local
from ndstream.client.opening import connection_to, open_remote, password_of
from ndstream.client.settings import Alias, Config
from ndstream.config import client_settings
from ndstream.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from ndstream.client.aio import Opening
    from ndstream.client.aio_connection import AioConnection

_config: Config | None = None


def get_config() -> Config:
    """Settings of the clients of this process; read from file and environment when first asked for.

    Raises
    ------
    ConfigError
    """
    global _config
    if _config is None:
        _config = client_settings()
    return _config


def set_config(config: Config | None) -> None:
    """Replace the settings of the clients of this process; None reads them again. What is open keeps the old ones."""
    global _config
    _config = config


def verify_cert(enable: bool | str) -> None:
    """Check the certificates of servers opened from now on, or not; a path names a PEM file of those to trust."""
    get_config().verify = enable


def open(  # noqa: A001 - the name that users of h5py and hdfstream look for
    url: str,
    name: str = "/",
    user: str | None = None,
    password: str | None = None,
    max_depth: int = MAX_DEPTH,
    data_size_limit: int = DATA_SIZE_LIMIT,
    *,
    mode: str = "r",
    timeout: float | None = None,
    retries: int | None = None,
    verify: bool | str | None = None,
    block_cache: int | None = None,
) -> Any:
    """Open a directory or a file of a server: of ours, or of any that speaks hdfstream.

    Parameters
    ----------
    url : str
        ``http://host:port``, with or without ``/hdfstream`` and a path behind it, or the alias of a server.
    name : str
        Path on the server.
    user, password : str, optional
        Without a password it is looked for in the environment, a token file, the keyring, and asked for in a terminal.
    max_depth : int
        How far down one request describes groups.
    data_size_limit : int, bytes
        Data of datasets up to this size come along with their description.
    mode : str
        "r"; "r+" to write to a file; "a" to make it when it is not there; "x" to make it, and it must not be there.
        Only servers of ours can be written to.
    timeout : float, optional, seconds
        How long the server may say nothing.
    retries : int, optional
        How often a request is repeated when the connection is lost.
    verify : bool or str, optional
        Whether its certificate is checked; a path names a file of those to trust.
    block_cache : int, optional, bytes
        What may be kept of the data that were read, for small reads in the same places; 0 is nothing, as long as the
        settings do not say otherwise. What is kept is not given before the server said that it is still so.

    Returns
    -------
    RemoteDirectory or RemoteFile, or with another mode than "r" WritableFile
        Connections are shared: the same server and user open nothing twice.

    Raises
    ------
    NotFound
        There is nothing at `name`.
    NotAuthenticated, CertificateError, ConnectFailed, TimedOut, Busy, InvalidRequest

    Examples
    --------
    >>> import ndstream
    >>> archive = ndstream.open("http://127.0.0.1:8000")  # doctest: +SKIP
    >>> archive["simulation/snapshot.hdf5"]["PartType1/Coordinates"][:10]  # doctest: +SKIP
    """
    return open_remote(
        url,
        name,
        user=user,
        password=password,
        config=_configured(timeout, retries, verify, block_cache),
        reopen=reopen,
        mode=mode,
        max_depth=max_depth,
        data_size_limit=data_size_limit,
    )


def aopen(
    url: str,
    name: str = "/",
    user: str | None = None,
    password: str | None = None,
    *,
    mode: str = "r",
    timeout: float | None = None,
    retries: int | None = None,
    verify: bool | str | None = None,
    block_cache: int | None = None,
) -> Opening:
    """Open a directory or a file of a server of ours, for asynchronous programs.

    Parameters
    ----------
    url, name, user, password, mode, timeout, retries, verify, block_cache
        See `open`.

    Returns
    -------
    Opening
        Await it, or use it with ``async with``, for an `AsyncDirectory` or `AsyncFile` (`ndstream.client.aio`). One
        pool of connections is behind all that is reached from it, and any number of tasks may read and write at once.
        A task that is cancelled leaves nothing open; whether what it had begun to write is written, others see.

    Raises
    ------
    MissingExtra
        aiohttp is not installed.
    InvalidRequest
        The address says that hdfstream is to be spoken.
    NDStreamError
        When awaited, as `open`.

    Examples
    --------
    >>> async with ndstream.aopen("http://127.0.0.1:8000", "run/scan.h5") as file:  # doctest: +SKIP
    ...     frames = await file["entry/frames"]
    ...     first, last = await asyncio.gather(frames[0], frames[-1])
    """
    config = _configured(timeout, retries, verify, block_cache)
    connection, path = aconnection(url, name, user, password, config=config)
    from ndstream.client.aio import Opening  # aiohttp is there, as `aconnection` has found

    return Opening(connection, path, mode)


def aconnection(
    url: str, name: str = "/", user: str | None = None, password: str | None = None, *, config: Config | None = None
) -> tuple[AioConnection, str]:
    """Make the connection behind `aopen`, and the path on its server; parameters and errors are those of `aopen`."""
    try:
        from ndstream.client.aio_connection import AioConnection
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ndstream"):
            raise
        raise MissingExtra("ndstream.aopen needs the 'aio' extra: pip install 'ndstream[aio]'") from error
    config = config or get_config()
    alias = config.resolve_alias(url, user)
    address = parse_address(alias.url, name)
    if address.native is None:
        raise InvalidRequest(f"{url} is to be spoken to in hdfstream, which only ndstream.open does")
    if password is None:
        password = password_of(address.base, alias, config)
    credentials = Credentials(alias.user, password)
    connection = AioConnection(address.native, credentials, verify=config.verify, limits=config.limits)
    return connection, address.path


def _configured(
    timeout: float | None, retries: int | None, verify: bool | str | None, block_cache: int | None
) -> Config:
    """Settings of this process with what one call says otherwise."""
    config = get_config()
    limits = config.limits
    if timeout is not None:
        limits = replace(limits, connect_timeout=min(timeout, limits.connect_timeout), read_timeout=timeout)
    if retries is not None:
        limits = replace(limits, retries=retries)
    if block_cache is not None:
        limits = replace(limits, block_cache=block_cache)
    return replace(config, limits=limits, verify=config.verify if verify is None else verify)


def open_any(path: str, name: str = "/", **options: Any) -> Any:
    """Open an HDF5 file of this machine with h5py, or what is on a server: by the same call.

    Parameters
    ----------
    path : str
        An address with ``http://`` or ``https://``, an alias that is no path here, or a local path.
    name, **options
        See `open`; for servers only.

    Raises
    ------
    MissingExtra
        The file is local, and h5py is not installed.
    NDStreamError
    """
    if path.startswith(("http://", "https://")) or path in get_config().aliases:
        return open(path, name, **options)
    return open_local(path)


def reopen(server: str, user: str | None) -> Connection:
    """Connect once more, in a process that got a pickle: with the settings, and the password, that it has."""
    return connection_to(server, Alias(url=server, user=user), None, get_config(), reopen)
