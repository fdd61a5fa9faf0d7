"""The steps of the demo, in order. Each shows one thing that users do, and checks it against h5py on the same file."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import h5py
import numpy as np

from ndstream.cli.walk import streaming, writing
from ndstream.cli.walk.stage import Stage
from ndstream.errors import Corrupt


def browse(stage: Stage) -> None:
    """Directories, files, groups."""
    stage.call("import ndstream")
    stage.call(f'archive = ndstream.open("{stage.url}")')
    names = stage.call("list(archive)")
    if not {"beamline", "microscopy", "seismology", "simulation"} <= set(names):
        raise Corrupt(f"the server lists {names}")
    stage.call('list(archive["simulation/snapshot.hdf5"])')
    stage.command("ndstream", "ls", "-lR", stage.url)


def attributes(stage: Stage) -> None:
    """Attributes, shapes, types and links, without moving data."""
    stage.call('snapshot = archive["simulation/snapshot.hdf5"]')
    with h5py.File(stage.data / "simulation/snapshot.hdf5") as local:
        stage.check(stage.call('snapshot["Header"].attrs["BoxSize"]'), local["Header"].attrs["BoxSize"])
        positions = stage.call('snapshot["DMParticles/Coordinates"]')
        if (positions.shape, positions.dtype) != ((dataset := local["PartType1/Coordinates"]).shape, dataset.dtype):
            raise Corrupt(f"the server describes {positions!r}, the file holds {dataset!r}")
    stage.call('snapshot["/"].get("DMParticles", getlink=True).path')
    stage.command("ndstream", "info", f"{stage.url}/simulation/snapshot.hdf5::/PartType1/Coordinates")


def slices(stage: Stage) -> None:
    """Slices, steps and single elements, from a dataset in one piece and from compressed chunks."""
    stage.call('strain = archive["seismology/fibre.h5"]["strain_rate"]')
    with h5py.File(stage.data / "seismology/fibre.h5") as local:
        stage.check(stage.call("strain[100:104, 700:703]"), local["strain_rate"][100:104, 700:703])
        stage.check(stage.call("strain[::1500, -1]"), local["strain_rate"][::1500, -1])
    stage.call('frames = archive["beamline/frames.h5"]["entry/data/data"]')
    with h5py.File(stage.data / "beamline/frames.h5") as local:
        stage.check(stage.call("frames[7, 250:253, 500:506]"), local["entry/data/data"][7, 250:253, 500:506])
    stage.command("ndstream", "cat", f"{stage.url}/seismology/fibre.h5::/strain_rate[:3, ::300]")


def picks(stage: Stage) -> None:
    """Lists in any order, repeated and negative indices, masks: what numpy can select."""
    stage.call('ids = snapshot["PartType1/ParticleIDs"]')
    stage.call('grey = archive["microscopy/volume.h5"]["grayscale"]')
    with h5py.File(stage.data / "simulation/snapshot.hdf5") as local:
        everything = local["PartType1/ParticleIDs"][:]
        stage.check(stage.call("ids[[70000, 3, 3, -1]]"), everything[[70000, 3, 3, -1]])
        stage.call("mask = ids[:] % 50_000 == 0")
        stage.check(stage.call("ids[mask]"), everything[everything % 50_000 == 0])
    with h5py.File(stage.data / "microscopy/volume.h5") as local:
        stage.check(stage.call("grey[10, [200, 5], ::-64]"), local["grayscale"][:][10, [200, 5], ::-64])


def many(stage: Stage) -> None:
    """A region of a simulation: hundreds of runs of rows in one request."""
    stage.call("import numpy as np")
    stage.call('near = np.flatnonzero(snapshot["Cells/Centres"][:, 0] < 5)')
    stage.call('starts = snapshot["Cells/OffsetsInFile/PartType1"][:][near]')
    stage.call('stops = starts + snapshot["Cells/Counts/PartType1"][:][near]')
    stage.call('velocities = snapshot["PartType1/Velocities"]')
    stage.call("moving = velocities.request_slices([np.s_[a:b] for a, b in zip(starts, stops)])")
    moving = stage.call("moving")
    stage.call("len(near), moving.shape")
    with h5py.File(stage.data / "simulation/snapshot.hdf5") as local:
        near = np.flatnonzero(local["Cells/Centres"][:, 0] < 5)
        starts = local["Cells/OffsetsInFile/PartType1"][:][near]
        stops = starts + local["Cells/Counts/PartType1"][:][near]
        runs = [local["PartType1/Velocities"][start:stop] for start, stop in zip(starts, stops, strict=True)]
        stage.check(moving, np.concatenate(runs))


def into(stage: Stage) -> None:
    """Read into an array that is there already: no fresh memory, no copy."""
    stage.call("block = np.empty((64, 256, 256), dtype=np.uint8)")
    stage.call("grey.read_direct(block, np.s_[128:192])")
    with h5py.File(stage.data / "microscopy/volume.h5") as local:
        stage.check(stage.call("block"), local["grayscale"][128:192])


def copy(stage: Stage) -> None:
    """Copy a group into a local HDF5 file, as it is."""
    target = stage.scratch / "detector.h5"
    stage.call("import h5py")
    stage.call(f'local = h5py.File("{target}", "w")')
    stage.call('archive["beamline/frames.h5"].copy("entry/instrument", local)')
    stage.call('local["instrument/detector/data"]')
    stage.call("local.close()")
    with h5py.File(target) as copied, h5py.File(stage.data / "beamline/frames.h5") as served:
        ours, theirs = copied["instrument/detector/data"], served["entry/instrument/detector/data"]
        stage.check(ours[:], theirs[:])
        if (ours.chunks, dict(ours.attrs)) != (theirs.chunks, dict(theirs.attrs)):
            raise Corrupt(f"the copy has chunks {ours.chunks}, the original {theirs.chunks}")


def download(stage: Stage) -> None:
    """Whole files, parts as .npy, on the command line and with any HTTP client."""
    whole, plane, curled = (stage.scratch / name for name in ("volume.h5", "plane.npy", "curled.h5"))
    original = stage.data / "microscopy/volume.h5"
    stage.command("ndstream", "get", f"{stage.url}/microscopy/volume.h5", "-o", str(whole))
    stage.command("ndstream", "get", f"{stage.url}/microscopy/volume.h5::/grayscale[100]", "-o", str(plane))
    with h5py.File(original) as local:
        stage.check(np.load(plane), local["grayscale"][100])
    if shutil.which("curl"):
        address = f"{stage.url}/hdfstream/download/microscopy/volume.h5"
        stage.command("curl", "--silent", "--show-error", "--fail", address, "-o", str(curled))
    for copied in (whole, curled):
        if copied.exists() and copied.read_bytes() != original.read_bytes():
            raise Corrupt(f"{copied} is not what is served")


STEPS: list[tuple[str, Callable[[Stage], None]]] = [
    ("Browse an archive as if it were here", browse),
    ("Attributes, shapes and links, without moving data", attributes),
    ("Slices", slices),
    ("Lists, repeated and negative indices, masks", picks),
    ("Many parts in one request", many),
    ("Into an array that is there already", into),
    ("Copy into a local HDF5 file", copy),
    ("Download", download),
    ("Create a file", writing.create),
    ("Append from several clients at once", writing.together),
    ("Follow", writing.follow),
    ("All or nothing", writing.transaction),
    ("A crash in mid-commit", writing.crash),
    ("Record a stream, and follow it meanwhile", streaming.record),
    ("Play it again", streaming.play),
]
