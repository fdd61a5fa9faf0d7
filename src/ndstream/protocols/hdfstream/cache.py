"""Encoded descriptions, kept for as long as the store gives the same description."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from ndstream.core.model import Node

_WEIGHT = 4  # bytes held for each encoded one: the node itself stays too


class DocumentCache:
    """Encoded documents by the node they describe.

    A store that keeps a description gives the very same node for as long as it holds, and another one when the file
    changed. The identity of the node therefore says all that a path, a generation and a user would.

    Parameters
    ----------
    most : int, bytes
        Held at a time, nodes included as far as they can be guessed; what was used least recently goes first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._entries: OrderedDict[tuple[int, Hashable], tuple[Node, bytes]] = OrderedDict()

    def get(self, node: Node, form: Hashable) -> bytes | None:
        """Encoded document of this very node; `form` is all else that the document depends on."""
        key = (id(node), form)
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, node: Node, form: Hashable, encoded: bytes) -> None:
        """Keep a document; the node is held too, so that no other one can take its identity."""
        key = (id(node), form)
        cost = _WEIGHT * len(encoded)
        if cost > self._most or key in self._entries:
            return
        self._entries[key] = (node, encoded)
        self._held += cost
        while self._held > self._most:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._held -= _WEIGHT * len(dropped)
