"""Damaged copies of files, the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

__all__ = ["damaged"]


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` copies of `content`, each damaged in another way.

    Bytes are flipped, ranges zeroed, filled with ones or with noise, moved, and the end cut off; half of the damage
    falls into the first kilobytes, where an HDF5 file says most about itself.
    """
    generator = random.Random(seed)
    for number in range(count):
        copy = bytearray(content)
        for _ in range(generator.choice((1, 1, 1, 2, 8))):
            _WAYS[number % len(_WAYS)](copy, generator)
        yield bytes(copy)


def _place(copy: bytearray, generator: random.Random) -> int:
    reach = len(copy) if generator.random() < 0.5 else min(len(copy), 4096)
    return generator.randrange(reach) if reach else 0


def _stretch(copy: bytearray, generator: random.Random) -> tuple[int, int]:
    start = _place(copy, generator)
    return start, min(len(copy), start + generator.choice((1, 2, 4, 8, 64, 512)))


def _flip_bit(copy: bytearray, generator: random.Random) -> None:
    if copy:
        copy[_place(copy, generator)] ^= 1 << generator.randrange(8)


def _change_byte(copy: bytearray, generator: random.Random) -> None:
    if copy:
        copy[_place(copy, generator)] = generator.randrange(256)


def _zero(copy: bytearray, generator: random.Random) -> None:
    start, stop = _stretch(copy, generator)
    copy[start:stop] = bytes(stop - start)


def _fill(copy: bytearray, generator: random.Random) -> None:
    start, stop = _stretch(copy, generator)
    copy[start:stop] = b"\xff" * (stop - start)


def _scramble(copy: bytearray, generator: random.Random) -> None:
    start, stop = _stretch(copy, generator)
    copy[start:stop] = generator.randbytes(stop - start)


def _move(copy: bytearray, generator: random.Random) -> None:
    start, stop = _stretch(copy, generator)
    source = generator.randrange(max(1, len(copy) - (stop - start)))
    copy[start:stop] = copy[source : source + stop - start]


def _cut(copy: bytearray, generator: random.Random) -> None:
    del copy[generator.randrange(len(copy) + 1) :]


_WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bit,
    _change_byte,
    _zero,
    _fill,
    _scramble,
    _move,
    _flip_bit,
    _change_byte,
    _cut,
)
