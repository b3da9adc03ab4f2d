"""Features as an HDF5 file for hloc, or as an .npz file for each image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from superpoint_ros import feature_files
from superpoint_ros.bags.job import Job
from superpoint_ros.bags.segments import images


def write_hdf5(job: Job, finished: Iterable[int], target: Path) -> None:
    """Write one HDF5 file with a group <topic>/<stamp in ns> for each image; see feature_files and segments.images."""
    import h5py

    with h5py.File(target, 'w', libver='latest') as file:
        for name, features in images(job, finished):
            feature_files.write_hdf5(file, name, features)


def write_npz(job: Job, finished: Iterable[int], target: Path) -> None:
    """Write <topic>/<stamp in ns>.npz for each image; see feature_files and segments.images."""
    target.mkdir()
    for name, features in images(job, finished):
        feature_files.write_npz(target / f'{name}.npz', features)
