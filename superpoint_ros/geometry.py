"""Resizing, cropping, padding and warping of points as 3×3 transforms.

Pixel centers are at integers (see features.py), so a resize by s maps x to (x + 0.5)·s − 0.5. Only this module has that
formula.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Transform = npt.NDArray[np.float64]

UNIT_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
"""Its corners (x, y), clockwise in an image."""


def rotation(angle: float) -> npt.NDArray[np.float64]:
    """The matrix (2, 2) that turns row vectors (x, y) by an angle in radians, from x towards y."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def resize_transform(scale_x: float, scale_y: float) -> Transform:
    """The (3, 3) transform of points when an image is resized by these factors, new size / old size."""
    return np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5], [0, 0, 1]], dtype=np.float64)


def crop_transform(left: float, top: float) -> Transform:
    """The (3, 3) transform of points when an image is cropped at (left, top); negative values pad."""
    return np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], dtype=np.float64)


def adapt_homography(homography: Transform, transform0: Transform, transform1: Transform) -> Transform:
    """The (3, 3) homography from a first to a second image after both were resized or cropped by (3, 3) transforms."""
    return transform1 @ homography @ np.linalg.inv(transform0)


def transform_points(transform: Transform, points: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Apply a (3, 3) transform to (..., 2) points (x, y); the result keeps the points' dtype.

    Points at infinity come out as inf or NaN.
    """
    mapped = points @ transform[:, :2].T + transform[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        return (mapped[..., :2] / mapped[..., 2:]).astype(points.dtype)
