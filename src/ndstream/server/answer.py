"""Small answers made by the server itself: pages, errors, text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ndstream.core.ports import Send

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

# What is shown is markup of ours with escaped names in it; should an escape be missing, this keeps it harmless.
_HTML_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, small enough to be held as one `body`."""

    status: int
    media_type: str
    body: bytes
    headers: Iterable[tuple[bytes, bytes]] = ()

    async def send(self, send: Send) -> None:
        """Send head and body."""
        extra = _HTML_HEADERS if self.media_type == HTML else ()
        headers = [
            (b"content-type", self.media_type.encode("latin-1")),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
            *extra,
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
