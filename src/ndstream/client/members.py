"""Views of the members of a group; what cannot be had stands as None, as in h5py."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any


class Values(ValuesView[Any]):
    """Objects of a group, in order; None for links that lead nowhere."""

    _mapping: Mapping[str, Any]

    def __iter__(self) -> Iterator[Any]:
        for name in self._mapping:
            yield self._mapping.get(name)


class Items(ItemsView[str, Any]):
    """Names and objects of a group, in order; None for links that lead nowhere."""

    _mapping: Mapping[str, Any]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for name in self._mapping:
            yield name, self._mapping.get(name)
