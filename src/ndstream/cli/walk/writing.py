"""The steps of the demo in which something is written; what h5py reads from the file afterwards is the measure."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import typer

import ndstream
from ndstream.cli.walk.stage import Stage
from ndstream.errors import Corrupt, Exists, NDStreamError
from ndstream.testing.server import LocalServer

FILE = "lab/run.h5"
_CLIENTS = 4
_ROWS = 40  # acknowledged in the last step before the server is killed
_PATIENCE = 60.0


def create(stage: Stage) -> None:
    """A new file, a dataset that grows, attributes, links, and assignment."""
    stage.call(f'run = ndstream.open("{stage.url}", "{FILE}", mode="x")')
    stage.call('counts = run.create_dataset("counts", (0, 8), "u4", maxshape=(None, 8), compression="gzip")')
    stage.call('counts.attrs["unit"] = "photons"')
    stage.call('run["latest"] = ndstream.SoftLink("/counts")')
    stage.call("counts.append(np.arange(80).reshape(10, 8))")
    stage.call("counts[[8, 1], ::2] = 7")
    with _served(stage) as local:
        stage.check(stage.call('run["latest"][:3, :5]'), local["latest"][:3, :5])
        stage.check(stage.call("counts[[1, 8]]"), local["counts"][[1, 8]])
        stage.check(stage.call('counts.attrs["unit"]'), local["counts"].attrs["unit"])


def together(stage: Stage) -> None:
    """Appends of several clients at the same time: each row is there once, where its client was told."""
    stage.call("from concurrent.futures import ThreadPoolExecutor")
    opened = f'ndstream.open("{stage.url}", "{FILE}", mode="r+")["counts"]'
    stage.call(f"clients = [{opened} for _ in range({_CLIENTS})]")
    stage.call("measure = lambda client: [(client.append(np.full(8, n)), n) for n in range(25)]")
    stage.call(f"with ThreadPoolExecutor({_CLIENTS}) as pool: told = sum(pool.map(measure, clients), [])")
    told = stage.call("sorted(told)")
    stage.command("ndstream", "get", f"{stage.url}/{FILE}::/counts[:3]", "-o", str(stage.scratch / "rows.npy"))
    stage.command("ndstream", "put", "--append", str(stage.scratch / "rows.npy"), f"{stage.url}/{FILE}::/counts")
    with _served(stage) as local:
        rows = local["counts"][:]
    stage.check([start for start, _ in told], np.arange(10, 10 + 25 * _CLIENTS))
    stage.check(rows[10:-3, 7], np.array([n for _, n in told], "u4"))
    stage.check(rows[-3:], rows[:3])


def follow(stage: Stage) -> None:
    """Be told of what others append, without asking."""
    stage.call("counts.refresh()")
    stage.call(f'growing = ndstream.open("{stage.url}", "{FILE}")["counts"].follow()')
    stage.call("clients[0].append(np.full((2, 8), 99))")
    new = stage.call("next(growing)")
    with _served(stage) as local:
        stage.check(new, local["counts"][-2:])
    stage.call("growing.close()")


def transaction(stage: Stage) -> None:
    """Several changes at once: all of them or none."""
    stage.call('with run.transaction(): counts[0] = 0; counts.attrs["checked"] = True; run.move("latest", "old/first")')
    with _served(stage) as local:
        stage.check(stage.call("counts[0]"), local["counts"][0])
        stage.check(stage.call('counts.attrs["checked"]'), local["counts"].attrs["checked"])
        before = local["counts"][:]
    # The group is there already: the row that was written before it is not.
    stage.refused('with run.transaction(): counts[0] = 1; run.create_group("old")', Exists)
    with _served(stage) as local:
        stage.check(before, local["counts"][:])
        stage.check(stage.call("int(counts[0].max())"), np.int64(before[0].max()))


def crash(stage: Stage) -> None:
    """A server that is killed while it commits: what it had acknowledged is there when it comes back."""
    directory = stage.scratch / "log"
    directory.mkdir()
    serve = (directory, "--writable", "--port", "0", "--log-level", "warning")
    typer.secho(f"$ ndstream serve --writable {directory}", fg="cyan")
    with LocalServer(*serve) as server:
        with ndstream.open(server.url, "log.h5", mode="a") as file:
            file.create_dataset("rows", (0, 1024), "i8", maxshape=(None, 1024), chunks=(4, 1024))
        typer.echo(
            f"{_CLIENTS} clients append rows of 8 KB until the server is killed with SIGKILL, all its processes too"
        )
        acknowledged = _until_killed(server)
    with LocalServer(*serve) as server:
        found = ndstream.open(server.url, "log.h5")["rows"][:]
    lost = [row for start, row in acknowledged if start >= len(found) or not (found[start] == row).all()]
    halves = int((found != found[:, :1]).any(axis=1).sum())
    typer.echo(f"acknowledged {len(acknowledged)}, found {len(found)}, lost {len(lost)}, half there {halves}")
    if lost or halves:
        raise Corrupt(f"after the crash {len(lost)} rows were lost, {halves} half there")
    with h5py.File(directory / "log.h5") as local:
        stage.check(found, local["rows"][:])


def _until_killed(server: LocalServer) -> list[tuple[int, int]]:
    """Append from several clients, and kill the server meanwhile: where rows landed, and their values."""
    acknowledged: list[tuple[int, int]] = []
    enough = threading.Event()

    def append(client: int) -> None:
        rows = ndstream.open(server.url, "log.h5", mode="r+", retries=0)["rows"]
        for number in range(1_000_000):
            value = number * _CLIENTS + client
            try:
                start = rows.append(np.full(1024, value))
            except NDStreamError:
                return  # killed
            acknowledged.append((start, value))
            if len(acknowledged) >= _ROWS:
                enough.set()

    with ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [pool.submit(append, client) for client in range(_CLIENTS)]
        came = enough.wait(_PATIENCE)
        server.kill()
        for client in clients:
            client.result()
    if not came:
        raise Corrupt(f"only {len(acknowledged)} rows were written in {_PATIENCE:g} s")
    return acknowledged


def _served(stage: Stage) -> h5py.File:
    """The file as other programs read it while the server has it."""
    return h5py.File(stage.data / FILE, "r", locking=False)
