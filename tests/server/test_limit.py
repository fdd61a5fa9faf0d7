from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ndstream.core.ports import Access, Receive, Scope, Send
from ndstream.server.limit import Limited, Turns

from .conftest import Start, answer, ask, dial, until


def test_places_are_given_in_order() -> None:
    async def check() -> None:
        turns = Turns(1)
        assert turns.enter("a")
        assert not turns.enter("a")
        assert turns.enter("b")
        first, second = turns.join("a"), turns.join("a")
        assert turns.waiting == 2
        turns.leave("a")
        assert (first.done(), second.done()) == (True, False)
        turns.leave("a")
        assert second.done()
        turns.leave("a")
        assert turns.enter("a")

    asyncio.run(check())


def test_who_gives_up_is_passed_over() -> None:
    async def check() -> None:
        turns = Turns(1)
        turns.enter("a")
        first, second, third = (turns.join("a") for _ in range(3))
        first.cancel()
        turns.quit("a", first)
        second.cancel()
        turns.leave("a")
        assert third.done()
        assert turns.waiting == 0
        # Giving up in the moment of one's turn passes the place on.
        turns.quit("a", third)
        assert turns.enter("a")

    asyncio.run(check())


def test_no_limit_means_none() -> None:
    turns = Turns(0)
    assert all(turns.enter("a") for _ in range(1000))


def test_a_request_that_is_cancelled_while_it_waits_keeps_no_place() -> None:
    async def check() -> None:
        gates = [asyncio.Event() for _ in range(3)]
        served = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            served.append(scope["number"])
            await gates[scope["number"]].wait()

        async def nothing(*_: object) -> dict[str, object]:
            return {}

        turns = Turns(1)
        limited = Limited(app, turns)
        tasks = [
            asyncio.create_task(limited({"ndstream.access": Access(key="a"), "number": n}, nothing, nothing))  # type: ignore[arg-type] # never called
            for n in range(3)
        ]
        await asyncio.sleep(0)
        assert turns.waiting == 2
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        gates[0].set()
        gates[2].set()
        await asyncio.gather(tasks[0], tasks[2])
        assert served == [0, 2]
        assert turns.enter("a")

    asyncio.run(check())


class Held:
    """A protocol whose answers wait until the test lets them go."""

    def __init__(self) -> None:
        self.begun: queue.Queue[str] = queue.Queue()
        self.go_on = threading.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.put(scope["path"])
        await asyncio.to_thread(self.go_on.acquire)
        await answer(send, b"served")


def test_the_request_beyond_the_limit_waits_and_then_succeeds(start: Start) -> None:
    held = Held()
    server = start(held, limits={"requests_per_user": 6})
    with ThreadPoolExecutor(7) as threads:
        answers = [threads.submit(ask, server, f"/scripted/{number}") for number in range(6)]
        for _ in range(6):
            held.begun.get(timeout=10)
        seventh = threads.submit(ask, server, "/scripted/seventh")
        until(lambda: server.app.turns.waiting == 1, server)
        assert held.begun.empty()
        assert ask(server, "/healthz").status == 200
        held.go_on.release()
        assert held.begun.get(timeout=10) == "/scripted/seventh"
        held.go_on.release(6)
        assert {answered.result(10).body for answered in [*answers, seventh]} == {b"served"}


def test_a_client_that_goes_away_leaves_the_queue(start: Start) -> None:
    held = Held()
    server = start(held, limits={"requests_per_user": 1})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, server, "/scripted/first")
        held.begun.get(timeout=10)
        with dial(server) as gone:
            gone.sendall(b"POST /scripted/gone HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
            until(lambda: server.app.turns.waiting == 1, server)
        until(lambda: server.app.turns.waiting == 0, server)
        last = threads.submit(ask, server, "/scripted/last")
        held.go_on.release(2)
        assert held.begun.get(timeout=10) == "/scripted/last"
        assert {first.result(10).body, last.result(10).body} == {b"served"}
    until(lambda: server.app._meters["scripted"].requests.get(499) == 1, server)
