"""What the registry finds under ``rpc`` among the protocols over TCP ports of their own."""

from __future__ import annotations

from ndstream.core.ports import Exposure, Service, StreamApp
from ndstream.protocols.rpc.serve import Connections


class Plugin:
    """The framed TCP protocol; see `ndstream.core.ports.StreamPlugin`."""

    name = "rpc"

    def app(self, service: Service, exposure: Exposure) -> StreamApp:
        """Build the application."""
        return Connections(service, exposure)


PROTOCOL = Plugin()
