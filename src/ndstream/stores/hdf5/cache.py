"""A cache that is bounded in bytes and forgets what was not used for longest."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Mapping whose entries together take at most `limit` bytes, as their sizes were given.

    Parameters
    ----------
    limit : int, bytes
        An entry larger than this is not kept at all.

    Notes
    -----
    Safe to use from several threads at once.
    """

    __slots__ = ("_entries", "_limit", "_lock", "_total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._entries: dict[K, tuple[V, int]] = {}
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """Value kept for `key`, from now on the most recently used; None when there is none."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return None
            self._entries[key] = entry
            return entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value`, counted as `size` bytes, and forget the least recently used ones beyond the limit."""
        with self._lock:
            self._drop(key)
            if size > self._limit:
                return
            self._entries[key] = (value, size)
            self._total += size
            while self._total > self._limit:
                self._drop(next(iter(self._entries)))

    def discard(self, key: K) -> None:
        """Forget `key`, if it is there."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._total = 0

    @property
    def nbytes(self) -> int:
        """Bytes that the entries count for."""
        return self._total

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._total -= entry[1]
