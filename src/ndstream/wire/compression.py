"""Compressed arrays as messages and HDF5 files hold them: LZ4 blocks, HDF5's framing of them, bitshuffle.

Framing is read here before any C function gets to see it: sizes in the data are compared with what there is and with
what is expected, and memory is taken only for what the data can become.

Source: protocols/htype/SPEC.md, "Compressed arrays".
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.model import Filter
from ndstream.core.packets import Buffer, Encoding, Image
from ndstream.errors import Corrupt, DecodeError, MissingExtra

LZ4, BITSHUFFLE = 32004, 32008
"""Registered numbers of the HDF5 filters."""

_HEADER = struct.Struct(">QI")  # total size and block size, in bytes, in front of both framings
_SIZE = struct.Struct(">I")  # in front of each block
_EXPANSION = 255  # bytes that one byte of LZ4 can become, at most
_LARGEST = 1 << 30  # block of HDF5's LZ4 filter
_PACKINGS = {"bslz4": 2, "bszstd": 3}  # numbers of the compression in the options of the bitshuffle filter


def default_block(width: int) -> int:
    """Elements of `width` bytes in one block of bitshuffle, when nobody says otherwise."""
    return max(8192 // width // 8 * 8, 128)


def bitshuffle_block(data: Buffer, nbytes: int, width: int) -> int:
    """Check the framing of bit-shuffled, compressed data.

    Parameters
    ----------
    data : buffer
        Total size, block size, then the blocks, each with its size in front; fewer than eight elements follow as
        they are.
    nbytes : int, bytes
        Size it should have, decompressed.
    width : int, bytes
        Size of an element.

    Returns
    -------
    int
        Elements in a block.

    Raises
    ------
    Corrupt
        It is not framed so, or ends early.
    """
    if width < 1 or nbytes % width:
        raise Corrupt(f"{nbytes} bytes cannot hold elements of {width} bytes")
    total, size = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (-1, 0)
    if total != nbytes:
        raise Corrupt("bit-shuffled data of this size does not begin so")
    block = size // width or default_block(width)
    if block % 8:
        raise Corrupt(f"data was bit-shuffled in blocks of {block} elements")
    count = nbytes // width
    _follow(data, count // block + (count % block >= 8), rest=count % 8 * width)
    return block


def lz4_block(data: Buffer, nbytes: int) -> int:
    """Check the framing of HDF5's LZ4 filter; parameters and errors as for `bitshuffle_block`.

    Returns
    -------
    int
        Bytes in a block.
    """
    total, block = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (-1, 0)
    if total != nbytes or block < 1:
        raise Corrupt("LZ4 data of this size does not begin so")
    _follow(data, -(-total // block))
    return int(block)


def _follow(data: Buffer, blocks: int, rest: int = 0) -> None:
    # Follow the lengths in front of the blocks: the C functions would follow them out of the buffer.
    at, end = _HEADER.size, len(data) - rest
    size_of = _SIZE.unpack_from
    for _ in range(blocks):
        if at + 4 > end:
            raise Corrupt("compressed data ends before its last block")
        at += 4 + size_of(data, at)[0]
    if at > end:
        raise Corrupt("compressed data ends before its last block does")


def unpack(image: Image) -> NDArray[Any]:
    """Decode an array as it came.

    Returns
    -------
    ndarray
        Of the shape and dtype of the image: a new array, or, when it is not compressed, a view of its payload.

    Raises
    ------
    DecodeError
        The payload does not decode to exactly that array.
    MissingExtra
        The package that decodes it is not installed.

    Notes
    -----
    The work is done without the GIL. Images may be decoded in several threads at once.
    """
    nbytes = prod(image.shape) * image.dtype.itemsize
    if image.encoding == "none":
        if len(image.payload) != nbytes:
            raise DecodeError(f"{len(image.payload)} bytes, where {image.dtype}{list(image.shape)} takes {nbytes}")
        flat: NDArray[Any] = np.frombuffer(image.payload, np.uint8)
    elif image.encoding != "bszstd" and nbytes > len(image.payload) * _EXPANSION:
        raise DecodeError(f"{len(image.payload)} bytes of LZ4 cannot become {nbytes}")
    else:
        try:
            flat = _decompress(image, nbytes)
        except Corrupt as error:
            raise DecodeError(str(error)) from error
    return np.ndarray(image.shape, image.dtype, flat.data)


def _decompress(image: Image, nbytes: int) -> NDArray[np.uint8]:
    if image.encoding == "lz4":
        return np.frombuffer(_unlz4(image.payload, nbytes), np.uint8)
    if image.encoding == "lz4-hdf5":
        return _unframe(image.payload, nbytes)
    width = image.element or image.dtype.itemsize
    block = bitshuffle_block(image.payload, nbytes, width)
    if not nbytes:
        return np.empty(0, np.uint8)
    module = _bitshuffle()
    function = getattr(module, "decompress_lz4" if image.encoding == "bslz4" else "decompress_zstd", None)
    if function is None:
        raise DecodeError("this build of bitshuffle cannot decode Zstandard")
    stream = np.frombuffer(image.payload, np.uint8)[_HEADER.size :]
    try:
        elements: NDArray[Any] = function(stream, (nbytes // width,), np.dtype(f"V{width}"), block)
    except Exception as error:  # its class is not documented
        raise Corrupt(f"data cannot be decompressed ({error})") from error
    return elements.view(np.uint8)


def _unlz4(block: Buffer, nbytes: int) -> bytearray:
    lz4 = _lz4()
    try:
        result: bytearray = lz4.decompress(block, uncompressed_size=nbytes, return_bytearray=True)
    except (lz4.LZ4BlockError, ValueError, OverflowError) as error:
        raise Corrupt(f"data cannot be decompressed ({error})") from error
    if len(result) != nbytes:
        raise Corrupt(f"data decompresses to {len(result)} bytes, not {nbytes}")
    return result


def _unframe(data: Buffer, nbytes: int) -> NDArray[np.uint8]:
    step = lz4_block(data, nbytes)
    view, at = memoryview(data), _HEADER.size
    out = np.empty(nbytes, np.uint8)
    for start in range(0, nbytes, step):
        size = min(step, nbytes - start)
        stored = _SIZE.unpack_from(view, at)[0]
        block = view[at + 4 : at + 4 + stored]
        # A block that did not get shorter is stored as it is.
        out[start : start + size] = np.frombuffer(block if stored == size else _unlz4(block, size), np.uint8)
        at += 4 + stored
    return out


def pack(array: NDArray[Any], encoding: Encoding, *, element: int = 0) -> Image:
    """Compress an array.

    Parameters
    ----------
    array : ndarray
        One that is not C-contiguous is copied first.
    encoding : str
        One of those of `Image`; with ``"none"`` the payload is the memory of the array.
    element : int, bytes
        Size of what is bit-shuffled; that of the dtype, if not said otherwise.

    Raises
    ------
    MissingExtra
        The package that encodes it is not installed.
    ValueError
        The array is too large for one LZ4 block, or is no whole number of such elements.
    """
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    width = element or array.dtype.itemsize
    payload: Buffer
    match encoding:
        case "none":
            payload = flat.data
        case "lz4":
            payload = _to_lz4(flat.data)
        case "lz4-hdf5":
            payload = _frame(flat)
        case _:
            payload = _to_bitshuffle(flat, width, encoding)
    return Image(payload=payload, encoding=encoding, shape=array.shape, dtype=array.dtype, element=element)


def _to_lz4(data: Buffer) -> bytes:
    try:
        block: bytes = _lz4().compress(data, store_size=False)
    except OverflowError as error:
        raise ValueError(f"{len(data)} bytes are too much for one LZ4 block") from error
    return block


def _frame(flat: NDArray[np.uint8]) -> bytes:
    step = max(min(flat.size, _LARGEST), 1)
    parts: list[Buffer] = [_HEADER.pack(flat.size, step)]
    for start in range(0, flat.size, step):
        raw = flat[start : start + step]
        block: Buffer = _to_lz4(raw.data)
        if len(block) >= raw.size:
            block = raw.data
        parts += [_SIZE.pack(len(block)), block]
    return b"".join(parts)


def _to_bitshuffle(flat: NDArray[np.uint8], width: int, encoding: Encoding) -> Buffer:
    if flat.size % width:
        raise ValueError(f"{flat.size} bytes cannot hold elements of {width} bytes")
    block = default_block(width)
    header = np.frombuffer(_HEADER.pack(flat.size, block * width), np.uint8)
    if not flat.size:
        return header.data
    elements = flat.view(f"V{width}")
    module = _bitshuffle()
    blocks = module.compress_lz4(elements, block) if encoding == "bslz4" else module.compress_zstd(elements, block, 0)
    return np.concatenate([header, blocks]).data


def stored_chunk(image: Image) -> tuple[tuple[Filter, ...], list[Buffer]]:
    """Tell how an HDF5 file holds an image in one chunk, without compressing anything again.

    Returns
    -------
    filters : tuple of Filter
        Pipeline of the dataset: the same for all images of the same encoding and element size.
    parts : list of buffers
        What the chunk consists of, one after the other; views of the payload.

    Raises
    ------
    DecodeError
        The payload is not framed as it should be.
    MissingExtra
        One block of LZ4 that cannot be told from bytes as they are has to be decoded.
    """
    payload = image.payload
    nbytes = prod(image.shape) * image.dtype.itemsize
    try:
        match image.encoding:
            case "none":
                return (), [payload]
            case "lz4-hdf5":
                lz4_block(payload, nbytes)
                return (_lz4_filter(),), [payload]
            case "lz4":
                if len(payload) == nbytes:  # the filter would take it for a block that is stored as it is
                    payload = _unlz4(payload, nbytes)
                head = _HEADER.pack(nbytes, max(nbytes, 1))
                return (_lz4_filter(),), [head + _SIZE.pack(len(payload)), payload] if nbytes else [head]
            case _:
                width = image.element or image.dtype.itemsize
                block = bitshuffle_block(payload, nbytes, width)
                options = (0, 5, width, 0, _PACKINGS[image.encoding])
                pipeline = (Filter(id=BITSHUFFLE, name="bitshuffle", options=options),)
                # Some readers do not know that 0 stands for the default.
                head = _HEADER.pack(nbytes, block * width)
                if bytes(payload[: _HEADER.size]) == head:
                    return pipeline, [payload]
                return pipeline, [head, memoryview(payload)[_HEADER.size :]]
    except Corrupt as error:
        raise DecodeError(str(error)) from error


def _lz4_filter() -> Filter:
    return Filter(id=LZ4, name="lz4")


def _lz4() -> Any:
    try:
        import lz4.block  # optional, and needed only by those who meet such data
    except ModuleNotFoundError as error:
        raise _missing("LZ4") from error
    return lz4.block


def _bitshuffle() -> Any:
    try:
        import bitshuffle  # as above
    except ModuleNotFoundError as error:
        raise _missing("bitshuffle") from error
    return bitshuffle


def _missing(what: str) -> MissingExtra:
    return MissingExtra(f"{what} needs the 'stream' extra: pip install 'ndstream[stream]'")
