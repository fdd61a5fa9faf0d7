"""Client operations without I/O: generators that say what to send and what to read.

An operation is a generator, a *flow*. It yields instructions, gets their results back and returns what the caller
wanted; it never touches a socket. A small driver runs it: `ndstream.transports.http.HTTPTransport.drive` blocks, an
asynchronous one awaits, and a test can answer from memory. One flow is one exchange: a driver may run it again from
the start when the connection is lost, so a flow has no effect but its result and the buffers it was given.

The functions `send`, `read`, `read_into`, `read_some`, `peek`, `work` and `tell` yield one instruction each and give
its result a type; flows write ``head = yield from send(request)``.

What takes several exchanges, one behind the other or at once, is a *course*: a generator of flows, as a flow is one of
instructions. It holds the rules that decide what is asked for next, and a driver runs it as it runs a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Send this, and give back the `Head` of the answer.

    `path` is percent-encoded and follows the base address of the server. A `safe` request may be sent again. A body in
    several parts is sent as their sum, without joining them.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | tuple[bytes | memoryview, ...] | None = None
    safe: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Status and headers of an answer; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Read:
    """Give back exactly `count` bytes of the body."""

    count: int


@dataclass(frozen=True, slots=True)
class ReadInto:
    """Fill all of `buffer`, writable and of single bytes, with the next bytes of the body.

    Who watches the transfer is told of these bytes, unless they are not `counted`.
    """

    buffer: memoryview
    counted: bool = True


@dataclass(frozen=True, slots=True)
class ReadSome:
    """Give back between one and `most` of the next bytes of the body; none at its end."""

    most: int


@dataclass(frozen=True, slots=True)
class Peek:
    """Give back the next `count` bytes of the body, fewer only at its end, and leave them there; `count` is small."""

    count: int


@dataclass(frozen=True, slots=True)
class Work:
    """Carry out `function`, in another thread if there is one, while the flow goes on.

    All of them are done when the flow returns, and what one raises, the driver raises. When too many are under way, or
    they hold too much memory (`nbytes` each), the flow waits.
    """

    function: Callable[[], None]
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell who watches the transfer that `count` more bytes of the result have come."""

    count: int


Instruction: TypeAlias = Request | Read | ReadInto | ReadSome | Peek | Work | Tell
Flow: TypeAlias = Generator[Instruction, Any, T]

Start: TypeAlias = Callable[[], Flow[Any]]
"""Makes a flow; called again for every attempt."""
Course: TypeAlias = Generator[Sequence[Start], Any, T]
"""Yields flows that may run at once, and gets the list of their results back, or the error of one of them."""


def send(request: Request) -> Flow[Head]:
    """Send the request and wait for the head of its answer."""
    head: Head = yield request
    return head


def read(count: int) -> Flow[bytes]:
    """Read exactly `count` bytes; the driver raises `ConnectionLost` when the body ends before."""
    data: bytes = yield Read(count)
    return data


def read_into(buffer: memoryview, *, counted: bool = True) -> Flow[None]:
    """Fill the buffer; the driver raises `ConnectionLost` when the body ends before."""
    yield ReadInto(buffer, counted)


def read_some(most: int) -> Flow[bytes]:
    """Read what there is, at most `most` bytes; empty at the end of the body."""
    data: bytes = yield ReadSome(most)
    return data


def peek(count: int) -> Flow[bytes]:
    """Look at the next bytes without taking them; fewer than `count` only at the end of the body."""
    data: bytes = yield Peek(count)
    return data


def work(function: Callable[[], None], nbytes: int = 0) -> Flow[None]:
    """Have something done that takes the processor for a while, such as decoding, and holds `nbytes` of memory."""
    yield Work(function, nbytes)


def tell(count: int) -> Flow[None]:
    """Tell who watches how many more bytes of the result have come."""
    yield Tell(count)


def exchange(start: Callable[[], Flow[T]]) -> Course[T]:
    """Run one flow, as a course."""
    results: list[T] = yield (start,)
    return results[0]
