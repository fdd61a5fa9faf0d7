from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndstream.cli.preview import EDGE, THRESHOLD, preview


def _of(array: NDArray[Any], **options: bool) -> str:
    return preview(array.shape, lambda key: array[key], **options)


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.arange(3),
        np.arange(24).reshape(2, 3, 4),
        np.zeros((0, 3)),
        np.zeros((2, 0)),
        np.array([True, False]),
        np.array([1 + 2j, 3]),
        np.array([0.1, np.nan, 1e30]),
        np.array([b"a", "x"], dtype=object),
        np.arange(THRESHOLD + 1),
        np.linspace(-1, 1, 400 * 500).reshape(400, 500),
        np.arange(2 * 30 * 40).reshape(2, 30, 40),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_look_as_numpy_prints_them(array: NDArray[Any]) -> None:
    assert _of(array) == np.array2string(array, max_line_width=120)


def test_of_a_large_array_only_the_corners_are_read() -> None:
    asked = 0

    def read(key: tuple[slice, ...]) -> NDArray[Any]:
        nonlocal asked
        asked += int(np.prod([part.stop - part.start for part in key]))
        return np.zeros([part.stop - part.start for part in key])

    preview((1 << 40, 1 << 20, 4), read)
    assert asked == (2 * EDGE) ** 2 * 4


def test_everything_is_printed_when_asked_for() -> None:
    assert _of(np.arange(THRESHOLD + 1), whole=True).count(" ") >= THRESHOLD
