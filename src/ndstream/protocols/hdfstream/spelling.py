"""Element types as hdfstream spells them, read into numpy's.

Source: specification section 3.8. A peer nobody vouches for chooses the spelling: only types that hold plain bytes
come out, never Python objects.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from ndstream.errors import UnsupportedDType

STRINGS: np.dtype[Any] = np.dtype("O", metadata={"vlen": str})
"""What stands for strings of variable length: the dtype that h5py gives them."""

_PLAIN = re.compile(r"([<>|=]?)(?:[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|b1|[SV]([1-9][0-9]{0,9}))")


def element_dtype(spelling: Any) -> np.dtype[Any]:
    """Dtype of the elements that arrive under this ``type``.

    Parameters
    ----------
    spelling : str, list or dict
        ``"<f4"``, ``"S8"``, ``"str"``; lists of ``[name, type]`` or ``[name, type, dims]`` for compounds, ``[type,
        dims]`` for arrays; a map of ``names``, ``formats`` and so on, as numpy takes it.

    Returns
    -------
    numpy.dtype
        `STRINGS` for ``"str"``. A pair of floats named r and i is the complex number that h5py makes of it.

    Raises
    ------
    UnsupportedDType
        For anything else.
    """
    try:
        return _named(spelling) if isinstance(spelling, str) else _dtype(spelling)
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError, SyntaxError) as error:
        raise UnsupportedDType(f"the element type {str(spelling)[:200]} cannot be read: {error}") from None


@lru_cache(maxsize=256)
def _named(spelling: str) -> np.dtype[Any]:
    if spelling == "str":
        return STRINGS
    if not _PLAIN.fullmatch(spelling):
        raise ValueError("unknown name")
    return np.dtype(spelling)


def _dtype(spelling: Any) -> np.dtype[Any]:
    if isinstance(spelling, str):
        return _named(spelling)
    if isinstance(spelling, dict):
        return _compound(
            list(spelling["names"]),
            [_fixed(each) for each in spelling["formats"]],
            {key: spelling[key] for key in ("offsets", "itemsize") if key in spelling},
        )
    if not isinstance(spelling, list):
        raise TypeError("neither a name nor a list")
    if len(spelling) == 2 and isinstance(spelling[1], list) and all(type(size) is int for size in spelling[1]):
        return np.dtype((_fixed(spelling[0]), tuple(spelling[1])))
    fields = [(name, _member(rest)) for name, *rest in spelling]
    return _compound([name for name, _ in fields], [dtype for _, dtype in fields], {})


def _member(rest: list[Any]) -> np.dtype[Any]:
    """Type of a member from what follows its name."""
    base = _fixed(rest[0])
    if len(rest) == 1:
        return base
    (dims,) = rest[1:]
    return np.dtype((base, tuple(dims) if isinstance(dims, list) else (int(dims),)))


def _fixed(spelling: Any) -> np.dtype[Any]:
    if isinstance(spelling, str) and spelling.startswith("("):
        # Numpy's own spelling of an array inside a compound.
        dims, _, base = spelling[1:].partition(")")
        return np.dtype((_fixed(base), tuple(int(size) for size in dims.split(",") if size)))
    dtype = _dtype(spelling)
    if dtype.hasobject:
        raise ValueError("strings of variable length inside another type")
    return dtype


def _compound(names: list[str], formats: list[np.dtype[Any]], layout: dict[str, Any]) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype({"names": names, "formats": formats, **layout})  # type: ignore[call-overload]  # the stubs know no map with some of the keys
    pair = names == ["r", "i"] and formats[0] == formats[1] and formats[0].kind == "f"
    # Halves have no complex number.
    if pair and dtype.itemsize == 2 * formats[0].itemsize and formats[0].itemsize > 2:
        return np.dtype(f"{formats[0].str[0]}c{dtype.itemsize}")
    return dtype
