"""Who runs the server: the addresses that may see ``/status`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from ndstream.core.ports import ASGIApp, Receive, Scope, Send
from ndstream.server.answer import TEXT, Answer

NOT_FOUND = Answer(404, TEXT, b"404: not found\n")
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})


class OperatorsOnly:
    """Application that does not exist for anybody else.

    Parameters
    ----------
    app : ASGI application
    networks : iterable of str
        Addresses or networks of the operators.
    behind_proxy : bool
        Whether the addresses of clients are those that a trusted proxy tells. If not, a request that some proxy
        forwarded comes from nobody knows where, even when the proxy is on this machine.
    """

    def __init__(self, app: ASGIApp, networks: Iterable[str], *, behind_proxy: bool) -> None:
        self._app = app
        self._networks = tuple(ip_network(text, strict=False) for text in networks)
        self._behind_proxy = behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with 404 to strangers."""
        if self._admits(scope):
            await self._app(scope, receive, send)
        else:
            await NOT_FOUND.send(send)

    def _admits(self, scope: Scope) -> bool:
        if not self._behind_proxy and any(name in _FORWARDED for name, _ in scope["headers"]):
            return False
        try:
            address = ip_address(scope["client"][0])
        except (KeyError, TypeError, ValueError):
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)
