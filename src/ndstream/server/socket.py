"""WebSockets: connections that keep the limits of the server, and answers to those that are refused."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ndstream.core.ports import ASGIApp, Message, Receive, Scope, Send
from ndstream.errors import ConnectionLost
from ndstream.server.connection import Connection, connection_of


class WebSocket(WebSocketsSansIOProtocol):
    """A WebSocket, under the limits of the HTTP connection that it was.

    uvicorn bounds the length of a message and the time until a ping is answered. That connection goes on bounding how
    long the peer may take nothing, and is what applications find (`connection_of`).
    """

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        found = connection_of({"state": app_state})
        assert found is not None
        self._before: Connection = found

    def check(self, now: float) -> None:
        """Cut the connection when its peer is too slow; see `Connection.check`."""
        self._before.check(now)

    def data_received(self, data: bytes) -> None:
        """Refuse a request that cannot be read as one for a WebSocket; uvicorn would leave it without an answer."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._before.send_400_response("This is not how a WebSocket is opened, or far too long for it.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who is waiting."""
        super().connection_lost(exc)
        self._before.connection_lost(exc)
        self.app_state = {}

    async def send(self, message: Any) -> None:
        """Send what the application says."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # It was refused, with an answer. uvicorn would log that the application forgot to.
            self.handshake_complete = True

    def resume_writing(self) -> None:
        """Note that the peer took something."""
        super().resume_writing()
        self._before.resume_writing()


class Handshake:
    """Application for WebSockets around one that answers the request to open them.

    Inside, the scope has the method of that request (GET). As long as the socket was not accepted, an answer of HTTP
    refuses it. A peer that is gone raises `ConnectionLost`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket to its end."""
        scope["method"] = "GET"
        denial = "websocket.http.response" in scope.get("extensions", {})

        async def answer(message: Message) -> None:
            kind: str = message["type"]
            if kind.startswith("http.response."):
                if denial:
                    message = {**message, "type": f"websocket.{kind}"}
                elif kind == "http.response.start":
                    message = {"type": "websocket.close", "code": 1008}
                else:
                    return
            try:
                await send(message)
            except OSError as error:
                raise ConnectionLost("the client went away") from error

        await self._app(scope, receive, answer)
