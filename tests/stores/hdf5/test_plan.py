"""Pieces are small, whole, in order, and cut where chunks are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core.limits import Limits
from ndstream.core.model import Filter
from ndstream.core.selection import Selection, everything, select
from ndstream.stores.hdf5.layout import Chunked, Contiguous
from ndstream.stores.hdf5.plan import Piece, box_around, gather, grid_of, plan, span_of
from ndstream.stores.hdf5.runs import scatter
from ndstream.testing.strategies import grids, numbered, selections, shapes

_GZIP = (Filter(id=1, name="deflate", options=(4,)),)


def _chunked(chunks: tuple[int, ...], filters: tuple[Filter, ...] = _GZIP) -> Chunked:
    return Chunked(chunks=chunks, filters=filters, numbers=b"", offsets=b"", sizes=b"")


def _decodings(pieces: Iterator[Piece], chunks: tuple[int, ...]) -> tuple[int, int]:
    """How often chunks are touched, and how many chunks there are."""
    touched = [part.chunk for piece in pieces for part in piece.block.over(chunks)]
    return len(touched), len(set(touched))


@given(st.data())
def test_pieces_in_turn_are_the_result(data: st.DataObject) -> None:
    shape = data.draw(shapes(max_rank=3))
    selection: Selection = data.draw(selections(shape))
    layout = _chunked(data.draw(grids(shape))) if shape else Contiguous(offset=0, size=8)
    limits = Limits(piece=64, request_memory=256, spool=data.draw(st.sampled_from((0, 1000))))
    array = numbered(shape)
    pieces = list(plan(selection, layout, 8, limits))
    got = [np.ascontiguousarray(piece.block.apply(array)).reshape(-1) for piece in pieces]
    assert np.concatenate(got).tolist() == np.ascontiguousarray(selection.apply(array)).reshape(-1).tolist()


def test_a_huge_plan_costs_nothing_before_it_is_used() -> None:
    shape = (10**6, 10**6)
    pieces = plan(everything(shape), Contiguous(offset=0, size=4 * 10**12), 4, Limits())
    first = next(pieces)
    assert first.block.count * 4 <= Limits().piece


def test_chunks_are_decoded_once_when_a_band_fits_into_memory() -> None:
    chunks = (100, 250)
    pieces = plan(everything((5000, 1000)), _chunked(chunks), 4, Limits())
    assert _decodings(pieces, chunks) == (200, 200)


def test_a_band_of_several_pieces_is_made_in_one_go() -> None:
    chunks = (100, 100)
    pieces = list(plan(everything((400, 20_000)), _chunked(chunks), 4, Limits()))
    assert len(pieces) == 4  # of 8 MB each
    assert _decodings(iter(pieces), chunks) == (800, 800)


def test_a_band_beyond_memory_is_spooled() -> None:
    chunks = (1000, 1000)
    pieces = list(plan(everything((100_000, 100_000)), _chunked(chunks), 4, Limits()))
    assert all(piece.spooled for piece in pieces)
    assert _decodings(iter(pieces[:1]), chunks)[0] == pieces[0].block.count // 10**6


def test_a_band_beyond_memory_needs_no_spool_when_chunks_are_not_filtered() -> None:
    pieces = plan(everything((100_000, 100_000)), _chunked((1000, 1000), ()), 4, Limits())
    assert not next(pieces).spooled


def test_frames_are_cut_within_a_frame() -> None:
    chunks = (1, 512, 4096)
    pieces = list(plan(everything((3, 8192, 4096)), _chunked(chunks), 2, Limits()))
    assert not any(piece.spooled for piece in pieces)
    assert _decodings(iter(pieces), chunks) == (48, 48)


def test_indices_in_any_order_are_made_in_as_large_pieces_as_memory_allows() -> None:
    rows = np.random.default_rng(1).permutation(10_000)
    limits = Limits()
    pieces = list(plan(select(rows, (10_000, 1000)), _chunked((100, 1000)), 4, limits))
    assert len(pieces) == -(-rows.size * 4000 // (limits.request_memory // 2))
    assert all(piece.block.count * 4 <= limits.request_memory // 2 for piece in pieces)


_RUNS = st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 40) | st.integers(1, 9000)), min_size=1, max_size=80)


@given(_RUNS, st.sampled_from((1, 4, 12)))
def test_gathered_runs_are_all_there_and_near_each_other(runs: list[tuple[int, int]], itemsize: int) -> None:
    starts, lengths = (np.array(column, np.int64) for column in zip(*runs, strict=True))
    found = gather(starts, lengths, itemsize)
    assert (np.diff(found.starts) >= 0).all()
    assert sorted(zip(found.starts, found.lengths, strict=True)) == sorted(zip(starts, lengths, strict=True))
    assert (found.groups[0], found.groups[-1]) == (0, starts.size)
    for first, last, end in zip(found.groups, found.groups[1:], found.ends, strict=False):
        group = slice(int(first), int(last))
        assert end == (found.starts[group] + found.lengths[group]).max()
        if last - first > 1:
            assert (end - found.starts[first]) * itemsize <= (1 << 20) + (4 << 10)


@given(st.data())
def test_scattered_runs_are_copied_to_their_places(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.sampled_from((1, 2, 3)) | st.integers(1, 30), min_size=1, max_size=40))
    starts = data.draw(st.lists(st.integers(0, 70), min_size=len(lengths), max_size=len(lengths)))
    order = data.draw(st.permutations(range(len(lengths))))
    source = np.arange(100, dtype=data.draw(st.sampled_from(("u1", "<u4", "<u8"))))
    ends = np.cumsum(lengths)
    targets = ends - lengths
    result = np.zeros(int(ends[-1]), source.dtype)
    chosen = [np.array(column, np.int64)[list(order)] for column in (starts, lengths, targets)]
    scatter(source, chosen[0], chosen[1], result, chosen[2])
    expected = [source[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    assert result.tolist() == np.concatenate(expected).tolist()


@given(st.data())
def test_a_box_holds_all_that_is_indexed(data: st.DataObject) -> None:
    grid = data.draw(shapes(min_rank=1, max_rank=3).filter(all))
    numbers = numbered(grid)
    for part in data.draw(selections(grid)).over(grid):
        start, stop = box_around(part.source, grid)
        box = numbers[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
        wanted: set[Any] = set(np.ravel(numbers[part.source]).tolist())
        first, last = span_of(start, stop, grid)
        assert wanted <= set(box.reshape(-1).tolist()) <= set(range(first, last))
        assert not wanted or {int(box.min()), int(box.max())} == {first, last - 1}


@given(shapes(), st.integers(1, 16), st.integers(1, 500))
def test_boxes_for_storage_without_chunks_are_small(shape: tuple[int, ...], itemsize: int, most: int) -> None:
    grid = grid_of(shape, itemsize, most)
    assert all(1 <= length <= max(side, 1) for length, side in zip(grid, shape, strict=True))
    assert int(np.prod(grid)) * itemsize <= max(most, itemsize)
