"""Random homographies (SuperPoint, arXiv 1712.07629, section 5.2) and warping by them, in NumPy and torch.

Homographies are in pixels with centers at integers (see features.py), from the source image to the warped one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.geometry import Transform


@dataclass(frozen=True)
class HomographyConfig:
    """How strong random homographies are.

    The warped image shows a quadrilateral of the source: a center crop, changed by a random perspective, then scaled,
    turned and moved. Lengths are parts of the image's sides; normal distributions are cut off at two deviations.

    Args:
        crop: side of the center crop.
        perspective: standard deviation of how far the corners move, along each side; at most a tenth of the crop.
        scale: standard deviation of the scaling around 1.
        rotation: turns are uniform within plus or minus this many radians.
        translation: shifts are uniform within plus or minus this.
        beyond: whether the view may reach beyond the source image, where there is nothing to see; otherwise it is
            shrunk and moved until it fits.

    Raises:
        ValueError: so much perspective could fold the view over.
    """

    crop: float = 0.85
    perspective: float = 0.06
    scale: float = 0.15
    rotation: float = 1.57
    translation: float = 0.1
    beyond: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.perspective <= 0.1 * self.crop:
            most = 0.1 * self.crop
            raise ValueError(
                f'perspective: {self.perspective} is out of range, expected 0 to {most:g}, a tenth of the crop'
            )


def sample_homography(rng: np.random.Generator, size: tuple[int, int], config: HomographyConfig) -> Transform:
    """A random homography (3, 3) from an image of this (width, height) to a warped one of the same size."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    keystone_x, keystone_y, slant = np.clip(rng.standard_normal(3), -2, 2) * config.perspective
    quad = (corners - 0.5) * config.crop
    quad += [
        [keystone_x + slant, keystone_y],
        [-keystone_x + slant, -keystone_y],
        [keystone_x - slant, keystone_y],
        [-keystone_x - slant, -keystone_y],
    ]
    quad *= 1 + np.clip(rng.standard_normal(), -2, 2) * config.scale
    angle = rng.uniform(-config.rotation, config.rotation)
    sides = np.array(size, np.float64)
    quad = (quad * sides) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / sides
    shift = rng.uniform(-config.translation, config.translation, 2)
    if not config.beyond:
        quad /= max(1, np.ptp(quad, axis=0).max())
        shift = np.clip(shift, -0.5 - quad.min(axis=0), 0.5 - quad.max(axis=0))
    seen = (quad + 0.5 + shift) * sides - 0.5
    whole = corners * sides - 0.5
    homography = cv2.getPerspectiveTransform(seen.astype(np.float32), whole.astype(np.float32))
    # Of the two signs that give the same map, the one by which what is seen lies before the horizon, not behind it.
    return homography / (homography[2] @ [*seen.mean(axis=0), 1])


def warp_images(images: Tensor, homographies: Tensor, mode: str = 'bilinear') -> Tensor:
    """Warp each image by its homography; what lies beyond the source becomes 0.

    Args:
        images: (B, C, H, W) float.
        homographies: (B, 3, 3), float64 for accuracy, from source to warped pixels.
        mode: bilinear or nearest.

    Returns:
        (B, C, H, W): as cv2.warpPerspective.
    """
    height, width = images.shape[-2:]
    sources = warp_points(pixel_grid(height, width, images.device), torch.linalg.inv(homographies.double()))
    half = torch.tensor([width - 1, height - 1], dtype=sources.dtype, device=images.device) / 2
    # Pixels beyond the horizon have no source: infinity would make grid_sample's weights NaN, so just outside instead.
    grid = (sources / half - 1).clamp(-2, 2).to(images.dtype).view(-1, height, width, 2)
    return F.grid_sample(images, grid, mode, 'zeros', align_corners=True)


def valid_mask(homographies: Tensor, size: tuple[int, int], erosion: float = 0) -> Tensor:
    """Which pixels of the warped images show the source.

    Args:
        homographies: (B, 3, 3), from source to warped pixels.
        size: (width, height) of source and warped image.
        erosion: pixels this near to where nothing is seen do not count either.

    Returns:
        (B, 1, H, W) bool.
    """
    width, height = size
    sources = warp_points(pixel_grid(height, width, homographies.device), torch.linalg.inv(homographies.double()))
    limit = torch.tensor([width - 1, height - 1], dtype=sources.dtype, device=sources.device)
    mask = ((sources >= 0) & (sources <= limit)).all(dim=-1).view(-1, 1, height, width)
    if erosion:
        reach = round(erosion)
        unseen = F.pad((~mask).float(), (reach,) * 4, value=0.0)
        mask = F.max_pool2d(unseen, 2 * reach + 1, 1) == 0
    return mask


def warp_points(points: Tensor, homographies: Tensor) -> Tensor:
    """Map points (N, 2) or (B, N, 2) by homographies (B, 3, 3) to (B, N, 2), in the homographies' dtype.

    Points behind the horizon come out as infinite.
    """
    points = points.to(homographies.dtype)
    mapped = points @ homographies[:, :, :2].mT + homographies[:, None, :, 2]
    depth = mapped[..., 2:]
    return torch.where(depth > 0, mapped[..., :2] / depth, torch.inf)


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(H·W, 2) float64: (x, y) of every pixel, row by row."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64, device=device),
        torch.arange(width, dtype=torch.float64, device=device),
        indexing='ij',
    )
    return torch.stack([x, y], dim=-1).view(-1, 2)
