"""Sample files of four fields, made in seconds: small relatives of what is served in earnest.

Values are drawn from a fixed seed, so that two runs make equal arrays. The whole takes about 70 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

_GZIP: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


def make_samples(directory: Path) -> list[Path]:
    """Write one file for each field below `directory`; returns their paths."""
    made = []
    for name, make in SAMPLES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w", libver="latest") as file:
            make(file, np.random.default_rng(20261120))
        made.append(path)
    (directory / "description.md").write_text("Sample data of **four fields**, made by `ndstream demo`.\n")
    return made


def snapshot(file: h5py.File, random: np.random.Generator) -> None:
    """Particles of a simulation as SWIFT writes them: sorted by cell, so that a region is a few runs of rows."""
    cells, per_cell, box = 512, 512, 25.0
    count = cells * per_cell
    header = file.create_group("Header")
    header.attrs.update({"BoxSize": np.full(3, box), "Redshift": 0.5, "NumPart_ThisFile": np.array([0, count, 0, 0])})
    header.attrs["Code"] = np.bytes_("SWIFT")
    file.create_group("Cosmology").attrs.update({"Omega_m": 0.307, "H0 [internal units]": 67.77})
    particles = file.create_group("PartType1")
    file["DMParticles"] = h5py.SoftLink("/PartType1")
    side = round(cells ** (1 / 3))
    corners = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3) * (box / side)
    positions = np.repeat(corners, per_cell, axis=0) + random.random((count, 3)) * (box / side)
    described: list[tuple[str, NDArray[Any], str]] = [
        ("Coordinates", positions, "Mpc"),
        ("Velocities", random.normal(0, 200, (count, 3)).astype(np.float32), "km/s"),
        ("Masses", np.full(count, 9.7e-3, dtype=np.float32), "1e10 Msun"),
        ("ParticleIDs", random.permutation(count).astype(np.uint64) + 1, ""),
    ]
    for name, values, unit in described:
        dataset = particles.create_dataset(name, data=values, chunks=(8192, *values.shape[1:]), **_GZIP)
        dataset.attrs["Description"] = f"{name} of the dark matter particles"
        dataset.attrs["units"] = unit
    index = file.create_group("Cells")
    index["Centres"] = corners + box / side / 2
    index["OffsetsInFile/PartType1"] = np.arange(cells) * per_cell
    index["Counts/PartType1"] = np.full(cells, per_cell)


def volume(file: h5py.File, random: np.random.Generator) -> None:
    """An electron microscope volume in blocks, with the labels of what was found in it at half the resolution."""
    edge = 256
    z, y, x = np.ogrid[:edge, :edge, :edge]
    smooth = 96 + 48 * np.sin(z / 17) * np.cos(y / 23) + 32 * np.sin((x + y) / 31)
    noise = random.integers(0, 32, (edge, edge, edge), dtype=np.uint8)
    image = file.create_dataset("grayscale", data=smooth.astype(np.uint8) + noise, chunks=(64, 64, 64), **_GZIP)
    image.attrs.update({"axes": "zyx", "voxel_size": np.array([8.0, 8.0, 8.0]), "units": "nm"})
    half = (z[::2] // 32 * 64 + y[:, ::2] // 32 * 8 + x[:, :, ::2] // 32).astype(np.uint64)
    labels = file.create_dataset("segmentation", data=half + 1, chunks=(64, 64, 64), **_GZIP)
    labels.attrs.update({"axes": "zyx", "voxel_size": np.array([16.0, 16.0, 16.0]), "units": "nm"})


def fibre(file: h5py.File, random: np.random.Generator) -> None:
    """Strain rate along a fibre: time by distance, with coordinates as dimension scales. Stored in one piece."""
    samples, channels, rate, spacing = 6000, 1500, 200.0, 5.0
    strain = random.standard_normal((samples, channels), dtype=np.float32)
    wave = np.sin(np.arange(samples)[:, None] / 25 - np.arange(channels) / 40).astype(np.float32)
    data = file.create_dataset("strain_rate", data=strain + 4 * wave)
    data.attrs.update({"units": "nm/m/s", "gauge_length": 10.0, "instrument": "interrogator 7"})
    time = file.create_dataset("time", data=1_750_000_000_000_000_000 + np.arange(samples) * round(1e9 / rate))
    time.attrs["units"] = "nanoseconds since 1970-01-01"
    distance = file.create_dataset("distance", data=np.arange(channels) * spacing)
    distance.attrs["units"] = "m"
    for axis, scale in enumerate((time, distance)):
        scale.make_scale(scale.name.strip("/"))
        data.dims[axis].attach_scale(scale)


def frames(file: h5py.File, random: np.random.Generator) -> None:
    """Frames of a photon-counting detector as NeXus files keep them, each one chunk, with a mask of dead pixels."""
    count, height, width = 40, 512, 1030
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    entry["title"] = "Lysozyme, 40 of 1800 frames"
    detector = entry.create_group("instrument/detector")
    entry["instrument"].attrs["NX_class"] = "NXinstrument"
    detector.attrs["NX_class"] = "NXdetector"
    y, x = np.ogrid[:height, :width]
    rings = 2 + 20 * np.exp(-(((np.hypot(y - height / 2, x - width / 2) - 180) / 12) ** 2))
    first = random.poisson(rings).astype(np.uint16)
    data = detector.create_dataset(
        "data",
        (count, height, width),
        np.uint16,
        maxshape=(None, height, width),
        chunks=(1, height, width),
        **_squeeze(),
    )
    for number in range(count):
        data[number] = np.roll(first, (7 * number, 13 * number), axis=(0, 1))
    detector["pixel_mask"] = (random.random((height, width)) < 0.001).astype(np.uint32)
    detector["count_time"] = 0.01
    detector["count_time"].attrs["units"] = "s"
    plot = entry.create_group("data")
    plot.attrs.update({"NX_class": "NXdata", "signal": "data"})
    plot["data"] = h5py.SoftLink("/entry/instrument/detector/data")


def _squeeze() -> dict[str, Any]:
    """Compress as detectors do, with bitshuffle and LZ4, when the filter is installed; with gzip otherwise."""
    try:
        import hdf5plugin
    except ImportError:
        return _GZIP
    return dict(hdf5plugin.Bitshuffle())


SAMPLES: dict[str, Callable[[h5py.File, np.random.Generator], None]] = {
    "simulation/snapshot.hdf5": snapshot,
    "microscopy/volume.h5": volume,
    "seismology/fibre.h5": fibre,
    "beamline/frames.h5": frames,
}
