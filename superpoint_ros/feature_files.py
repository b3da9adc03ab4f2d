"""Features of one image in a file: .npz with the arrays of Features, or a group of an HDF5 file as hloc lays it out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from superpoint_ros.features import Features
from superpoint_ros.files import written_whole


def write_npz(path: Path, features: Features) -> None:
    """Write features to an .npz file whose arrays are the attributes of Features; it appears whole."""
    with written_whole(path) as partial:
        np.savez(partial, **vars(features))


def read_npz(path: Path) -> Features:
    """Read features from an .npz file.

    Raises:
        ValueError: the file is missing, or its arrays are not those of Features.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            attributes = {field.name: arrays[field.name] for field in dataclasses.fields(Features)}
        width, height = attributes['image_size'].tolist()
        return Features(**{**attributes, 'image_size': (width, height), 'checksum': str(attributes['checksum'])})
    except Exception as error:  # what NumPy, zipfile and zlib raise for broken files has no common base
        raise ValueError(f'{path}: not an .npz file of features ({error})') from error


def write_hdf5(file: Any, name: str, features: Features) -> None:
    """Write features to a group of an open h5py.File, in the layout of hloc's feature files.

    The group has `keypoints` (N, 2) float32, x and y in pixels with centers at integers; `descriptors` (D, N) float32;
    `scores` (N,) float32; and `image_size`, width and height.

    Source: extract_features.py and triangulation.py of github.com/cvg/Hierarchical-Localization.
    """
    group = file.create_group(name)
    group['keypoints'] = features.keypoints
    group['keypoints'].attrs['uncertainty'] = 1.0  # in pixels; hloc triangulates with it
    group['descriptors'] = features.descriptors.T
    group['scores'] = features.scores
    group['image_size'] = np.array(features.image_size)
