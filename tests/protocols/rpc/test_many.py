"""Many at once: nobody loses a row, everybody gets their own replies (acceptance 24, 26)."""

from __future__ import annotations

import asyncio
import copy
import threading
from typing import Any

import numpy as np
import pytest
from tests.protocols.rpc.conftest import Served
from tests.protocols.rpc.peer import Peer

import ndstream
from ndstream.errors import ConnectionLost

CLIENTS = 50


def test_fifty_write_their_own_and_fifty_the_same(served: Served, group: str) -> None:
    async def write(number: int) -> None:
        async with ndstream.HDF5Client(port=served.port, unwrap=True) as client:
            for row in range(5):
                await client.append(f"{group}/own/{number}", np.array([row]))
                await client.append(f"{group}/same", np.array([[number, row]]))

    async def all_of_them() -> None:
        await asyncio.gather(*map(write, range(CLIENTS)))

    asyncio.run(all_of_them())
    with Peer(served.port) as peer:
        for number in range(CLIENTS):
            assert peer.data(f"{group}/own/{number}").tolist() == list(range(5))
        rows = peer.data(f"{group}/same").tolist()
    assert len(rows) == 5 * CLIENTS
    for number in range(CLIENTS):
        assert [row for one, row in rows if one == number] == list(range(5))


def test_one_client_is_for_many_tasks_and_threads(served: Served, group: str) -> None:
    failures: list[Any] = []

    async def ask(client: ndstream.HDF5Client, number: int) -> None:
        await client.write(f"{group}/{number}", np.full(10, number))
        for _ in range(10):
            found = await client.read(f"{group}/{number}")
            if found.tolist() != [number] * 10:
                failures.append((number, found))

    async def home() -> None:
        async with ndstream.HDF5Client(port=served.port, unwrap=True) as client:
            threads = [threading.Thread(target=lambda n=n: asyncio.run(ask(client, n))) for n in range(20)]
            for thread in threads:
                thread.start()
            await asyncio.gather(*(ask(client, number) for number in range(100, 120)))
            await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))

    asyncio.run(home())
    assert failures == []


def test_one_client_is_for_threads_whose_event_loops_end_one_after_the_other(served: Served, group: str) -> None:
    client = ndstream.HDF5Client(port=served.port, unwrap=True)
    done: list[int] = []
    together = threading.Barrier(20)

    async def work(number: int) -> None:
        together.wait(60)
        for row in range(1 + 5 * number):
            await client.write(f"{group}/{number}", np.full(3, row))
            assert (await client.read(f"{group}/{number}")).tolist() == [row] * 3
        done.append(number)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n)), daemon=True) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(20))
    asyncio.run(client.close())
    assert not client.is_connected
    assert [thread for thread in threading.enumerate() if thread.name == "ndstream-rpc"] == []


def test_who_follows_goes_on_when_other_threads_ask(served: Served, group: str) -> None:
    async def follow() -> None:
        async with ndstream.HDF5Client(port=served.port, unwrap=True) as client:
            events = client.follow()
            first = asyncio.ensure_future(anext(events))
            while not first.done():
                await client.write(f"{group}-begin", [1])
            await asyncio.to_thread(lambda: asyncio.run(client.write(group, [2])))
            while all(change["name"] != group for change in (await anext(events))["changes"]):
                pass
            await events.aclose()
            await client.ping()

    asyncio.run(asyncio.wait_for(follow(), 60))


def test_who_waits_in_another_thread_is_told_that_the_client_was_closed(served: Served, group: str) -> None:
    client = ndstream.HDF5Client(port=served.port, unwrap=True)
    begun = threading.Event()
    ends: list[BaseException] = []

    async def wait() -> None:
        try:
            async for _ in client.follow():
                begun.set()
        except ConnectionLost as error:
            ends.append(error)

    async def close() -> None:
        await client.ping()
        thread = threading.Thread(target=lambda: asyncio.run(wait()), daemon=True)
        thread.start()
        while not begun.is_set():
            await client.write(group, [1])
        await client.close()
        await asyncio.to_thread(thread.join, 60)

    asyncio.run(close())
    assert len(ends) == 1


def test_the_blocking_client_is_for_many_threads(served: Served, group: str) -> None:
    failures: list[int] = []

    def work(client: ndstream.BlockingHDF5Client, number: int) -> None:
        client.write(f"{group}/{number}", np.full(3, number))
        if client.read(f"{group}/{number}").tolist() != [number] * 3:
            failures.append(number)

    with ndstream.BlockingHDF5Client(port=served.port, unwrap=True) as client:
        threads = [threading.Thread(target=work, args=(client, number)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_blocking_client_that_cannot_connect_leaves_nothing_behind() -> None:
    with pytest.raises(ConnectionLost), ndstream.BlockingHDF5Client(port=1):
        pass
    assert [thread for thread in threading.enumerate() if thread.name == "ndstream-rpc"] == []


def test_a_copy_of_a_blocking_client_is_the_same_connection(served: Served) -> None:
    with ndstream.BlockingHDF5Client(port=served.port, unwrap=True) as client:
        copy.copy(client).ping()
