"""``ndstream generate``: messages to try out what receives them."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ndstream.cli import endpoints
from ndstream.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np

    from ndstream.cli.clock import Clock
    from ndstream.cli.ending import Ending
    from ndstream.protocols.htype.generating import Generator
    from ndstream.streams.stream import Stream

Htype = Literal[
    "array-1.0", "raw-1.0", "bsr_m-1.0", "bsr_m-1.1", "dheader-1.0", "dimage-1.0", "dseries_end-1.0", "stream2"
]


def generate(
    address: endpoints.Target = endpoints.ANYWHERE,
    htype: Annotated[Htype, typer.Option(help="Kind of message; dimage-1.0 and stream2 make a series.")] = "array-1.0",
    shape: Annotated[str | None, typer.Option(metavar="Y,X", help="Of the arrays.  [default: 1024,1024]")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Of the arrays, such as 8MB, in place of a shape.")
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="Type of the elements, as numpy names it.")] = "uint16",
    contents: Annotated[
        Literal["random", "pattern", "zeros"], typer.Option(help="Random numbers, a ramp that moves, or nothing.")
    ] = "random",
    compression: Annotated[
        Literal["none", "lz4", "bslz4"], typer.Option(help="Of the arrays, where the htype has it.")
    ] = "none",
    detail: Annotated[Literal["none", "basic", "all"], typer.Option(help="What a dheader-1.0 tells.")] = "basic",
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Make the same random numbers again.")] = None,
    count: endpoints.Count = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="HZ", help="Messages per second; else as fast as they go.")
    ] = None,
    wait: endpoints.Wait = 0,
    mode: endpoints.Sends = "push",
    connect: endpoints.Connect = False,
    queue: endpoints.Queue = 100,
    policy: endpoints.Slow = None,
    key: endpoints.Key = None,
    server_key: endpoints.ServerKey = None,
    allow: endpoints.Allowed = None,
) -> None:
    """Send messages made up, until Ctrl-C.

    The start and the end of a series are sent besides the messages that are counted.
    """
    from ndstream.cli.ending import Ending
    from ndstream.cli.sending import sending
    from ndstream.protocols.htype.generating import Generator, Plan

    element = _dtype(dtype)
    generator = Generator(
        Plan(
            htype=htype,
            shape=_shape(shape, size, element),
            dtype=element,
            contents=contents,
            compression=compression,
            count=count,
            detail=detail,
            seed=seed,
        )
    )
    with Ending() as ending:
        keys = {"key": key, "server_key": server_key, "allowed_keys": allow}
        choices: dict[str, Any] = {"queue_size": queue, "policy": policy, **keys}
        with sending(ending, address, mode, bind=not connect, rate=rate, **choices) as (stream, clock):
            if endpoints.wait_for_peers(ending, stream, wait):
                _send(ending, stream, clock, generator, count)


def _send(ending: Ending, stream: Stream, clock: Clock, generator: Generator, count: int | None) -> None:
    for data in generator.opening():
        stream.forward(data)
    number = 0
    while number != count and clock.wait():
        stream.forward(generator.item(number))
        number += 1
    for data in generator.closing():
        stream.forward(data, block=not ending.asked())


def _dtype(name: str) -> np.dtype[np.generic]:
    import numpy as np

    try:
        return np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise InvalidRequest(f"{name!r} is no type of numpy") from error


def _shape(shape: str | None, size: str | None, dtype: np.dtype[np.generic]) -> tuple[int, ...]:
    if shape is not None and size is not None:
        raise InvalidRequest("--shape and --size exclude each other")
    if size is not None:
        from ndstream.config import parse_size

        nbytes = parse_size(size)
        if nbytes is None:
            raise InvalidRequest(f"{size!r} is no size in bytes")
        elements = max(1, nbytes // max(1, dtype.itemsize))
        rows = isqrt(elements)
        return rows, elements // rows
    try:
        sides = tuple(int(side) for side in (shape or "1024,1024").split(","))
    except ValueError as error:
        raise InvalidRequest(f"{shape!r} is no shape, such as 512,1024") from error
    if min(sides) < 1:
        raise InvalidRequest(f"{shape!r} has sides shorter than 1")
    return sides
