"""The one selection algebra: which elements of an array are meant, in which order, in which shape."""

from ndstream.core.selection.axes import Axis, Picks, Span, Spans
from ndstream.core.selection.grid import Part, chunk_counts
from ndstream.core.selection.normalise import everything, select
from ndstream.core.selection.plain import from_plain, to_plain
from ndstream.core.selection.ranges import ranges
from ndstream.core.selection.selection import Selection
from ndstream.core.selection.text import format_selection, parse_selection

__all__ = [
    "Axis",
    "Part",
    "Picks",
    "Selection",
    "Span",
    "Spans",
    "chunk_counts",
    "everything",
    "format_selection",
    "from_plain",
    "parse_selection",
    "ranges",
    "select",
    "to_plain",
]
