"""Data on its way out of a store: one selection or many, whole or in pieces (SPEC.md, C4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core import model
from ndstream.core.dtypes import memory_size
from ndstream.core.limits import Limits
from ndstream.core.ports import Access, Detail, Reading, Store
from ndstream.core.selection import Selection
from ndstream.errors import InvalidRequest, TooLarge, WrongKind
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.selections import read_selection, read_selections
from ndstream.protocols.rpc.values import SERIALIZED, presentation_of

_HANDLE = 8
"""Bytes that an element of variable length takes besides its own."""
_PROMPT = 1024
"""Selections that are read in the event loop, elements that become an array there; more in a thread."""
_TURN = 256
"""Selections that are read before others have their turn."""
_BULKY = 1 << 20
"""Bytes of arrays that are put together in the event loop."""


class Data:
    """Results of selections of one dataset, one behind the other along axis 0 when they are several.

    Attributes
    ----------
    shape : tuple of int
    nbytes : int
        Of all of it in memory.
    """

    def __init__(self, readings: list[Reading], *, joined: bool) -> None:
        first = readings[0]
        self._readings = readings
        self._presentation = presentation_of(first.dtype)
        rows = sum(reading.shape[0] for reading in readings) if joined else 0
        self.shape: tuple[int, ...] = (rows, *first.shape[1:]) if joined else first.shape
        self.nbytes: int = memory_size(first.dtype) * prod(self.shape)

    @property
    def fixed(self) -> bool:
        """Whether all elements are of one size, so that `nbytes` is what they take."""
        return self._presentation.fixed

    @property
    def maybe_serialized(self) -> bool:
        """Whether these could be the bytes of a value that was serialized."""
        return self._presentation.dtype == SERIALIZED and len(self.shape) == 1

    def at_hand(self) -> NDArray[Any] | None:
        """All of it as one array, when it is one result and takes no waiting."""
        first = self._readings[0]
        if len(self._readings) > 1 or first.ready is None:
            return None
        return self._presentation.of_bytes(first.ready, first.shape)

    async def whole(self, most: int) -> NDArray[Any]:
        """All of it as one array.

        Parameters
        ----------
        most : int, bytes
            Of elements of variable length, of which `nbytes` tells nothing.

        Raises
        ------
        TooLarge
            They take more.
        """
        try:
            arrays: list[NDArray[Any]] = []
            for number, reading in enumerate(self._readings):
                if reading.nbytes is not None:
                    arrays.append(await self._array(reading))
                else:
                    elements, most = await _gathered(reading, most)
                    arrays.append(await self._of_elements(elements, reading.shape))
                await _let_others(number)
        finally:
            await self.aclose()
        if len(arrays) == 1:
            return arrays[0]
        if self.nbytes > _BULKY or len(arrays) > _PROMPT:
            return await asyncio.to_thread(np.concatenate, arrays)
        return np.concatenate(arrays)

    async def _array(self, reading: Reading) -> NDArray[Any]:
        if reading.ready is not None:
            return self._presentation.of_bytes(reading.ready, reading.shape)
        assert reading.nbytes is not None
        made = bytearray(reading.nbytes)
        at = 0
        async for buffer in reading.buffers():
            made[at : at + len(buffer)] = buffer
            at += len(buffer)
        if len(made) > _BULKY:
            return await asyncio.to_thread(self._presentation.of_bytes, memoryview(made), reading.shape)
        return self._presentation.of_bytes(memoryview(made), reading.shape)

    async def _of_elements(self, elements: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if len(elements) > _PROMPT:
            return await asyncio.to_thread(self._presentation.of_elements, elements, shape)
        return self._presentation.of_elements(elements, shape)

    async def parts(self, piece: int) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Fields of the frames of a stream: of about `piece` bytes, flat, each with where it starts.

        Those in one list were read together. Nothing but the list has them, so that they end with it.
        """
        start = 0
        try:
            async with aclosing(self._pieces(piece)) as pieces:
                async for arrays in pieces:
                    frames = [self._frame(array, at) for array, at in _placed(arrays, start)]
                    start += sum(map(len, arrays))
                    del arrays
                    yield frames
                    del frames
        finally:
            await self.aclose()
        yield [{"status": "success", "shape": list(self.shape), "start": start}]

    def _frame(self, array: NDArray[Any], start: int) -> dict[str, Any]:
        more = {} if start else {"shape": list(self.shape)}
        return {**more, "start": start, "data": array}

    async def _pieces(self, piece: int) -> AsyncGenerator[list[NDArray[Any]], None]:
        for reading in self._readings:
            if reading.nbytes is None:
                async for elements in reading.elements():
                    yield [await self._of_elements(some, (len(some),)) for some in _light(elements, piece // 2)]
                continue
            itemsize = memory_size(reading.dtype)
            step = max(1, piece // itemsize) * itemsize
            async for buffer in reading.buffers():
                parts = [buffer[at : at + step] for at in range(0, len(buffer), step)]
                yield [self._presentation.of_bytes(part, (len(part) // itemsize,)) for part in parts]
                del buffer, parts

    async def aclose(self) -> None:
        """Give back what is held; safe to call more than once."""
        for reading in self._readings:
            await reading.aclose()


async def _gathered(reading: Reading, most: int) -> tuple[list[Any], int]:
    """All elements of variable length, and what is left of `most` bytes.

    Raises
    ------
    TooLarge
        They take more.
    """
    found: list[Any] = []
    left = most
    async for elements in reading.elements():
        left -= sum(map(_weight, elements))
        if left < 0:
            raise TooLarge(f"elements of more than {most} bytes: ask for parts, or a stream")
        found += elements
    return found, left


def _weight(element: Any) -> int:
    """Bytes that an element of variable length takes."""
    return _HANDLE + (len(element) if element is not None else 0)


async def _let_others(number: int) -> None:
    """Let others have their turn now and then: what is at hand is read without waiting, however much it is."""
    if number % _TURN == _TURN - 1:
        await asyncio.sleep(0)


def _placed(arrays: list[NDArray[Any]], start: int) -> Iterator[tuple[NDArray[Any], int]]:
    """Each array with where it starts, when the first one starts at `start`."""
    return zip(arrays, accumulate(map(len, arrays), initial=start), strict=False)


def _light(elements: list[Any], most: int) -> Iterator[list[Any]]:
    """Cut a list of elements of variable length into parts of about `most` bytes."""
    part: list[Any] = []
    weight = 0
    for element in elements:
        part.append(element)
        weight += _weight(element)
        if weight >= most:
            yield part
            part, weight = [], 0
    if part:
        yield part


def choice_of(command: m.Read | m.PlainRead, limits: Limits) -> Callable[[tuple[int, ...]], Selection] | None:
    """What makes a selection of the one that a request spells, once the shape is known; None for everything."""
    spelling = command.selection
    return None if spelling is None else lambda shape: read_selection(spelling, shape, limits.selections)


async def read_data(store: Store, path: str, command: m.Read, access: Access, limits: Limits) -> Data:
    """Prepare what a request for data asks for.

    Raises
    ------
    NotFound, InvalidSelection, OutOfBounds, ShapeMismatch, UnsupportedDType, TooLarge
    InvalidRequest
        Both `selection` and `selections` are given.
    """
    if command.selections is None:
        choice = choice_of(command, limits)
        return await _opened([await store.read(path, command.path, access, choice)], joined=False)
    if command.selection is not None:
        raise InvalidRequest("either selection or selections")
    node = await store.describe(path, command.path, access, Detail())
    if not isinstance(node, model.Dataset) or node.shape is None:
        raise WrongKind(f"{command.path} is no dataset that has elements")
    arguments = (command.selections, node.shape, limits.selections)
    many = len(command.selections) > _PROMPT
    selections = await asyncio.to_thread(read_selections, *arguments) if many else read_selections(*arguments)
    readings: list[Reading] = []
    try:
        for number, selection in enumerate(selections):
            readings.append(await store.read(path, command.path, access, selection))
            await _let_others(number)
    except BaseException:
        for reading in readings:
            await reading.aclose()
        raise
    return await _opened(readings, joined=True)


async def _opened(readings: list[Reading], *, joined: bool) -> Data:
    try:
        return Data(readings, joined=joined)
    except BaseException:
        for reading in readings:
            await reading.aclose()
        raise
