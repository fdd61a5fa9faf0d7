"""What every test of ndstream is held to: it leaves nothing open behind it."""

from __future__ import annotations

import os

import pytest
import uvloop
import zmq
from hypothesis import settings

pytest_plugins = ["pytester"]

# In the CI the examples are those that somebody has run before; everywhere else new ones are looked for.
settings.register_profile("ndstream", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("ndstream")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "keeps_open(reason): this test shares something that stays open, such as a pool of connections"
    )


def pytest_sessionstart() -> None:
    # The first loop of libuv opens a pipe that belongs to the process, not to the test that happens to come first.
    uvloop.new_event_loop().close()
    # So does the thread of pyzmq that lets go of memory which was sent without copying.
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.send(bytes(1 << 16), copy=False)


@pytest.fixture(autouse=True)
def _nothing_left_open(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("keeps_open") is None:
        request.getfixturevalue("no_leaks")
