"""What ``ndstream info`` shows: everything about one thing that needs no data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ndstream.cli.listing import format_size
from ndstream.cli.plain import plain
from ndstream.cli.target import Target, kind_of
from ndstream.cli.typename import type_name

_LONGEST = 100


def describe(target: Target) -> dict[str, Any]:
    """Describe what a target leads to, as JSON knows it."""
    thing, kind = target.thing, kind_of(target.thing)
    found: dict[str, Any] = {"url": target.text, "kind": kind}
    match kind:
        case "directory":
            found |= {"size": thing.size, "directories": len(thing.directories), "files": len(thing.files)}
        case "file":
            modified = datetime.fromtimestamp(thing.last_modified / 1000, UTC).isoformat()
            found |= {"media_type": thing.media_type, "size": thing.size, "modified": modified}
        case "dataset":
            found |= _dataset(target)
        case "group":
            found |= {"members": len(thing)}
    if kind in ("dataset", "group", "datatype"):
        found["attributes"] = {name: plain(value) for name, value in thing.attrs.items()}
    return found


def format_description(found: dict[str, Any]) -> str:
    """One line for each fact, attributes below."""
    facts = dict(found)
    attributes = facts.pop("attributes", {})
    if "size" in facts:
        facts["size"] = f"{facts['size']} ({format_size(facts['size'])})"
    width = max(map(len, facts))
    lines = [f"{name:{width}}  {_short(value)}" for name, value in facts.items() if value is not None]
    if attributes:
        width = max(map(len, attributes))
        lines += ["attributes", *(f"  {name:{width}}  {_short(value)}" for name, value in attributes.items())]
    return "\n".join(lines)


def _dataset(target: Target) -> dict[str, Any]:
    dataset = target.thing
    found: dict[str, Any] = {
        "shape": _shape(dataset.shape),
        "type": type_name(dataset.dtype),
        "maxshape": _shape(dataset.maxshape),
        "chunks": _shape(dataset.chunks),
    }
    if target.address.selection is not None:
        found["selected"] = _shape(target.extract().shape)
    filters = {name: getattr(dataset, name) for name in ("compression", "compression_opts", "shuffle", "fletcher32")}
    return found | {name: plain(value) for name, value in filters.items() if value}


def _shape(shape: tuple[int | None, ...] | None) -> list[int | None] | None:
    """Shape as JSON knows it; None where it is unlimited."""
    return None if shape is None else list(shape)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
