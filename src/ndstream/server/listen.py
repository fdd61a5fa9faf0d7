"""Sockets that a server listens on."""

from __future__ import annotations

import errno
import socket
import ssl
from ipaddress import ip_address

from ndstream.config import ServerSettings
from ndstream.errors import ConfigError


def bind(host: str, port: int, backlog: int, *, section: str = "server") -> list[socket.socket]:
    """Listen on every address of `host`, all with the same port.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        0 picks a free one.
    backlog : int
        Connections that the system holds before they are accepted.
    section : str
        Of the configuration, where the port was set.

    Raises
    ------
    ConfigError
        The port is taken or not allowed, or the host is none of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"server.host: {host!r} is not known here: {error}") from error
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            try:
                sockets.append(_listen(family, (address[0], port, *address[2:]), backlog))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise ConfigError(_reason(host, port, error, section)) from error
                absent = error
            else:
                port = sockets[0].getsockname()[1]
        if not sockets:
            raise ConfigError(f"server.host: {host} is no address of this machine") from absent
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets


def url_of(host: str, port: int, *, tls: bool, scheme: str = "http") -> str:
    """Address that a client on this machine would use."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host or "localhost"
    else:
        unspecified = "127.0.0.1" if address.version == 4 else "::1"
        name = unspecified if address.is_unspecified else host
        name = f"[{name}]" if address.version == 6 else name
    secure = {"http": "https", "tcp": "tls"}[scheme]
    return f"{secure if tls else scheme}://{name}:{port}"


def is_loopback(sockets: list[socket.socket]) -> bool:
    """Whether only this machine can reach them."""
    return all(ip_address(one.getsockname()[0].partition("%")[0]).is_loopback for one in sockets)


def _listen(family: int, address: tuple[str | int, ...], backlog: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else "::" would take the port of IPv4 too, which has a socket of its own here.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        # Now, not later: only listening makes sure that the port is ours.
        one.listen(backlog)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Load the certificate of the server; None when it has none.

    Raises
    ------
    ConfigError
        It cannot be read, or does not belong to its key.
    """
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A password would be asked for at the terminal, which a server does not have.
        context.load_cert_chain(settings.certificate, settings.key, password="")
    except (OSError, ssl.SSLError) as error:
        files = " and ".join(str(path) for path in (settings.certificate, settings.key) if path is not None)
        raise ConfigError(f"server.certificate: {files}: {error.strerror or error}") from error
    return context


def _reason(host: str, port: int, error: OSError, section: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{section}.port: {port} on {host} is in use by another program; choose another, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{section}.port: not allowed to listen on {port}; choose one above 1023, or 0 for a free one"
    return f"server.host: cannot listen on {host} port {port}: {error.strerror or error}"
