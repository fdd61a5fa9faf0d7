"""What commands say of messages at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ndstream.streams.messages import Totals


def amount(verb: str, messages: int, nbytes: int, seconds: float) -> str:
    """One line: how many messages, how much, how fast."""
    rate = f" ({messages / seconds:.1f} Hz, {nbytes / 1e6 / seconds:.3f} MB/s)" if seconds > 0 else ""
    return f"{verb} {messages} message{'' if messages == 1 else 's'}, {nbytes / 1e6:.3f} MB in {seconds:.3f} s{rate}"


def causes(counted: Mapping[str, int]) -> str:
    """Counts by cause: ``3 (2 header, 1 part)``."""
    total = sum(counted.values())
    return f"{total} ({', '.join(f'{count} {cause}' for cause, count in counted.items())})" if counted else "0"


def losses(totals: Totals) -> Iterator[str]:
    """Lines on what was not sent, or perhaps not delivered."""
    if totals.messages_dropped:
        yield f"dropped {causes(totals.messages_dropped)}"
    if totals.undelivered:
        yield f"not delivered {totals.undelivered}"
    if totals.uncertain:
        yield f"perhaps not delivered, at most {totals.uncertain}"


def tell_sent(totals: Totals, seconds: float, *, closed: bool = True) -> None:
    """Say what a sender did."""
    typer.echo(amount("sent", totals.messages_sent, totals.bytes_sent, seconds))
    for line in losses(totals):
        typer.echo(line)
    if not closed:
        typer.echo("perhaps not delivered: the last messages, as closing was interrupted")
