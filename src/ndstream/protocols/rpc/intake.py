"""Memory of frames that arrive and are worked on, of all connections together."""

from __future__ import annotations

from ndstream.transports.tcp import Link

_NOTHING = (0, 0)


class Intake:
    """Holds connections while there is too much, so that they read no more of the frames that they have begun.

    What was read completely needs nobody to be read on: it is worked on and given back. So all wait for that as long
    as it is half of what there may be; else the connection whose frame began first goes on, or nobody ever would.

    Parameters
    ----------
    most : int, bytes
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._notes: dict[Link, tuple[int, int]] = {}
        self._begun: dict[Link, None] = {}  # the first in front
        self._held: set[Link] = set()
        self._whole = 0
        self.total = 0

    def note(self, link: Link, partial: int, whole: int) -> None:
        """Note how many bytes a connection takes now: of a frame that has begun, and of those that are complete."""
        before = self._notes.get(link, _NOTHING)
        if before == (partial, whole):
            return
        self.total += partial + whole - sum(before)
        self._whole += whole - before[1]
        if partial or whole:
            self._notes[link] = partial, whole
        else:
            del self._notes[link]
        if not partial:
            self._begun.pop(link, None)
        elif not before[0]:
            self._begun[link] = None
        if self.total > self._most and partial > before[0] and link not in self._held:
            self._held.add(link)
            link.hold()
        if self._held:
            self._go_on()

    def holds(self, link: Link) -> bool:
        """Whether a connection waits for others, and is not slow by itself."""
        return link in self._held

    def _go_on(self) -> None:
        if self.total <= self._most:
            ready = list(self._held)
        else:
            first = next(iter(self._begun), None)
            ready = [link for link in self._held if not self._notes.get(link, _NOTHING)[0]]
            if first in self._held and first is not None and 2 * self._whole < self._most:
                ready.append(first)
        for link in ready:
            self._held.discard(link)
            link.release()
