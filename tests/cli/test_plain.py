from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ndstream.cli.plain import plain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.float32(0.1), 0.1),
        (np.float32("inf"), "inf"),
        (np.longdouble(0.5), 0.5),
        (float("nan"), "nan"),
        (np.array([1.0, -np.inf]), [1.0, "-inf"]),
        (1 + 2j, [1.0, 2.0]),
        (np.bytes_(b"SWIFT"), "SWIFT"),
        (b"\xff", "\ufffd"),
        (np.array(["a", b"b"], dtype=object), ["a", "b"]),
        (np.array(7), 7),
        (np.array([(1, 2.5)], dtype=[("n", "i4"), ("x", "f8")]), [{"n": 1, "x": 2.5}]),
        (np.void(b"\x01\x02"), "0102"),
        (np.array([np.array([1, 2]), np.array([3])], dtype=object), [[1, 2], [3]]),
        (None, None),
    ],
    ids=repr,
)
def test_values_become_what_json_knows(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)
