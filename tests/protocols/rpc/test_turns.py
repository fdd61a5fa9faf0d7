"""No request keeps the event loop from others for long, whatever it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from tests.protocols.rpc.hosted import Everybody, GatedStore

from ndstream.core.limits import DEFAULT_LIMITS, MiB
from ndstream.core.ports import Service
from ndstream.protocols.rpc import codec
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.describing import Describing
from ndstream.protocols.rpc.messages import Form
from ndstream.protocols.rpc.order import running
from ndstream.protocols.rpc.reading import read_data
from ndstream.protocols.rpc.service import Caller, Commands
from ndstream.stores.memory import Array, Group, MemoryStore

ACCESS = Everybody().anonymous("")


def turns(work: Callable[[], Awaitable[Any]]) -> int:
    """How often others have their turn meanwhile."""
    count = 0

    async def others() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    async def main() -> None:
        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        await work()
        task.cancel()

    asyncio.run(main())
    return count


def test_many_selections() -> None:
    store = MemoryStore({"a.h5": Group({"x": Array(np.arange(100.0).reshape(10, 10))})})
    # Boxes of several axes are read one by one; so many take no thread, in which others have their turns anyhow.
    boxes = [[[number % 9, number % 9 + 1], [number % 7, number % 7 + 1]] for number in range(1_000)]
    command = m.Read(path="/x", selections=boxes)

    async def work() -> None:
        data = await read_data(store, "a.h5", command, ACCESS, DEFAULT_LIMITS)
        assert data.shape == (1_000, 1)
        assert (await data.whole(1 << 20)).shape == (1_000, 1)

    assert turns(work) >= 2 * (1_000 // 256)


def test_a_large_value_that_was_serialized() -> None:
    value = {"a": list(range(100_000))}
    (data,) = codec.pack({"value": value}, Form.MSGPACK)
    elements = np.frombuffer(data, np.uint8)
    marked = Array(elements, attributes={m.MARKER: np.array(1, np.uint8)})
    describing = Describing(MemoryStore({"a.h5": Group({"x": marked})}), "a.h5", DEFAULT_LIMITS)

    async def work() -> None:
        assert await describing.deserialized("/x", elements, ACCESS) == value

    assert turns(work) > 0


def test_attributes_of_a_long_request_are_made_in_a_thread() -> None:
    store = GatedStore({"a.h5": Group({})})
    commands = Commands(Service(store=store, limits=DEFAULT_LIMITS), "a.h5")
    caller = Caller(access=ACCESS, original=False, frame=MiB, heavy=True)

    async def work() -> None:
        await commands.answer("set_attrs", m.SetAttrs(path="/", attrs={"a": list(range(1000))}), caller)

    assert turns(work) > 0


def test_paths_that_are_too_long_are_not_taken_apart() -> None:
    async def path_of(path: str) -> str:
        return running(m.Request(command="read", arguments={"path": path})).path

    assert asyncio.run(path_of("/./x")) == "/x/"
    assert asyncio.run(path_of("/." * m.LONGEST_PATH + "/x")) == "/"


def test_long_lists_are_put_together_in_a_thread() -> None:
    assert codec.is_bulky({"data": {"a": list(range(100_000))}}, MiB)
    assert codec.is_bulky({"data": [[1, 2]] * 20_000}, MiB)
    assert codec.is_bulky({"data": np.zeros(MiB + 1, np.uint8)}, MiB)
    assert codec.is_bulky({"data": ["a" * MiB]}, MiB)
    assert not codec.is_bulky({"data": list(range(1000)), "more": np.zeros(1000)}, MiB)
