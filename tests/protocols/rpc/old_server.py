"""A server of the original protocol, as far as a client can tell.

``polite`` answers what it does not know with "Unknown command", ``rude`` drops the connection, ``first`` has no
get_config either, ``json`` knows no msgpack, ``complaining`` says so in JSON. Keeps values in a dictionary.
"""

from __future__ import annotations

import json
import socketserver
from typing import Any

import msgpack


class Handler(socketserver.BaseRequestHandler):
    how: str
    values: dict[str, Any]

    def handle(self) -> None:
        while head := self.request.recv(4, 0x100):
            payload = self.request.recv(int.from_bytes(head, "big"), 0x100)
            is_json = payload[:1] == b"{"
            if self.how == "json" and not is_json:
                return
            reply: dict[str, Any] | None
            if self.how == "complaining" and not is_json:
                is_json, reply = True, {"status": "error", "message": "not JSON"}
            else:
                request = json.loads(payload) if is_json else msgpack.unpackb(payload, strict_map_key=False)
                reply = self.answer(request, self.how)
            if reply is None:
                return
            encoded = json.dumps(reply).encode() if is_json else msgpack.packb(reply)
            self.request.sendall(len(encoded).to_bytes(4, "big") + encoded)

    def answer(self, request: dict[str, Any], how: str) -> dict[str, Any] | None:
        path = request.get("path", "")
        match request["command"]:
            case "write":
                self.values[path] = request["data"]
                return {"status": "success", "message": f"Data written to {path}"}
            case "read":
                return (
                    {"status": "success", "data": self.values[path]} if path in self.values else {"status": "not_found"}
                )
            case "get_config" if how != "first":
                spelled = "json" if how in ("json", "complaining") else "messagepack"
                return {"status": "success", "serialization_format": spelled, "use_compression": False}
        return {"status": "error", "message": "Unknown command"} if how == "polite" else None


class Server(socketserver.ThreadingTCPServer):
    """Ends when the threads of all its connections have."""


def handler(how: str) -> type[Handler]:
    """Handler of one server, with values of its own."""
    return type("Handler", (Handler,), {"how": how, "values": {}})
