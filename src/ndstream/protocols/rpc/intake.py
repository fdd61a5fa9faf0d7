"""Memory of frames that arrive and are worked on, of all connections together."""

from __future__ import annotations

from ndstream.transports.tcp import Link


class Intake:
    """Holds connections while too much has arrived; the one whose frame began first always goes on.

    Parameters
    ----------
    most : int, bytes
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes: dict[Link, int] = {}  # the oldest first
        self._held: set[Link] = set()
        self.total = 0

    def note(self, link: Link, nbytes: int) -> None:
        """Note how many bytes a connection takes now."""
        before = self._bytes.get(link, 0)
        if nbytes == before:
            return
        self.total += nbytes - before
        if nbytes:
            self._bytes[link] = nbytes
        else:
            del self._bytes[link]
        if self.total > self._most:
            if link not in self._held and nbytes > before:
                self._held.add(link)
                link.hold()
            self._go_on(next(iter(self._bytes)))
        elif self._held:
            for one in tuple(self._held):
                self._go_on(one)

    def holds(self, link: Link) -> bool:
        """Whether a connection waits for others, and is not slow by itself."""
        return link in self._held

    def forget(self, link: Link) -> None:
        """Forget a connection that is gone."""
        self._held.discard(link)
        self.note(link, 0)

    def _go_on(self, link: Link) -> None:
        if link in self._held:
            self._held.discard(link)
            link.release()
