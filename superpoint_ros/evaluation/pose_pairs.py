"""Pairs of real images with the true relative pose of their cameras.

A pair list has the layout of SuperGlue (Sarlin et al., arXiv 1911.11763), in which ScanNet-1500, YFCC and MegaDepth are
published: one pair a line, `name0 name1 rot0 rot1 K0 K1 T_0to1`, matrices row by row. K0 and K1 are (3, 3) camera
matrices of the stored images, without lens distortion; T_0to1 is the (4, 4) transform from the coordinates of camera 0
to those of camera 1; rot0 and rot1 are the counterclockwise quarter turns that bring the images upright.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from superpoint_ros.mapping.pairs import read_lines

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PosePair:
    """Two images of one scene."""

    names: tuple[str, str]
    """Of the image files, relative to their folder."""
    turns: tuple[int, int]
    """Counterclockwise quarter turns, 0 to 3, that bring each image upright."""
    cameras: tuple[Doubles, Doubles]
    """Two (3, 3) camera matrices."""
    pose: Doubles
    """(4, 4), from the coordinates of camera 0 to those of camera 1."""

    @property
    def gap(self) -> int | None:
        """How far apart the images are in their sequence, by the numbers at the end of their names; None without."""
        first, second = (re.fullmatch(r'(.*?)(\d+)', str(Path(name).with_suffix(''))) for name in self.names)
        if first is None or second is None or first[1] != second[1]:
            return None
        return abs(int(first[2]) - int(second[2]))


def read_pairs(path: Path) -> list[PosePair]:
    """Read a pair list; empty lines are skipped.

    Raises:
        ValueError: the file cannot be read, has no pairs, or a line is not in the layout.
    """
    pairs = []
    for number, fields in read_lines(path):
        try:
            pairs.append(_parse(fields))
        except ValueError as error:
            raise ValueError(f'{path}, line {number}: {error}') from error
    if not pairs:
        raise ValueError(f'{path}: no pairs; expected lines of name0 name1 rot0 rot1 K0 K1 T_0to1')
    return pairs


def _parse(fields: Sequence[str]) -> PosePair:
    if len(fields) != 38:
        raise ValueError(f'expected name0 name1 rot0 rot1 K0 K1 T_0to1, 38 fields, got {len(fields)}')
    if not {fields[2], fields[3]} <= set('0123'):
        raise ValueError(f'rot0 and rot1: expected 0, 1, 2 or 3 quarter turns, got {fields[2]} and {fields[3]}')
    numbers = np.array([float(number) for number in fields[4:]])
    cameras, pose = (numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)), numbers[18:].reshape(4, 4)
    if not np.isfinite(numbers).all():
        raise ValueError('K0, K1 and T_0to1: expected finite numbers')
    if any(np.any(camera.diagonal() <= 0) or np.any(camera[2] != (0, 0, 1)) for camera in cameras):
        raise ValueError('K0 and K1: expected camera matrices with positive focal lengths and a last row of 0 0 1')
    rotation, translation = pose[:3, :3], pose[:3, 3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2) or np.linalg.det(rotation) < 0:
        raise ValueError('T_0to1: expected a rotation in the upper left 3×3 numbers')
    if not translation.any():
        raise ValueError('T_0to1: expected a translation that is not 0, or its direction is undefined')
    return PosePair((fields[0], fields[1]), (int(fields[2]), int(fields[3])), cameras, pose)
