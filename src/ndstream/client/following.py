"""What is appended to a dataset, as it happens: the rule, for synchronous and asynchronous programs alike."""

from __future__ import annotations

from ndstream.core.operations import Event
from ndstream.errors import NotFound


class Growth:
    """Follows the length of one dataset through the events of its file.

    Parameters
    ----------
    name : str
        Of the dataset.
    length : int
        That it has along the first axis.
    """

    def __init__(self, name: str, length: int) -> None:
        self._name = name
        self._length = length

    def needs_look(self, event: Event) -> bool:
        """Whether the event does not say all that happened, and the dataset must be looked up again."""
        return not event.complete

    def after(self, event: Event) -> tuple[int, int] | None:
        """Rows (start, stop) that an event added; None for no rows.

        Raises
        ------
        NotFound
            The dataset was deleted.
        """
        grown = None
        for change in event.changes:
            if change.name != self._name:
                continue
            if change.kind == "deleted":
                raise NotFound(f"{self._name} was deleted")
            if change.shape:
                grown = self.at(change.shape[0])
        return grown

    def at(self, length: int) -> tuple[int, int] | None:
        """Rows (start, stop) that came when the dataset has this length now; one that was cut goes on from its end."""
        start, self._length = self._length, length
        return (start, length) if length > start else None
