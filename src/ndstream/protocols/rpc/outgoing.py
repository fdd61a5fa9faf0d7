"""Memory of replies that were made and that peers have not taken yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ndstream.core.limits import MiB
from ndstream.stores.budget import Budget
from ndstream.transports.tcp import Link

_TOGETHER = 16 * MiB
"""Bytes of replies that one connection makes at a time; a single one may be longer."""
_LONG = 32 * MiB
"""Bytes of a reply beyond which it is long: no piece of a stream is."""


class Replies:
    """Memory that the replies of all connections may take, half of it for long ones: others never wait behind these.

    Parameters
    ----------
    most : int, bytes
    """

    def __init__(self, most: int) -> None:
        self._short, self._long = Budget(most // 2), Budget(most // 2)

    @property
    def used(self) -> int:
        """Bytes given out now."""
        return self._short.used + self._long.used

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return self._short.wanted or self._long.wanted

    def budget(self, nbytes: int) -> Budget:
        """Where a part of so many bytes has its memory from."""
        return self._long if nbytes > _LONG else self._short


class Outgoing:
    """Room for the replies of one connection, of what all connections may take together.

    A part of a reply is made when there is room for it and the peer has taken what was sent before. So a peer that
    takes nothing holds one part, and what it has not asked for yet is not made.

    Parameters
    ----------
    link : Link
    replies : Replies
        Of all connections.
    """

    def __init__(self, link: Link, replies: Replies) -> None:
        self._link = link
        self._replies = replies
        self._own = Budget(_TOGETHER)
        self._parts: Counter[Budget] = Counter()

    @property
    def blocks(self) -> bool:
        """Whether others wait for what this connection holds."""
        return any(budget.wanted for budget in self._parts)

    @asynccontextmanager
    async def room(self, nbytes: int) -> AsyncIterator[None]:
        """Have room for a part of `nbytes` that is made, and sent, inside; it is free when the peer has taken that."""
        common = self._replies.budget(nbytes)
        await self._own.take(nbytes)
        try:
            await self._link.drained()
            await common.take(nbytes)
        except BaseException:
            self._own.give_back(nbytes)
            raise
        self._parts[common] += 1
        try:
            yield
        finally:
            self._link.when_drained(partial(self._give_back, common, nbytes))

    def _give_back(self, common: Budget, nbytes: int) -> None:
        self._parts -= Counter((common,))
        self._own.give_back(nbytes)
        common.give_back(nbytes)
