"""What ``ndstream cat`` writes."""

from __future__ import annotations

import csv
import sys

from ndstream.cli.extract import Extract
from ndstream.cli.plain import plain
from ndstream.cli.preview import preview
from ndstream.errors import InvalidRequest, UnsupportedDType
from ndstream.wire.buffers import bytes_of


def text(extract: Extract, *, whole: bool) -> str:
    """Values as numpy prints them; of more than 1000 the corners, unless `whole`."""
    return preview(extract.shape, extract.read, whole=whole)


def write_csv(extract: Extract) -> None:
    """Write comma-separated values to standard output, one line per row.

    Raises
    ------
    InvalidRequest
        For more than two axes.
    """
    if len(extract.shape) > 2:
        raise InvalidRequest(f"{extract.dataset.name}: {len(extract.shape)} axes do not fit into lines; select two")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for rows in extract.rows():
        writer.writerows([plain(value) for value in row] for row in rows)


def write_raw(extract: Extract) -> None:
    """Write the bytes of the elements to standard output, in C order and little-endian.

    Raises
    ------
    UnsupportedDType
        When they are of variable length.
    """
    if extract.dtype.hasobject:
        raise UnsupportedDType(f"{extract.dataset.name}: elements of variable length have no common form as bytes")
    little = extract.dtype.newbyteorder("<")
    for _, values in extract.pieces():
        sys.stdout.buffer.write(bytes_of(values.astype(little, copy=False)))
