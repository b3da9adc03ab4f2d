"""Features of one image and matches of two, as NumPy arrays.

Pixels are (x, y), float32, with pixel centers at integers: (0, 0) is the center of the top-left pixel, as in OpenCV
and in ROS. Everything public in this package uses this convention, and sizes are (width, height).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
"""A gray image (H, W)."""


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of one image and their descriptors, best first.

    Args:
        keypoints: (N, 2) float32, pixels (x, y) of the image that was given, whatever size the network ran at.
        scores: (N,) float32 in [0, 1], descending.
        descriptors: (N, D) float32 with unit rows; D is 0 for a detector without descriptors.
        image_size: (width, height) of the image in pixels; (0, 0) if unknown.
        checksum: SHA-256 of the model's weights; empty if unknown. Descriptors of two models cannot be compared.

    Raises:
        ValueError: the arrays do not have these shapes and types.
    """

    keypoints: Floats
    scores: Floats
    descriptors: Floats
    image_size: tuple[int, int]
    checksum: str = ''

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        expected = {'keypoints': (count, 2), 'scores': (count,), 'descriptors': (count, *self.descriptors.shape[1:])}
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f'{name}: expected float32 of shape {shape}, got {array.dtype} of shape {array.shape}')
        if self.descriptors.ndim != 2:
            raise ValueError(f'descriptors: expected shape ({count}, D), got {self.descriptors.shape}')

    def __len__(self) -> int:
        return len(self.keypoints)

    def __repr__(self) -> str:
        width, height = self.image_size
        return f'Features({len(self)} keypoints, {self.descriptors.shape[1]}-D descriptors, {width}×{height} image)'

    def __getitem__(self, index: slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Features:
        """The features at a slice, an index array or a boolean mask."""
        return replace(
            self, keypoints=self.keypoints[index], scores=self.scores[index], descriptors=self.descriptors[index]
        )


def joined(parts: Sequence[Features]) -> Features:
    """The features of several sets, one after the other; image size and checksum are those of the first set."""
    return replace(
        parts[0],
        keypoints=np.concatenate([part.keypoints for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        descriptors=np.concatenate([part.descriptors for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class Matches:
    """Matched features of two images, in the order of the first image's features.

    Args:
        indices: (M, 2) uint32, rows in the features of the first and of the second image.
        similarities: (M,) float32, cosine similarity of the two descriptors, in [-1, 1].

    Raises:
        ValueError: the arrays do not have these shapes and types.
    """

    indices: npt.NDArray[np.uint32]
    similarities: Floats

    def __post_init__(self) -> None:
        count = len(self.similarities)
        if self.indices.shape != (count, 2) or self.indices.dtype != np.uint32:
            raise ValueError(
                f'indices: expected uint32 of shape {(count, 2)}, got {self.indices.dtype} of {self.indices.shape}'
            )
        if self.similarities.shape != (count,) or self.similarities.dtype != np.float32:
            raise ValueError(f'similarities: expected float32 of shape ({count},), got {self.similarities.dtype}')

    def __len__(self) -> int:
        return len(self.similarities)

    def __repr__(self) -> str:
        return f'Matches({len(self)})'

    def __getitem__(self, index: slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Matches:
        """The matches at a slice, an index array or a boolean mask."""
        return Matches(self.indices[index], self.similarities[index])
