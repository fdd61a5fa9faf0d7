"""Connections of urllib3 that send the head of a request and a small body together.

By themselves they send them one after the other: two system calls here, and a server that wakes twice, the first time
to find that there is nothing to do yet.
"""

from __future__ import annotations

from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

from ndstream.core.limits import KiB

_JOINED = 64 * KiB


class JoiningHTTPConnection(HTTPConnection):
    """Over plain TCP."""

    _kept: bytearray | None = None

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send a request."""
        self._kept = bytearray()
        try:
            super().request(*arguments, **options)
            self._flush()
        finally:
            self._kept = None

    def send(self, data: Any) -> None:
        """Keep a small piece of a request, or send it behind those that were kept."""
        kept = self._kept
        if kept is not None and isinstance(data, bytes | memoryview) and len(kept) + len(data) <= _JOINED:
            kept += data
            return
        self._flush()
        super().send(data)

    def _flush(self) -> None:
        kept = self._kept
        if kept:
            self._kept = bytearray()
            super().send(kept)


class JoiningHTTPSConnection(JoiningHTTPConnection, HTTPSConnection):
    """Over TLS."""
