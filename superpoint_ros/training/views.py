"""Pairs of views of one photograph, related by a known homography: what the descriptors are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Image
from superpoint_ros.geometry import Transform, rotation, transform_points
from superpoint_ros.training.homography import (
    CORNERS,
    HomographyConfig,
    check_perspective,
    homography_between,
    keystone,
    sample_homography,
)

BEYOND = 0.75
"""A view spans at most 1 / BEYOND of the photograph's sides; beyond its edges the photograph is mirrored."""
FRAMES = HomographyConfig(crop=0.9)
"""Random homographies of the visible part of a view with black borders."""


@dataclass(frozen=True)
class ViewConfig:
    """How the two views of a pair differ.

    Both views are cut from the photograph itself, so a view that zooms in shows detail that the other lacks.

    Args:
        zoom: least and greatest zoom, in pixels of the view per pixel of the photograph. Each view draws its own, on a
            logarithmic scale.
        rotation: one of the views is turned by at most this many radians either way; smaller turns are likelier, by a
            triangular distribution.
        perspective: standard deviation of how far the corners of each view move, as a part of its sides; at most 0.1.
        stretch: each view's aspect ratio changes by at most this factor minus one.
        translation: part of its sides by which the finer view may reach beyond the coarser one.
        borders: share of the views that have black borders, like rectified images.
    """

    zoom: tuple[float, float] = (0.75, 1.25)
    rotation: float = 1.2
    perspective: float = 0.06
    stretch: float = 0.3
    translation: float = 0.25
    borders: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f'zoom: expected two positive numbers, the smaller one first, got {self.zoom}')
        check_perspective(self.perspective)


def sample_views(
    rng: np.random.Generator, photograph: tuple[int, int], size: tuple[int, int], config: ViewConfig
) -> tuple[Transform, Transform]:
    """Draw two overlapping views of a photograph; sizes are (width, height).

    Returns:
        Two homographies (3, 3), from pixels of the photograph to pixels of each view.
    """
    sides, whole = np.array(size, np.float64), np.array(photograph, np.float64)
    greatest = config.zoom[1]
    least = min(max(config.zoom[0], BEYOND * (sides / whole).max()), greatest)
    spans = sides / np.exp(rng.uniform(np.log(least), np.log(greatest), (2, 1)))  # in pixels of the photograph
    fine, coarse = np.argsort(spans[:, 0])
    centers = np.empty((2, 2))
    centers[coarse] = whole / 2 + rng.uniform(-0.5, 0.5, 2) * np.maximum(whole - spans[coarse], 0)
    room = (spans[coarse] - spans[fine]) / 2 + config.translation * spans[fine]
    centers[fine] = centers[coarse] + rng.uniform(-1, 1, 2) * room
    angles = rng.permutation([0, rng.triangular(-1, 0, 1) * config.rotation])
    mirror = [rng.choice([-1, 1]), 1]
    views = []
    for span, center, angle in zip(spans, centers, angles, strict=True):
        stretch = (1 + config.stretch) ** rng.uniform(-0.5, 0.5)
        quad = keystone(rng, config.perspective) * span * [stretch, 1 / stretch] @ rotation(angle) * mirror + center
        views.append(homography_between(quad - 0.5, CORNERS * sides - 0.5))
    return views[0], views[1]


def sample_frame(rng: np.random.Generator, size: tuple[int, int], borders: float) -> npt.NDArray[np.bool_]:
    """Draw the pixels (H, W) of a view of this (width, height) that are not black borders.

    With probability `borders`, they are those of a whole image after a random homography.
    """
    shown = np.ones(size[::-1], np.uint8)
    if rng.random() < borders:
        shown = cv2.warpPerspective(shown, sample_homography(rng, size, FRAMES), size, flags=cv2.INTER_NEAREST)
    return np.asarray(shown, bool)


def cut(photograph: Image, view: Transform, size: tuple[int, int]) -> Image:
    """Render a view (3, 3) of a photograph at (width, height), without aliasing where it shrinks the photograph."""
    back = np.asarray(np.linalg.inv(view), np.float64)
    origin, right, down = transform_points(back, np.array(size) / 2 + np.array([[0, 0], [1, 0], [0, 1]]))
    zoom = abs(np.linalg.det([right - origin, down - origin])) ** -0.5
    if zoom < 1:
        photograph = np.asarray(cv2.GaussianBlur(photograph, (0, 0), 0.4 / zoom), np.uint8)
    return np.asarray(cv2.warpPerspective(photograph, view, size, borderMode=cv2.BORDER_REFLECT), np.uint8)
