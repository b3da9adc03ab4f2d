"""A camera that moves over photographs in a known way, so that wrong matches are known.

The position of the camera depends only on the time: two stamps give the homography between their images.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from superpoint_ros.features import Image
from superpoint_ros.geometry import Transform, crop_transform

SIZE = (640, 480)
"""(width, height) in pixels of the camera's images."""

ROUND = 4.0
"""Seconds for one round trip over a photograph, before the next photograph."""

COVERAGE = 0.8
"""Largest share of the width or height of a photograph that the camera sees."""

NOISE = 2.0
"""Standard deviation of the sensor noise, in gray values of 255."""


class Scene:
    """Renders the images of the moving camera, which shows photographs in turn."""

    def __init__(self, photographs: list[Image]) -> None:
        self.photographs = photographs

    def image(self, time: float, rng: np.random.Generator) -> Image:
        """The image at a time in seconds: (480, 640) uint8, with noise and changing brightness."""
        photograph = self.photographs[self._index(time)]
        view = view_transform(time, (photograph.shape[1], photograph.shape[0]))
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        image = cv2.warpPerspective(photograph, view, SIZE, flags=flags).astype(np.float32)
        image *= 1 + 0.15 * math.sin(0.9 * time)
        image += NOISE * rng.standard_normal(image.shape, np.float32)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def motion(self, time0: float, time1: float) -> Transform | None:
        """The (3, 3) homography from the image at time0 to that at time1; None if they show different photographs."""
        if self._index(time0) != self._index(time1):
            return None
        height, width = self.photographs[self._index(time0)].shape
        views = [view_transform(time, (width, height)) for time in (time0, time1)]
        return np.linalg.inv(views[1]) @ views[0]

    def _index(self, time: float) -> int:
        return int(time // ROUND) % len(self.photographs)


def photographs() -> list[Image]:
    """The photographs of scikit-image.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError('the photographs of the demo need scikit-image: pip install superpoint_ros[demo]') from error
    pictures = (data.stereo_motorcycle()[0], data.astronaut(), data.coffee(), data.camera())
    return [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) if p.ndim == 3 else p for p in pictures]  # type: ignore[misc]


def view_transform(time: float, photograph: tuple[int, int]) -> Transform:
    """The (3, 3) homography from the camera's pixels to those of a photograph of this (width, height).

    The camera shifts, turns, zooms and tilts; it never sees beyond the edge of the photograph.
    """
    phase = 2 * math.pi * time / ROUND
    (width, height), (photo_width, photo_height) = SIZE, photograph
    scale = COVERAGE * min(photo_width / width, photo_height / height) * (0.9 + 0.06 * math.cos(phase))
    angle = math.radians(7) * math.sin(phase)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    shift_x, shift_y = 0.06 * width * math.sin(phase), 0.05 * height * math.sin(2 * phase)

    tilt = np.array([[1, 0, 0], [0, 1, 0], [8e-5 * math.sin(phase), 8e-5 * math.cos(2 * phase), 1]])
    x, y = (photo_width - 1) / 2 + scale * shift_x, (photo_height - 1) / 2 + scale * shift_y
    to_photograph = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
    return to_photograph @ tilt @ crop_transform((width - 1) / 2, (height - 1) / 2)
