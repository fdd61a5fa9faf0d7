"""The cache keeps what was used last, within its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndstream.stores.hdf5.cache import ByteCache


def test_the_least_recently_used_goes_first() -> None:
    cache: ByteCache[str, int] = ByteCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert (len(cache), cache.nbytes) == (2, 8)


def test_what_is_larger_than_everything_is_not_kept_and_costs_nobody_else() -> None:
    cache: ByteCache[str, int] = ByteCache(10)
    cache.put("a", 1, 10)
    cache.put("b", 2, 11)
    assert (cache.get("a"), cache.get("b")) == (1, None)
    cache.put("a", 3, 11)
    assert cache.get("a") is None
    assert (len(cache), cache.nbytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 6), st.booleans())))
def test_it_never_holds_more_than_its_limit(steps: list[tuple[str, int, bool]]) -> None:
    cache: ByteCache[str, int] = ByteCache(10)
    sizes: dict[str, int] = {}
    for key, size, keep in steps:
        if keep:
            cache.put(key, size, size)
            sizes[key] = size
        else:
            cache.discard(key)
            sizes.pop(key, None)
        held = {name: cache.get(name) for name in "abcdef" if cache.get(name) is not None}
        assert cache.nbytes == sum(sizes[name] for name in held) <= 10
        assert all(sizes[name] == value for name, value in held.items())
        assert len(cache) == len(held)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
