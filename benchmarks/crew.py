"""Client processes that do the same work at the same time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from benchmarks.rounds import Turn


class Task(Protocol):
    """Work of one client process; pickled into it."""

    def prepare(self) -> None:
        """Connect, make what is needed, do the work once and check what came."""
        ...

    def run(self) -> Any:
        """Do the work; only this is timed."""
        ...


class Crew:
    """Processes, one for each task, ready when this object exists.

    Raises
    ------
    RuntimeError
        A task failed; also from `round` and `results`.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for task in tasks:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, task), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect()

    def round(self) -> float:
        """Let all run; seconds until the last is done."""
        begin = time.perf_counter()
        self.results()
        return time.perf_counter() - begin

    def results(self) -> list[Any]:
        """Let all run; what `run` returned in each."""
        for pipe in self._pipes:
            pipe.send(True)
        return self._collect()

    def _collect(self) -> list[Any]:
        results = []
        for pipe in self._pipes:
            failure, result = pipe.recv()
            if failure is not None:
                raise RuntimeError(failure)
            results.append(result)
        return results

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def turn_of(crew: Crew) -> Turn:
    """Turn in which the crew works once; returns the seconds."""
    return crew.round


def _work(pipe: Connection, task: Task) -> None:
    """Run in the process: prepare, then run as often as told."""
    try:
        task.prepare()
        pipe.send((None, None))
        while pipe.recv():
            pipe.send((None, task.run()))
    except EOFError:
        return
    except BaseException as error:
        pipe.send((f"{type(task).__name__}: {type(error).__name__}: {error}", None))
        raise
