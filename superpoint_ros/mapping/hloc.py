"""Features and matches as HDF5 files in the layout of hloc (github.com/cvg/Hierarchical-Localization)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from superpoint_ros import feature_files
from superpoint_ros.features import Features
from superpoint_ros.files import written_whole
from superpoint_ros.mapping.pairs import Pair


def write_features(path: Path, features: Callable[[str], Features], names: Sequence[str]) -> None:
    """Write the features of images, a group for each; see feature_files.write_hdf5."""
    with written_whole(path) as partial, h5py.File(partial, 'w', libver='latest') as file:
        for name in names:
            feature_files.write_hdf5(file, name, features(name))


def write_matches(
    path: Path, features: Callable[[str], Features], matches: Mapping[Pair, npt.NDArray[np.integer]]
) -> None:
    """Write the matches of pairs, (M, 2) rows in the features of the two images.

    The group NAME0/NAME1, with - for each / in a name, has `matches0` (N0,) int32, the row in the second image's
    features for each of the first's, or -1; and `matching_scores0` (N0,) float16, the cosine similarity, or 0.

    Source: match_features.py and utils/parsers.py of hloc.
    """
    with written_whole(path) as partial, h5py.File(partial, 'w', libver='latest') as file:
        for names, rows in matches.items():
            descriptors0, descriptors1 = (features(name).descriptors for name in names)
            partners, scores = np.full(len(descriptors0), -1, np.int32), np.zeros(len(descriptors0), np.float16)
            partners[rows[:, 0]] = rows[:, 1]
            scores[rows[:, 0]] = np.einsum('md,md->m', descriptors0[rows[:, 0]], descriptors1[rows[:, 1]])
            group = file.create_group('/'.join(name.replace('/', '-') for name in names))
            group['matches0'], group['matching_scores0'] = partners, scores
