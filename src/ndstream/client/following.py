"""Commits, and what they append to a dataset, as they happen: the rules, for all programs alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.reading import read
from ndstream.core.limits import Limits
from ndstream.core.model import Dataset
from ndstream.core.operations import Change, Event, State
from ndstream.core.selection import select
from ndstream.errors import (
    ConnectFailed,
    ConnectionLost,
    InvalidSelection,
    NDStreamError,
    NotFound,
    Replaced,
    ServiceError,
)
from ndstream.protocols.native.codec import decode_events
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.wire.flow import Course, Flow

PIECE = 1 << 16
"""Bytes of events that are received at once."""
AWAY = (ConnectionLost, ConnectFailed, ServiceError, Replaced)
"""Errors after which the same may be asked again, see `Patience`."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


class Patience:
    """Bears with a server that is away: for as long as a connection may take (``limits.connect_timeout``).

    Parameters
    ----------
    limits : Limits
    known : bool
        Whether it was there before. With one that never was there is no patience.
    """

    def __init__(self, limits: Limits, *, known: bool) -> None:
        self._most = limits.connect_timeout
        self._known = known
        self._pause = _FIRST_PAUSE
        self._waited = 0.0

    def heard(self) -> None:
        """Note that it has answered."""
        self._known, self._waited, self._pause = True, 0.0, _FIRST_PAUSE

    def lost(self, error: NDStreamError) -> float:
        """Seconds to wait before asking again after an error.

        Raises
        ------
        NDStreamError
            The error, when the server has stayed away for too long, or was never there.
        """
        if not self._known or self._waited >= self._most:
            raise error
        pause = self._pause
        self._waited += pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        return pause


class Commits:
    """Takes up the events of a file where they were lost.

    Parameters
    ----------
    flows : NativeFlows
    path : str
        Virtual path of the file.
    since : int or str
        Number of the last commit that is known, or tag of the state that it made.

    Attributes
    ----------
    patience : Patience
    """

    def __init__(self, flows: NativeFlows, path: str, since: int | str) -> None:
        self._flows = flows
        self._path = path
        self._last = since
        self._buffer = bytearray()
        self.patience = Patience(flows.limits, known=isinstance(since, str))

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
        self.patience.heard()
        self._buffer += piece
        try:
            for event in decode_events(self._buffer):
                self._last = event.tag or event.number
                yield event
        except NotFound as error:
            raise NotFound(f"{place}: {error}") from None


class Growth:
    """Follows the length of one dataset through the events of its file.

    Parameters
    ----------
    flows : NativeFlows
    path, name : str
        File and dataset.
    dtype : numpy.dtype
        Of the rows.

    Attributes
    ----------
    patience : Patience
        For `rows`, which may be asked again of the same event after an error.
    """

    def __init__(self, flows: NativeFlows, path: str, name: str, dtype: np.dtype[Any]) -> None:
        self.patience = Patience(flows.limits, known=True)
        self._flows = flows
        self._path = path
        self._name = name
        self._dtype = dtype
        self._place = f"{flows.server}: /{path}::{name}"
        self._shape: tuple[int, ...] = ()
        self._state = State("", 0)
        self._address = 0

    def begin(self) -> Course[str]:
        """Look at the dataset; the tag of the state that it was in.

        Raises
        ------
        NotFound
            There is no dataset that could grow.
        """
        self._shape = yield from self._looked()
        return self._state.tag

    def rows(self, event: Event) -> Course[NDArray[Any] | None]:
        """Read the rows that are new with an event; None when there are none.

        Raises
        ------
        NotFound
            The dataset is gone.
        """
        told = self._told(event)
        shape = told or (yield from self._looked(same=event.complete))
        while shape[0] > self._shape[0]:
            selection = select(slice(self._shape[0], None), shape)
            rows = np.empty(selection.shape + self._dtype.shape, self._dtype.base)
            try:
                yield from read(self._flows, self._path, Wanted(self._name, selection, rows), None)
            except InvalidSelection:
                # It was cut before its rows were read; an event that is on its way says to what.
                if told is not None:
                    return None
                now = yield from self._looked()
                if now == shape:
                    raise
                shape = now
            else:
                self._shape = shape
                return rows
        # One that was cut goes on from its new end.
        self._shape = shape
        return None

    def _told(self, event: Event) -> tuple[int, ...] | None:
        """Shape after an event; None when it does not say."""
        if not event.complete:
            return None
        shape = self._shape
        if event.number <= self._state.commit:
            return shape  # of before the dataset was looked at
        for change in event.changes:
            if change.kind == "deleted":
                if f"{self._name}/".startswith(f"{change.name.rstrip('/')}/"):
                    raise NotFound(f"{self._place}: the dataset was deleted, moved, or replaced")
                return None  # a link on the way, perhaps
            # What was looked at may have been newer than its number: nothing but a cut takes the length back.
            if self._is_mine(change) and change.shape and (change.kind == "resized" or change.shape[0] >= shape[0]):
                shape = change.shape
        return shape

    def _is_mine(self, change: Change) -> bool:
        if change.kind == "created":
            return False
        if change.address and self._address:
            return change.address == self._address
        return change.name == self._name

    def _looked(self, *, same: bool = False) -> Course[tuple[int, ...]]:
        """Look at the dataset again, which must be the `same` as before."""
        (found,) = yield (partial(self._flows.describe, self._path, self._name, depth=0, data=0),)
        node = found.node
        if not isinstance(node, Dataset) or not node.shape or (same and node.address != self._address):
            raise NotFound(f"{self._place}: the dataset is gone, or has become something that does not grow")
        self._address = node.address
        self._state = State(found.generation, int(found.commit))
        shape: tuple[int, ...] = node.shape
        return shape
