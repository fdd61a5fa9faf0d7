"""``/``: what is served here, and how to read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ndstream.core.model import Directory
from ndstream.core.ports import ProtocolPlugin, Scope
from ndstream.server.answer import HTML, TEXT, Answer

_MOST_ENTRIES = 200
_STYLE = (
    "body{font:16px/1.5 sans-serif;margin:3em auto;max-width:46em;padding:0 1em}pre{background:#f4f4f4;padding:1em;"
    "overflow:auto}td{padding:.1em 2em .1em 0}td+td{text-align:right}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Content of the page: the address as the client sees it, the root as this user sees it, the protocols."""

    version: str
    url: str
    root: Directory | None
    protocols: Sequence[ProtocolPlugin]

    def answer(self, *, html: bool) -> Answer:
        """Page for a browser, or plain text for everybody else."""
        if html:
            return Answer(200, HTML, self._html().encode())
        return Answer(200, TEXT, self._text().encode())

    def _entries(self) -> list[tuple[str, int | None]]:
        """Names in the root with their sizes in bytes, None when not known; directories end with a slash."""
        if self.root is None:
            return []
        directories = [
            (f"{name}/", None if found is None else found.size) for name, found in self.root.directories.items()
        ]
        return [*directories, *((name, found.size) for name, found in self.root.files.items())]

    def _usage(self) -> str:
        return (
            f"ndstream ls {self.url}/\n\n"
            "import ndstream\n\n"
            f'root = ndstream.open("{self.url}")\n'
            f"print(list(root))\n"
            f"print(root[{self._example()!r}])\n"
        )

    def _example(self) -> str:
        """Name of something worth a look: a directory, else an HDF5 file."""
        if self.root is None:
            return "name"
        hdf5 = [name for name, file in self.root.files.items() if file.is_hdf5]
        return next(iter([*self.root.directories, *hdf5, *self.root.files]), "name")

    def _text(self) -> str:
        entries = self._entries()
        lines = [f"  {name}{'' if size is None else f'  {human(size)}'}" for name, size in entries[:_MOST_ENTRIES]]
        protocols = [f"  {plugin.name}: {self.url}{plugin.prefix}" for plugin in self.protocols]
        usage = ["  " + line if line else "" for line in self._usage().splitlines()]
        parts = [
            [f"ndstream {self.version}", ""],
            ["Served here:", *lines, *_more(entries), ""] if entries else ["Nothing that you can see is served.", ""],
            ["Protocols:", *protocols, ""],
            ["To read it (pip install ndstream):", "", *usage, ""],
        ]
        return "\n".join(line for part in parts for line in part)

    def _html(self) -> str:
        entries = self._entries()
        rows = "".join(
            f"<tr><td>{escape(name)}<td>{'' if size is None else human(size)}" for name, size in entries[:_MOST_ENTRIES]
        )
        protocols = "".join(
            f"<li>{escape(plugin.name)}: <code>{escape(self.url + plugin.prefix)}</code>" for plugin in self.protocols
        )
        more = "".join(f"<p>{escape(line)}" for line in _more(entries))
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>ndstream</title><style>{_STYLE}</style>"
            f"<h1>ndstream {escape(self.version)}</h1>"
            f"<h2>Served here</h2><table>{rows}</table>{more}{'' if entries else '<p>Nothing that you can see.'}"
            f"<h2>Protocols</h2><ul>{protocols}</ul>"
            f"<h2>To read it</h2><p><code>pip install ndstream</code><pre>{escape(self._usage())}</pre></html>\n"
        )


def url_of(scope: Scope) -> str:
    """Base address as the client spelled it, or as the server knows it when that is no host and port."""
    for name, value in scope["headers"]:
        if name == b"host" and re.fullmatch(rb"[A-Za-z0-9.\-_]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?", value):
            return f"{scope['scheme']}://{value.decode()}"
    host, port = scope.get("server") or ("localhost", None)
    return f"{scope['scheme']}://{host}" + (f":{port}" if port else "")


def wants_html(scope: Scope) -> bool:
    """Whether the client is a browser, by what it says it accepts."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def human(size: int) -> str:
    """Spell a number of bytes with three digits and a binary unit."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.4g} PiB"


def _more(entries: Sequence[object]) -> Iterable[str]:
    return [f"  and {len(entries) - _MOST_ENTRIES} more"] if len(entries) > _MOST_ENTRIES else []
