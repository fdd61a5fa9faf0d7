"""What the registry finds under ``hdfstream`` among the protocols."""

from __future__ import annotations

from ndstream.core.ports import ASGIApp, Service
from ndstream.protocols.hdfstream import codec
from ndstream.protocols.hdfstream.messages import MEDIA_TYPE, Error
from ndstream.protocols.hdfstream.serve import Endpoints


class Plugin:
    """The hdfstream protocol; see `ndstream.core.ports.ProtocolPlugin`."""

    name = "hdfstream"
    prefix = "/hdfstream"

    def app(self, service: Service) -> ASGIApp:
        """Build the application."""
        return Endpoints(service)

    def failure(self, status: int, text: str) -> tuple[str, bytes]:
        """Media type and body of an error that the server answers itself."""
        return MEDIA_TYPE, codec.encode(Error(text))


PROTOCOL = Plugin()
