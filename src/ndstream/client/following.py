"""Commits, and what they append to a dataset, as they happen: the rules, for all programs alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.model import Dataset, Node
from ndstream.core.operations import Event
from ndstream.core.selection import Selection, select
from ndstream.errors import ConnectFailed, ConnectionLost, NDStreamError, NotFound, TimedOut
from ndstream.protocols.native.codec import decode_events
from ndstream.protocols.native.flows import NativeFlows
from ndstream.wire.flow import Course, Flow

PIECE = 1 << 16
"""Bytes of events that are received at once."""
LOSSES = (ConnectionLost, ConnectFailed, TimedOut)
"""Errors after which events can be taken up again, see `Commits.lost`."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


def new_rows(start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Selection, NDArray[Any]]:
    """Selection of the rows from `start` on of a dataset that has a shape now, and an array for them."""
    selection = select(slice(start, None), shape)
    return selection, np.empty(selection.shape + dtype.shape, dtype.base)


class Commits:
    """Takes up the events of a file where they were lost.

    Parameters
    ----------
    flows : NativeFlows
    path : str
        Virtual path of the file.
    since : int or None
        The last commit that is known; None for those from now on.
    """

    def __init__(self, flows: NativeFlows, path: str, since: int | None) -> None:
        self._flows = flows
        self._path = path
        self._last = since
        self._buffer = bytearray()
        self._pause = _FIRST_PAUSE
        self._waited = 0.0
        self._heard = False

    def begin(self) -> Flow[None]:
        """Ask for the events that follow the last one."""
        self._buffer.clear()
        return self._flows.follow(self._path, self._last)

    def take(self, piece: bytes) -> Iterator[Event]:
        """Events that are complete with this piece of the answer.

        Raises
        ------
        ConnectionLost
            The answer has ended.
        NotFound
            The file is gone.
        """
        place = f"{self._flows.server}: /{self._path}"
        if not piece:
            raise ConnectionLost(f"{place}: the server has stopped to tell of commits")
        self._heard, self._waited, self._pause = True, 0.0, _FIRST_PAUSE
        self._buffer += piece
        try:
            for event in decode_events(self._buffer):
                self._last = event.number
                yield event
        except NotFound as error:
            raise NotFound(f"{place}: {error}") from None

    def lost(self, error: NDStreamError) -> float:
        """Seconds to wait before asking again after an error.

        A server that was heard may stay away for as long as a connection may take (``limits.connect_timeout``).

        Raises
        ------
        NDStreamError
            The error, when the server has stayed away for too long, or was never there.
        """
        if not self._heard or self._waited >= self._flows.limits.connect_timeout:
            raise error
        pause = self._pause
        self._waited += pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        return pause


class Growth:
    """Follows the length of one dataset through the events of its file.

    Parameters
    ----------
    flows : NativeFlows
    path, name : str
        File and dataset.
    """

    def __init__(self, flows: NativeFlows, path: str, name: str) -> None:
        self._name = name
        self._look = partial(flows.describe, path, name, depth=0, data=0)
        self._place = f"{flows.server}: /{path}::{name}"
        self._shape: tuple[int, ...] = ()

    def begin(self) -> Course[int]:
        """Look at the dataset; the number of the commit that this was the state of.

        Raises
        ------
        NotFound
            There is no dataset that could grow.
        """
        (found,) = yield (self._look,)
        self._shape = self._shape_of(found.node)
        return int(found.commit)

    def rows(self, event: Event) -> Course[tuple[int, tuple[int, ...]] | None]:
        """Find the new rows after an event.

        Returns
        -------
        start : int
        shape : tuple of int
            Of the dataset, whose rows from `start` on are new. None in place of both when there are none.

        Raises
        ------
        NotFound
            The dataset is gone.
        """
        if not event.complete:
            # It does not say all that happened.
            (found,) = yield (self._look,)
            return self._grown(self._shape_of(found.node))
        shape = self._shape
        for change in event.changes:
            if change.name != self._name:
                continue
            if change.kind == "deleted":
                raise NotFound(f"{self._place}: the dataset was deleted")
            shape = change.shape or shape
        return self._grown(shape)

    def _grown(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
        # One that was cut goes on from its new end.
        start, self._shape = self._shape[0], shape
        return (start, shape) if shape[0] > start else None

    def _shape_of(self, node: Node) -> tuple[int, ...]:
        if not isinstance(node, Dataset) or not node.shape:
            raise NotFound(f"{self._place}: the dataset is gone, or has become something that does not grow")
        return node.shape
