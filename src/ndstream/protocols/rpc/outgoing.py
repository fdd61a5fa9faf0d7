"""Memory of replies that were made and that peers have not taken yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ndstream.core.limits import MiB
from ndstream.stores.budget import Budget
from ndstream.transports.tcp import Link

_TOGETHER = 16 * MiB
"""Bytes of replies that one connection makes at a time; a single one may be longer."""


class Outgoing:
    """Room for the replies of one connection, of what all connections may take together.

    A part of a reply is made when there is room for it and the peer has taken what was sent before. So a peer that
    takes nothing holds one part, and what it has not asked for yet is not made.

    Parameters
    ----------
    link : Link
    common : Budget
        Of all connections.
    """

    def __init__(self, link: Link, common: Budget) -> None:
        self._link = link
        self._common = common
        self._own = Budget(_TOGETHER)

    @property
    def blocks(self) -> bool:
        """Whether others wait for what this connection holds."""
        return self._common.wanted and self._own.used > 0

    @asynccontextmanager
    async def room(self, nbytes: int) -> AsyncIterator[None]:
        """Have room for a part of `nbytes` that is made, and sent, inside; it is free when the peer has taken that."""
        await self._own.take(nbytes)
        try:
            await self._link.drained()
            await self._common.take(nbytes)
        except BaseException:
            self._own.give_back(nbytes)
            raise
        try:
            yield
        finally:
            self._link.when_drained(partial(self._give_back, nbytes))

    def _give_back(self, nbytes: int) -> None:
        self._own.give_back(nbytes)
        self._common.give_back(nbytes)
