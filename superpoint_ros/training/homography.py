"""Random homographies (SuperPoint, arXiv 1712.07629, section 5.2) and warping in torch.

Homographies are in pixels with centers at integers (see features.py), from the source image to the warped one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.geometry import UNIT_SQUARE, Transform, rotation

CORNERS = np.array(UNIT_SQUARE)


@dataclass(frozen=True)
class HomographyConfig:
    """How strong random homographies are.

    The warped image shows a quadrilateral of the source: a center crop, changed by a random perspective, then scaled,
    turned and moved. Lengths are parts of the sides of the image; normal distributions are cut off at two deviations.

    Args:
        crop: side of the center crop.
        perspective: standard deviation of how far the corners move along each side, at most a tenth of the crop.
        scale: standard deviation of the scale around 1.
        rotation: turns are uniform within plus or minus this many radians.
        translation: shifts are uniform within plus or minus this.

    Raises:
        ValueError: the perspective is so strong that it could fold the view over.
    """

    crop: float = 0.85
    perspective: float = 0.06
    scale: float = 0.15
    rotation: float = 1.57
    translation: float = 0.1

    def __post_init__(self) -> None:
        check_perspective(self.perspective, self.crop)


def check_perspective(deviation: float, side: float = 1.0) -> None:
    """Check the standard deviation of the corners of a view with sides of this length.

    Raises:
        ValueError: it is more than a tenth of the side, so the view could fold over.
    """
    if not 0 <= deviation <= 0.1 * side:
        raise ValueError(
            f'perspective: {deviation} is out of range, expected 0 to {0.1 * side:g}; a view could fold over'
        )


def sample_homography(rng: np.random.Generator, size: tuple[int, int], config: HomographyConfig) -> Transform:
    """A random homography (3, 3) from an image of this (width, height) to a warped image of the same size."""
    quad = config.crop * keystone(rng, config.perspective / config.crop)
    quad *= 1 + np.clip(rng.standard_normal(), -2, 2) * config.scale
    sides = np.array(size, np.float64)
    quad = (quad * sides) @ rotation(rng.uniform(-config.rotation, config.rotation)) / sides
    shift = rng.uniform(-config.translation, config.translation, 2)
    return homography_between((quad + 0.5 + shift) * sides - 0.5, CORNERS * sides - 0.5)


def keystone(rng: np.random.Generator, deviation: float) -> npt.NDArray[np.float64]:
    """The corners (4, 2) of a unit square around the origin in random perspective; cut off at two deviations."""
    across, down, slant = np.clip(rng.standard_normal(3), -2, 2) * deviation
    moves = [[across + slant, down], [slant - across, -down], [across - slant, down], [-across - slant, -down]]
    return CORNERS - 0.5 + moves


def homography_between(quad0: npt.NDArray[np.float64], quad1: npt.NDArray[np.float64]) -> Transform:
    """The homography (3, 3) that maps four points (4, 2) to four others, with positive depth inside."""
    homography = cv2.getPerspectiveTransform(quad0.astype(np.float32), quad1.astype(np.float32))
    # Both signs give the same map; with this one, warp_points takes the inside as being before the horizon.
    return np.asarray(homography / (homography[2] @ [*quad0.mean(axis=0), 1]), np.float64)


def warp_images(images: Tensor, homographies: Tensor, mode: str = 'bilinear') -> Tensor:
    """Warp images (B, C, H, W) by homographies (B, 3, 3) as cv2.warpPerspective does; outside the source is 0.

    Homographies are from source to warped pixels, float64 for accuracy; the mode is bilinear or nearest.
    """
    height, width = images.shape[-2:]
    sources = warp_points(pixel_grid(height, width, images.device), torch.linalg.inv(homographies.double()))
    half = torch.tensor([width - 1, height - 1], dtype=sources.dtype, device=images.device) / 2
    # Pixels beyond the horizon have no source: infinity would make grid_sample's weights NaN, so just outside instead.
    grid = (sources / half - 1).clamp(-2, 2).to(images.dtype).view(-1, height, width, 2)
    return F.grid_sample(images, grid, mode, 'zeros', align_corners=True)


def warp_points(points: Tensor, homographies: Tensor) -> Tensor:
    """Map points (N, 2) or (B, N, 2) by homographies (B, 3, 3) to (B, N, 2), in the dtype of the homographies.

    Points behind the horizon become infinite.
    """
    points = points.to(homographies.dtype)
    mapped = points @ homographies[:, :, :2].mT + homographies[:, None, :, 2]
    depth = mapped[..., 2:]
    return torch.where(depth > 0, mapped[..., :2] / depth, torch.inf)


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(H·W, 2) float64: (x, y) of every pixel, row by row."""
    y, x = (torch.arange(side, dtype=torch.float64, device=device) for side in (height, width))
    return torch.cartesian_prod(y, x).flip(-1)
