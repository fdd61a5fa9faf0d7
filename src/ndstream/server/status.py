"""``/status``: what the server is doing, for the people who run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import msgspec

from ndstream.config import Config
from ndstream.core.counters import Counters
from ndstream.server.answer import HTML, JSON, Answer
from ndstream.server.meter import Meter

_STYLE = "body{font:15px/1.5 sans-serif;margin:2em;max-width:60em}table{border-collapse:collapse}"
_CELLS = "td{padding:.1em 1em .1em 0;vertical-align:top}td+td{font-family:monospace}"


class Status:
    """Collects what there is to say.

    Parameters
    ----------
    version : str
        Release that is running.
    meters, counters
        What is counted.
    waiting : callable
        Number of requests that wait for their turn.
    """

    def __init__(self, version: str, meters: Iterable[Meter], counters: Counters, waiting: Callable[[], int]) -> None:
        self._version = version
        self._meters = tuple(meters)
        self._counters = counters
        self._waiting = waiting
        self._started = time.time()

    def document(self, config: Config, problem: str | None, notice: str = "") -> dict[str, Any]:
        """Everything as plain values."""
        counters: dict[str, Any] = {}
        for name, label, total in self._counters:
            counters[f"{name} ({label})" if label else name] = int(total) if float(total).is_integer() else total
        return {
            "server": {
                "version": self._version,
                "health": problem or "ok",
                "up_seconds": round(time.time() - self._started),
                "configuration": str(config.file) if config.file else None,
                "waiting_requests": self._waiting(),
                **({"notice": notice} if notice else {}),
            },
            "served": {name or "/": str(path) for name, path in config.roots.items()},
            "requests": {
                meter.name: {
                    "active": meter.active,
                    "sent_bytes": meter.sent,
                    "by_status": {str(status): number for status, number in sorted(meter.requests.items())},
                }
                for meter in self._meters
            },
            "counters": counters,
        }


def render(document: Mapping[str, Any], *, html: bool) -> Answer:
    """Page or JSON of a status document."""
    if not html:
        return Answer(200, JSON, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sections = "".join(f"<h2>{escape(title)}</h2>{_table(values)}" for title, values in document.items())
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>ndstream status</title>"
        f"<style>{_STYLE}{_CELLS}</style>"
        f"<h1>ndstream</h1>{sections}<p><a href='?reload=1'>Read the configuration again</a></html>\n"
    )
    return Answer(200, HTML, page.encode())


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}<td>{_table(value) if isinstance(value, Mapping) else escape(str(value))}"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"
