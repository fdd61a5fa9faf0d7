"""Many at once: nobody loses a row, everybody gets their own replies (acceptance 24, 26)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
from tests.protocols.rpc.conftest import Served
from tests.protocols.rpc.peer import Peer

import ndstream

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
