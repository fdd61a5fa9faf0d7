"""Ranges laid over a file: always the last one that was put there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndstream.stores.hdf5.overlay import ZEROS, Overlay, Piece

MIB = 1 << 20
# Around the border between two cells, where ranges are cut.
PLACES = st.integers(MIB - 40, MIB + 40) | st.integers(0, 30) | st.integers(3 * MIB - 5, 3 * MIB + 5)


def test_without_ranges_nothing_is_covered() -> None:
    overlay = Overlay()
    assert not overlay
    assert not overlay.touches(0, 1 << 60)
    assert list(overlay.pieces(0, 1 << 60)) == []


def test_a_later_range_lies_on_top() -> None:
    overlay = Overlay()
    overlay.put(100, 200, 5000)
    overlay.put(150, 160, 9000)
    assert list(overlay.pieces(90, 170)) == [Piece(100, 150, 5000), Piece(150, 160, 9000), Piece(160, 170, 5060)]
    assert overlay.end == 200


def test_ranges_that_go_on_in_both_places_become_one() -> None:
    overlay = Overlay()
    for start in range(0, 1000, 10):
        overlay.put(start, start + 10, 7000 + start)
    assert list(overlay.pieces(0, 1000)) == [Piece(0, 1000, 7000)]


def test_touching_ends_do_not_count_as_covered() -> None:
    overlay = Overlay()
    overlay.put(10, 20, 0)
    assert not overlay.touches(0, 10)
    assert not overlay.touches(20, 30)
    assert overlay.touches(19, 30)


def test_many_small_ranges_in_one_place_are_told() -> None:
    overlay = Overlay()
    for start in range(0, 4000, 20):
        overlay.put(start, start + 10, 10 * start)
    assert list(overlay.crowds(0, 10)) == [(0, 3990)]
    overlay.put(0, 3990, 1 << 40)
    assert list(overlay.crowds(0, 4000)) == []
    assert list(overlay.pieces(0, 1 << 30)) == [Piece(0, 3990, 1 << 40)]


@given(st.lists(st.tuples(PLACES, PLACES, st.booleans())), st.tuples(PLACES, PLACES))
def test_every_byte_is_where_it_was_put_last(puts: list[tuple[int, int, bool]], asked: tuple[int, int]) -> None:
    overlay, where = Overlay(), {}
    for number, (a, b, zeros) in enumerate(puts):
        start, stop = min(a, b), min(max(a, b), min(a, b) + 200)
        position = ZEROS if zeros else number << 32
        if start < stop:
            overlay.put(start, stop, position)
        where.update({byte: position if zeros else position + byte - start for byte in range(start, stop)})

    start, stop = min(asked), max(asked)
    found, last = {}, start
    for low, high, position in overlay.pieces(start, stop):
        assert last <= low < high <= stop
        last = high
        found.update({byte: ZEROS if position == ZEROS else position + byte - low for byte in range(low, high)})
    assert found == {byte: position for byte, position in where.items() if start <= byte < stop}
    assert overlay.touches(start, stop) == bool(found)
    assert overlay.end == max(where, default=-1) + 1
