"""What was recorded is in the file as h5py sees it, and comes out as it went in."""

from __future__ import annotations

import asyncio
from itertools import chain
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # importing it registers its filters
import numpy as np
import pytest

from ndstream.errors import Corrupt, Exists, InvalidRequest, NotFound
from ndstream.recording.log import INDEX, PIECES
from ndstream.recording.recorder import Recorder, Rolling
from ndstream.recording.targets import Folder

from .conftest import Memory, Record, parts_of
from .senders import STREAMS, array, decode, eiger_end, eiger_header, eiger_image, encode, frame, pulse, stream2_image

EVERYTHING = list(chain.from_iterable(STREAMS.values()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams of all kinds one after the other, in one file."""
    from .conftest import record_all

    path = tmp_path_factory.mktemp("whole") / "run.h5"
    recorded = asyncio.run(record_all(path, EVERYTHING, commit_after=3))
    assert (recorded.messages, recorded.committed, recorded.unplaced) == (len(EVERYTHING), len(EVERYTHING), 0)
    assert recorded.commits >= len(EVERYTHING) // 3
    return path


def test_every_part_comes_out_as_it_went_in(whole: Path) -> None:
    assert asyncio.run(parts_of(whole)) == EVERYTHING


def test_a_series_of_a_detector_is_an_entry(whole: Path) -> None:
    with h5py.File(whole) as file:
        assert file.attrs["default"] == "entry_0001"
        entry = file["entry_0001"]
        assert {key: entry.attrs[key] for key in ("NX_class", "series", "expected", "received", "missing")} == {
            "NX_class": "NXentry", "series": 3, "expected": 4, "received": 4, "missing": 0,
        }  # fmt: skip
        data = entry["data"]
        assert (data.attrs["NX_class"], data.attrs["signal"]) == ("NXdata", "data")
        assert list(data.attrs["axes"]) == ["frame_number", ".", "."]
        assert np.array_equal(data["data"], [frame(n) for n in range(4)])
        assert data["frame_number"][:].tolist() == [0, 1, 2, 3]
        assert data["stop_time"][:].tolist() == [900, 1900, 2900, 3900]
        assert data["timestamp"][:].tolist() == [2_000_000, 3_000_000, 4_000_000, 5_000_000]
        detector = entry["instrument/detector"]
        assert (detector.attrs["wavelength"], detector.attrs["description"]) == (0.9, "Dectris")
        assert detector["thresholds"][:].tolist() == [1.5, 2.5]
        assert np.array_equal(detector["flatfield"], frame(1, "<f4"))
        assert np.array_equal(detector["pixelmask"], frame(2, "<u4"))
        # The next series has another bit depth and compression.
        assert file["entry_0002/data/data"].dtype == "<u4"
        assert np.array_equal(file["entry_0002/data/data"], [frame(n, "<u4") for n in range(2)])
        # Shuffled as elements of another size than the image has.
        assert np.array_equal(file["entry_0003/data/data"], [frame(n) for n in range(2)])


def test_compressed_images_are_stored_as_they_came(whole: Path) -> None:
    with h5py.File(whole) as file:
        data = file["entry_0001/data/data"]
        assert (data.chunks, data.id.get_create_plist().get_filter(0)[0]) == ((1, 64, 96), 32008)
        for number in range(3):
            assert data.id.read_direct_chunk((number, 0, 0))[1] == STREAMS["eiger"][1 + number][2]
        # One came as it is, and skips the filter.
        assert data.id.read_direct_chunk((3, 0, 0)) == (1, STREAMS["eiger"][4][2])
        raw = file["entry_0002/data/data"]
        assert raw.id.get_create_plist().get_filter(0)[0] == 32004
        assert raw.id.read_direct_chunk((0, 0, 0))[1].endswith(STREAMS["eiger"][7][2])
        assert file["entry_0004/data/low"].id.read_direct_chunk((2, 0, 0))[1] in STREAMS["stream2"][3][0]


def test_channels_of_stream_v2_are_datasets(whole: Path) -> None:
    with h5py.File(whole) as file:
        data = file["entry_0004/data"]
        assert (data.attrs["signal"], list(data.attrs["auxiliary_signals"])) == ("low", ["high"])
        assert np.array_equal(data["low"], [frame(n) for n in range(3)])
        assert np.array_equal(data["high"], [frame(n + 1000, "<u4") for n in range(3)])
        assert data["real_time"][:].tolist() == [[0, 1000], [1, 1000], [2, 1000]]
        detector = file["entry_0004/instrument/detector"]
        assert detector.attrs["goniometer.omega.increment"] == 0.1
        assert np.array_equal(detector["flatfield.low"], frame(5, "<f4"))


def test_channels_of_bsread_are_datasets_that_grow(whole: Path) -> None:
    with h5py.File(whole) as file:
        (data,) = (entry["data"] for entry in file.values() if "data" in entry and "pulse_id" in entry["data"])
        assert data["pulse_id"][:].tolist() == [10, 20, 30]
        assert np.array_equal(data["current"], [1.5, 2.5, np.nan], equal_nan=True)
        assert data["text"].asstr()[:].tolist() == ["größe", "", "x"]
        assert data["flag"][:].tolist() == [False, False, True]
        assert np.array_equal(data["image"], [frame(1), frame(2), frame(3)])
        assert data["small"][:2].tolist() == [[0, 1, 2]] * 2
        assert data["timestamps.current"][:].tolist() == [10_000_000_005, 20_000_000_005, 0]
        assert data["current"].maxshape == (None,)


def test_frames_have_their_place_by_number_and_missing_ones_are_listed(record: Record, tmp_path: Path) -> None:
    order = [2, 0, 6, 3, 3, 7]
    messages = [
        eiger_image(1, 2),  # overtakes the header
        eiger_header(1, 10),
        *(eiger_image(1, number) for number in order[1:5]),
        eiger_end(1),
        eiger_image(1, 7),  # the end has overtaken it
        eiger_image(1, 1 << 40),
    ]
    recorded = record(messages, commit_after=2)
    assert (recorded.frames, recorded.unplaced) == (5, 2)
    with h5py.File(tmp_path / "run.h5") as file:
        assert list(file) == ["entry_0001", "messages"]
        data = file["entry_0001/data"]
        assert data["frame_number"][:].tolist() == [0, -1, 2, 3, -1, -1, 6, 7]
        for number in (0, 2, 3, 6, 7):
            assert np.array_equal(data["data"][number], frame(number))
        assert not data["data"][4].any()
        assert data["missing"][:].tolist() == [[1, 2], [4, 6], [8, 10]]
        told = {key: int(file["entry_0001"].attrs[key]) for key in ("received", "expected", "missing")}
        assert told == {"received": 5, "expected": 10, "missing": 5}
        assert file["entry_0001/instrument/detector"].attrs["nimages"] == 10
    assert asyncio.run(parts_of(tmp_path / "run.h5")) == messages


def test_a_sender_that_begins_again_begins_an_entry(record: Record, tmp_path: Path) -> None:
    messages = [array(number, frame(number)) for number in (0, 1, 0, 1, 2)]
    messages += [array(number, frame(number)) for number in (10_000_000, 10_000_001)]
    assert record(messages).unplaced == 0
    with h5py.File(tmp_path / "run.h5") as file:
        numbers = [file[f"entry_000{n}/data/frame_number"][:].tolist() for n in (1, 2, 3)]
    assert numbers == [[0, 1], [0, 1, 2], [10_000_000, 10_000_001]]


def test_files_are_rolled(record: Record, tmp_path: Path) -> None:
    messages = [eiger_header(1, 7), *(eiger_image(1, number) for number in (0, 1, 3, 2, 4, 5, 6)), eiger_end(1)]
    recorded = record(messages, rolling=Rolling(count=5))
    assert recorded.files == ["run_00000.h5", "run_00001.h5"]
    parts = [asyncio.run(parts_of(tmp_path / name)) for name in recorded.files]
    assert list(chain.from_iterable(parts)) == messages
    with h5py.File(tmp_path / "run_00001.h5") as file:
        # Rows are numbers in every file, and each tells how the series is taken.
        assert file["entry_0001/data/frame_number"][:].tolist() == [-1, -1, -1, -1, 4, 5, 6]
        assert np.array_equal(file["entry_0001/data/data"][5], frame(5))
        assert file["entry_0001/instrument/detector"].attrs["nimages"] == 7
        assert not file["entry_0001"].attrs["missing"]
    assert not list(tmp_path.glob(".*journal"))


@pytest.mark.parametrize(
    ("rolling", "files"),
    [(Rolling(size=5000), 2), (Rolling(seconds=1e-9), 3), (Rolling(seconds=3600, count=3, size=1 << 40), 1), (None, 1)],
)
def test_files_are_rolled_by_size_count_or_time(rolling: Rolling | None, files: int) -> None:
    messages = [encode({"header": {"htype": "raw-1.0"}, "data": [b"x" * 4000]}) for _ in range(3)]

    async def work() -> None:
        target = Memory()
        recorder = Recorder(target, "run.h5", rolling=rolling, interval=3600)
        for parts in messages:
            recorder.add(decode(parts))
            await recorder.turn()
        await recorder.commit()
        assert recorder.statistics.committed == 3
        assert len(recorder.statistics.files) == files
        assert target.finished == recorder.statistics.files[: len(target.finished)]
        assert len(target.finished) >= files - 1

    asyncio.run(work())


def test_what_cannot_be_stored_as_data_is_kept_as_a_message(record: Record, tmp_path: Path) -> None:
    image = eiger_image(1, 0)
    messages = [
        [*image[:2], image[2][:-9], *image[3:]],  # ends early
        [image[0], image[1].replace(b"bs16-lz4", b"zip"), *image[2:]],
        [image[0].replace(b'"frame": 0', b'"frame": 36893488147419103232'), *image[1:]],
        array(1, np.zeros((2, 2), "<U3")),
        array(2, frame(1), **{"a/b": 1, "": 2, "x" * 300: 3, "nested": {"y": [1, "2"]}, "huge": 1 << 70}),
        pulse(1, data=np.float64(1), **{"../up": np.int64(3)}),
        stream2_image("a", 0, "bszstd"),
    ]
    assert record(messages).committed == len(messages)
    assert asyncio.run(parts_of(tmp_path / "run.h5")) == messages
    with h5py.File(tmp_path / "run.h5") as file:
        found: list[str] = []
        file.visit(found.append)
        assert any(name.endswith("data/a.b") for name in found)
        assert any(name.endswith("data/...up") for name in found)


def test_what_is_there_is_not_overwritten(record: Record, tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_bytes(b"mine")
    with pytest.raises(Exists):
        record(STREAMS["raw"])
    assert (tmp_path / "run.h5").read_bytes() == b"mine"
    with pytest.raises(NotFound):
        Folder(tmp_path / "nowhere")


def test_a_file_that_is_no_recording_is_refused(record: Record, whole: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InvalidRequest, match="no recording"):
        asyncio.run(parts_of(tmp_path / "other.h5"))
    with pytest.raises(NotFound):
        asyncio.run(parts_of(tmp_path / "none.h5"))
    for name, field, value in ((INDEX, "piece", 1 << 50), (PIECES, "source", 99)):
        copy = tmp_path / f"{field}.h5"
        copy.write_bytes(whole.read_bytes())
        with h5py.File(copy, "r+") as file:
            rows = file[name][:]
            rows[field][3] = value
            file[name][:] = rows
        with pytest.raises(Corrupt):
            asyncio.run(parts_of(copy))


def test_options_without_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        Rolling(count=0)

    async def work() -> None:
        target = Folder(tmp_path)
        try:
            with pytest.raises(InvalidRequest):
                Recorder(target, "run.h5", interval=-1)
            idle = Recorder(target, "run.h5")
            await idle.turn()
            await idle.commit()
            assert idle.statistics.files == []
            recorder = Recorder(target, "run.h5", interval=3600)
            recorder.add(decode(STREAMS["raw"][0]))
            recorder.add_parts([b"{", b"no message"])
            await recorder.turn()
            assert (recorder.statistics.undecodable, recorder.statistics.commits) == (1, 0)
            await recorder.commit()
            assert recorder.statistics.committed == 2
        finally:
            await target.aclose()

    asyncio.run(work())
    assert asyncio.run(parts_of(tmp_path / "run.h5"))[1] == [b"{", b"no message"]
