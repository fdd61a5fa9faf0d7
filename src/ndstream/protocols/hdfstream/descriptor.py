"""What one slice request can carry: many ranges of the first axis, one range of each later axis.

Source: specification section 4.2. Numbers go out as whole arrays, so that sixteen million ranges cost no Python object
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.errors import InvalidSelection
from ndstream.wire.integers import write_integers
from ndstream.wire.ndmsgpack import array_header

MOST_RANGES = 1 << 24  # section 2.4
MOST_AXES = 8  # section 2.4; a rank above it has no slices on an original server


@dataclass(frozen=True, slots=True, eq=False)
class Descriptor:
    """Ranges of one request, checked for form but not against a dataset.

    `starts` and `counts` are int64 arrays of equal length for the first axis; `rest` has (start, count) for each
    later axis. `scalar` marks a dataset without axes.
    """

    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    rest: tuple[tuple[int, int], ...]
    scalar: bool = False

    @classmethod
    def parse(cls, nested: Any) -> Self:
        """Read the spelling of the wire: ``[[start, count], …]``, the first pair of numbers or of arrays.

        Raises
        ------
        InvalidSelection
            When it is not of that form.
        """
        if isinstance(nested, cls):
            return nested
        pairs = _pairs(nested)
        if not pairs:
            none = np.zeros(0, np.int64)
            return cls(none, none, (), scalar=True)
        starts, counts = (_integers(part) for part in pairs[0])
        if counts.size == 1 and starts.size > 1:
            counts = np.broadcast_to(counts, starts.shape)
        if not starts.size or starts.size != counts.size:
            raise InvalidSelection(f"{starts.size} starts and {counts.size} counts do not make ranges")
        rest = tuple((_single(start), _single(count)) for start, count in pairs[1:])
        return cls(starts, counts, rest)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the answer: the ranges one behind the other, no axis dropped."""
        if self.scalar:
            return ()
        return (int(self.counts.sum()), *(count for _, count in self.rest))

    def nested(self) -> list[list[Any]]:
        """Spell it as in `parse`, with integers for a single range and int64 arrays for several."""
        if self.scalar:
            return []
        first = [self.starts, self.counts] if self.starts.size != 1 else [int(self.starts[0]), int(self.counts[0])]
        return [first, *([start, count] for start, count in self.rest)]

    def encode(self) -> bytes:
        """Spell it as msgpack."""
        if self.scalar or self.starts.size == 1:
            return msgspec.msgpack.encode(self.nested())
        same = self.counts.strides == (0,) or bool((self.counts == self.counts[0]).all())
        counts = msgspec.msgpack.encode(int(self.counts[0])) if same else write_integers(self.counts)
        later = b"".join(msgspec.msgpack.encode(pair) for pair in self.rest)
        return array_header(1 + len(self.rest)) + b"\x92" + write_integers(self.starts) + counts + later


def _pairs(nested: Any) -> Sequence[tuple[Any, Any]]:
    if not isinstance(nested, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in nested
    ):
        raise InvalidSelection("a slice is a list of [start, count], one for each axis")
    return nested


def _integers(part: Any) -> NDArray[np.int64]:
    values = np.asarray(part)
    if values.dtype.kind not in "iu" or values.ndim > 1:
        raise InvalidSelection("starts and counts of a slice are integers")
    if values.size and int(values.min()) < 0:
        raise InvalidSelection("starts and counts of a slice are not negative")
    return values.astype(np.int64, copy=False).reshape(-1)


def _single(part: Any) -> int:
    values = _integers(part)
    if values.size != 1:
        raise InvalidSelection("only the first axis can have several ranges")
    return int(values[0])
