"""Features as an HDF5 file for hloc, or as an .npz file for each image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from superpoint_ros.bags.job import Job
from superpoint_ros.bags.segments import images


def write_hdf5(job: Job, finished: Iterable[int], target: Path) -> None:
    """Write one HDF5 file with a group for each image, in the layout of hloc's feature files.

    The name of a group is <topic>/<stamp in ns> (see segments.images). It holds `keypoints` (N, 2) float32, (x, y) in
    pixels with centers at integers, as in hloc; `descriptors` (D, N) float32; `scores` (N,) float32; and `image_size`
    (width, height).
    """
    import h5py

    with h5py.File(target, 'w', libver='latest') as file:
        for name, features in images(job, finished):
            group = file.create_group(name)
            group['keypoints'] = features.keypoints
            group['keypoints'].attrs['uncertainty'] = 1.0  # pixels; hloc triangulates with it
            group['descriptors'] = features.descriptors.T
            group['scores'] = features.scores
            group['image_size'] = np.array(features.image_size)


def write_npz(job: Job, finished: Iterable[int], target: Path) -> None:
    """Write <topic>/<stamp in ns>.npz for each image (see segments.images), with the arrays of Features."""
    target.mkdir()
    for name, features in images(job, finished):
        path = target / f'{name}.npz'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            keypoints=features.keypoints,
            scores=features.scores,
            descriptors=features.descriptors,
            image_size=features.image_size,
        )
