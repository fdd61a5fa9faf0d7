"""Long msgpack arrays of integers, to and from int64 arrays without a Python object per number.

Runs of numbers that are encoded alike are read as one numpy view; what lies between such runs is walked number by
number, a block at a time. Sixteen million range starts take 150 MB and a fraction of a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndstream.errors import ProtocolError
from ndstream.wire.ndmsgpack import array_header

_FORMS = {0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
_TAGS = {1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}
_BARE = "i1"  # a number from -32 to 127 is its own single byte
_SHORT = 256  # runs below this are walked one by one, which is as fast
_AHEAD = 16  # numbers looked at first to see whether a run goes on
_BLOCK = 1 << 14  # numbers walked one by one before looking for a run again


def _widths() -> NDArray[np.intp]:
    """Bytes of the integer that begins with each possible byte; 0 where none does."""
    widths = np.zeros(256, np.intp)
    widths[:0x80] = widths[0xE0:] = 1
    for tag, form in _FORMS.items():
        widths[tag] = 1 + np.dtype(form).itemsize
    return widths


_WIDTHS = _widths()
_WIDTH_OF: list[int] = _WIDTHS.tolist()


def write_integers(values: NDArray[np.int64]) -> bytes:
    """Encode a one-dimensional int64 array as a msgpack array, every number in the same width.

    Raises
    ------
    ValueError
        There are more numbers than a msgpack array can hold.
    """
    header = array_header(values.size)
    if not values.size:
        return header
    low, high = int(values.min()), int(values.max())
    if low >= -32 and high < 128:
        return header + values.astype(_BARE).tobytes()
    tag = 0xD3 if low < 0 else _TAGS[np.min_scalar_type(high).itemsize]
    items = np.empty(values.size, np.dtype([("tag", "u1"), ("value", _FORMS[tag])]))
    items["tag"] = tag
    items["value"] = values
    return header + items.tobytes()


def read_integers(buffer: memoryview, at: int, count: int) -> tuple[NDArray[np.int64], int]:
    """Decode `count` msgpack integers that begin at byte `at`.

    Parameters
    ----------
    buffer : memoryview, of single bytes
        The whole message; what follows the integers is left alone.

    Returns
    -------
    values : ndarray, int64
        A new array.
    end : int
        Where the next value begins.

    Raises
    ------
    ProtocolError
        Something else than an integer comes, one beyond 64 bits with sign, or fewer than `count`. Nothing is
        allocated for a `count` that the buffer cannot hold.
    """
    if count > len(buffer) - at:
        raise ProtocolError(f"{count} integers are announced, {len(buffer) - at} bytes come")
    data = np.frombuffer(buffer, np.uint8)
    values = np.empty(count, np.int64)
    done = 0
    while done < count:
        run, form = _run(data, at, count - done)
        if run >= _SHORT or run == count - done:
            size = np.dtype(form).itemsize
            width = size + (form != _BARE)
            _convert(data[at : at + run * width].reshape(run, width)[:, -size:], form, values[done:])
            at += run * width
        else:
            run, at = _walk(data, at, values[done:])
        done += run
    return values, at


def _run(data: NDArray[np.uint8], at: int, most: int) -> tuple[int, str]:
    """Count the integers from `at` that are encoded like the first one; looks ahead in doubling steps."""
    if at >= data.size:
        raise ProtocolError("the message ends inside a list of integers")
    tag = int(data[at])
    width = _WIDTH_OF[tag]
    if not width:
        raise ProtocolError("something else where an integer belongs")
    most = min(most, (data.size - at) // width)
    run, window = 0, _AHEAD
    while run < most:
        window = min(window, most - run)
        tags = data[at + run * width : at + (run + window - 1) * width + 1 : width]
        alike = (tags < 0x80) | (tags >= 0xE0) if width == 1 else tags == tag
        if not alike.all():
            run += int(alike.argmin())
            break
        run += window
        window *= 2
    return run, _FORMS.get(tag, _BARE)


def _walk(data: NDArray[np.uint8], at: int, values: NDArray[np.int64]) -> tuple[int, int]:
    """Decode a block of integers in mixed encodings; returns how many and where they end."""
    tags = bytes(data[at : at + 9 * _BLOCK])
    offsets, offset = [], 0
    for _ in range(min(_BLOCK, len(values))):
        if offset >= len(tags) or not (width := _WIDTH_OF[tags[offset]]):
            raise ProtocolError("something else where an integer belongs")
        offsets.append(offset)
        offset += width
    if offset > len(tags):
        raise ProtocolError("the message ends inside a list of integers")
    starts = np.array(offsets, np.intp) + at
    firsts = data[starts]
    for tag in np.unique(np.where(_WIDTHS[firsts] == 1, 0, firsts)).tolist():
        form = _FORMS.get(tag, _BARE)
        chosen = np.flatnonzero(firsts == tag if tag else _WIDTHS[firsts] == 1)
        first = starts[chosen] + (1 if tag else 0)
        decoded = np.empty(chosen.size, np.int64)
        _convert(data[first[:, None] + np.arange(np.dtype(form).itemsize)], form, decoded)
        values[chosen] = decoded
    return len(offsets), at + offset


def _convert(items: NDArray[np.uint8], form: str, values: NDArray[np.int64]) -> None:
    """Write the numbers whose bytes are the rows of `items` to the start of `values`."""
    numbers = np.ascontiguousarray(items).view(form)[:, 0]
    if form == ">u8" and bool((numbers > np.iinfo(np.int64).max).any()):
        raise ProtocolError("an integer is beyond 64 bits with sign")
    values[: len(numbers)] = numbers
