"""What the registry finds under ``native`` among the protocols."""

from __future__ import annotations

from ndstream.core.ports import ASGIApp, Service
from ndstream.protocols.native.codec import encode_json
from ndstream.protocols.native.messages import PROBLEM, Problem
from ndstream.protocols.native.openapi import document
from ndstream.protocols.native.serve import Endpoints, Followers


class Plugin:
    """The native protocol; see `ndstream.core.ports.ProtocolPlugin`."""

    name = "native"
    prefix = "/v1"

    def app(self, service: Service) -> ASGIApp:
        """Build the application."""
        return Endpoints(service, document)

    def sockets(self, service: Service) -> ASGIApp:
        """Build the application for WebSockets."""
        return Followers(service)

    def openapi(self) -> bytes:
        """Encode the OpenAPI document; it is served by the application as well."""
        return document()

    def failure(self, status: int, text: str) -> tuple[str, bytes]:
        """Media type and body of an error that the server answers itself."""
        return PROBLEM, encode_json(Problem(title=text, status=status, detail=text, code="error"))


PROTOCOL = Plugin()
