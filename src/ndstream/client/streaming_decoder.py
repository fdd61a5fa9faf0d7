"""Read the bytes of msgpack bins from a stream, without holding them in memory."""

from __future__ import annotations

from typing import Any, Protocol

from ndstream.errors import ConnectionLost, ProtocolError

_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_SKIPPED = 1 << 16


class ByteStream(Protocol):
    """Anything with ``read``."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; b"" at the end."""
        ...


class StreamingDecoder:
    """Looks ahead in a stream and reads bins from it.

    Parameters
    ----------
    stream : object with ``read(size)``
        Such as a response of urllib3 or an open file.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._ahead = b""

    def peek(self, n: int) -> bytes:
        """Look at the next `n` bytes without taking them; fewer only at the end."""
        while len(self._ahead) < n and (more := self._stream.read(n - len(self._ahead))):
            self._ahead += more
        return self._ahead[:n]

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, or all that is left when it is negative.

        Raises
        ------
        ConnectionLost
            The stream ends before.
        """
        if size < 0:
            pieces = [self._ahead]
            self._ahead = b""
            while piece := self._stream.read(_SKIPPED):
                pieces.append(piece)
            return b"".join(pieces)
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readinto(self, b: Any) -> int:
        """Fill a buffer and return its length in bytes.

        Raises
        ------
        ConnectionLost
            The stream ends before.
        """
        view = memoryview(b).cast("B")
        done = min(len(view), len(self._ahead))
        view[:done] = self._ahead[:done]
        self._ahead = self._ahead[done:]
        while done < len(view):
            data = self._stream.read(min(len(view) - done, 1 << 20))
            if not data:
                raise ConnectionLost(f"the stream ended {len(view) - done} bytes too early")
            view[done : done + len(data)] = data
            done += len(data)
        return done

    def skip(self, n: int) -> None:
        """Leave out the next `n` bytes.

        Raises
        ------
        ConnectionLost
            The stream ends before.
        """
        while n > 0:
            n -= len(self.read(min(n, _SKIPPED)))

    def read_bin_header(self) -> int:
        """Read the header of a msgpack bin: the number of bytes that follow.

        Raises
        ------
        ProtocolError
            Something else comes.
        """
        tag = self.read(1)[0]
        if tag not in _WIDTHS:
            raise ProtocolError(f"byte {tag:#x} where a bin belongs")
        return int.from_bytes(self.read(_WIDTHS[tag]), "big")
