"""What was recorded is in the file as h5py sees it, and comes out as it went in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # importing it registers its filters
import numpy as np
import pytest

from .conftest import Record, parts_of
from .senders import STREAMS, frame


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("commit_after", [0, 1])
def test_every_part_comes_out_as_it_went_in(record: Record, tmp_path: Path, kind: str, commit_after: int) -> None:
    recorded = record(STREAMS[kind], commit_after=commit_after)
    assert (recorded.messages, recorded.committed) == (len(STREAMS[kind]), len(STREAMS[kind]))
    assert asyncio.run(parts_of(tmp_path / "run.h5")) == STREAMS[kind]
