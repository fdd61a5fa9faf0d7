"""The memory of a server stays bounded, whatever is read from it and however slowly."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from ndstream.testing.fixtures import ServerFactory

from .conftest import MiB, asked, rest, whole, write_deflated, write_sparse
from .memory import growth

CLIENTS = 8
MOST = 256 * MiB


@pytest.mark.parametrize(
    ("write", "nbytes"), [(write_sparse, 384 * MiB), (write_deflated, 96 * MiB)], ids=["contiguous", "deflated"]
)
def test_eight_clients_that_read_everything_at_once(
    tmp_path: Path, ndstream_server: ServerFactory, write: Callable[[Path, int], None], nbytes: int
) -> None:
    """Once they all stall with their answers begun, then they all read on."""
    path = tmp_path / "data.h5"
    write(path, nbytes)
    server = ndstream_server(tmp_path, limits={"requests_per_user": 0})
    request = whole(server, path).replace(b"Host", b"Connection: close\r\nHost")
    with growth(server) as grown, ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as threads:
        clients = [stack.enter_context(asked(server, request)) for _ in range(CLIENTS)]
        for client in clients:
            client.recv(1)
        received = list(threads.map(rest, clients))
    assert all(nbytes < count < nbytes + 1024 for count in received)
    assert grown.bytes < MOST
