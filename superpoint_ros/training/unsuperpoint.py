"""UnSuperPoint (arXiv 1907.04011) learns from pairs of an image and its warped self alone; nothing is labeled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from superpoint_ros.networks.superpoint import CELL
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.training.homography import pixel_grid, valid_mask, warp_images, warp_points
from superpoint_ros.training.losses import DescriptorLossConfig, descriptor_loss
from superpoint_ros.training.photometric import PhotometricConfig, augment, generators
from superpoint_ros.training.stage import Batch, Stage, as_gray


@dataclass(frozen=True)
class UnSuperPointLossConfig:
    """How much each term counts. The paper adds terms up; here each is a mean, so its weights are others (see below).

    With M points and D² entries of the correlation matrix, the paper's sums divided by M are these means with the
    weights 1, 2, 1, 100, 0.001·M for the descriptors, and 0.03·D²/M for decorrelation, M being 1200. The weight of the
    score term is not the paper's 2 but 0.1: it is quadratic in the spread of the scores and the usp term linear, so
    while scores still differ from image to image by as much as from point to point, 2 presses all to the same value.

    Args:
        position: of the distance between corresponding points.
        score: of the squared difference of their scores.
        usp: of the scores' correlation with the distance.
        uniformity: of how far positions in the cells are from uniform ones.
        decorrelation: of the descriptors' elements among themselves.
        reach: points correspond if they are nearest and within this many pixels.
    """

    position: float = 1.0
    score: float = 0.1
    usp: float = 1.0
    uniformity: float = 100.0
    decorrelation: float = 1.6
    reach: float = 4.0


class Correspondences(NamedTuple):
    """For each of the M points of the first images, its nearest among those of the second."""

    partners: Tensor
    """(B, M) int64."""
    distances: Tensor
    """(B, M), pixels of the second image."""
    close: Tensor
    """(B, M) bool: the second image shows the point, and its partner is within reach."""


class UnSuperPointTraining(Stage):
    """All three heads at once, siamese, on an image and its warped self, each photometrically augmented in its own way.

    Args:
        network: its shape.
        photometric: how strongly the pictures are changed.
        losses: how much each term counts.
        descriptors: the loss of the descriptors, at cells rather than at points as in the paper.
        optimizer: as in Stage: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(
        self,
        network: UnSuperPointConfig,
        photometric: PhotometricConfig,
        losses: UnSuperPointLossConfig,
        descriptors: DescriptorLossConfig,
        **optimizer: Any,
    ) -> None:
        super().__init__(UnSuperPoint(network), photometric, **optimizer)
        self.losses, self.descriptors = losses, descriptors

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        weights, homographies = self.losses, batch['homography']
        images0 = as_gray(batch['image'])
        size = images0.shape[-1], images0.shape[-2]
        images1, valid1 = warp_images(images0, homographies), valid_mask(homographies, size)
        rngs = generators(batch['seed'])
        pair = torch.cat([augment(images, self.photometric, rngs) for images in (images0, images1)])
        # Both images go through the network at once, so that batch norm sees them as one batch.
        outputs = self(pair)
        scores0, scores1 = outputs['scores'].flatten(1).chunk(2)
        points0, points1 = points_of(outputs['positions']).chunk(2)
        descriptors0, descriptors1 = outputs['descriptors'].chunk(2)

        found = correspondences(points0, points1, homographies, size, weights.reach)
        partner_scores = scores1.gather(1, found.partners)
        terms = {
            'position': mean_of(found.distances, found.close),
            'score': mean_of((scores0 - partner_scores) ** 2, found.close),
            'usp': usp_loss(scores0, partner_scores, found),
            'uniformity': uniformity_loss(outputs['positions']),
            'decorrelation': decorrelation_loss(outputs['descriptors']),
        }
        descriptor = descriptor_loss(descriptors0, descriptors1, homographies, valid1, self.descriptors, rngs)
        loss = self.descriptors.weight * descriptor
        for name, term in terms.items():
            loss = loss + getattr(weights, name) * term
        figures = {f'loss/{name}': term.detach() for name, term in (terms | {'descriptor': descriptor}).items()}
        return loss, figures | health(scores0, outputs['positions'], found)


def points_of(positions: Tensor) -> Tensor:
    """(B, M, 2): pixels (x, y) of the points from their positions (B, 2, H/8, W/8) in the cells."""
    rows, columns = positions.shape[-2:]
    corners = pixel_grid(rows, columns, positions.device).to(positions.dtype)
    return (positions.flatten(2).mT + corners) * CELL - 0.5


def correspondences(
    points0: Tensor, points1: Tensor, homographies: Tensor, size: tuple[int, int], reach: float
) -> Correspondences:
    """Which points see the same (UnSuperPoint, section 3.3.1).

    Args:
        points0: (B, M, 2), pixels of the images.
        points1: (B, M, 2), pixels of the warped images.
        homographies: (B, 3, 3), from image to warped image.
        size: (width, height) of the images.
        reach: the greatest distance of points that correspond.
    """
    moved = warp_points(points0, homographies).float().clamp(-1e4, 1e4)
    with torch.no_grad():
        partners = torch.cdist(moved, points1).argmin(dim=2)
        last = torch.tensor(size, device=moved.device) - 0.5
        shown = ((moved >= -0.5) & (moved <= last)).all(dim=2)
    distances = torch.linalg.vector_norm(moved - points1.gather(1, partners[..., None].expand(-1, -1, 2)), dim=2)
    return Correspondences(partners, distances, shown & (distances.detach() <= reach))


def usp_loss(scores0: Tensor, scores1: Tensor, found: Correspondences) -> Tensor:
    """Makes points that repeat better than the mean of their pair score high, and the others low (equations 6 to 8).

    Args:
        scores0: (B, M), of the first images' points.
        scores1: (B, M), of their partners.
        found: the correspondences.
    """
    distances, close = found.distances, found.close
    count = close.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (distances * close).sum(dim=1, keepdim=True) / count
    return mean_of((scores0 + scores1) / 2 * (distances - mean), close)


def uniformity_loss(positions: Tensor) -> Tensor:
    """How far the positions (B, 2, H/8, W/8) are from uniform in their cells, in x and in y (equation 10).

    The network would otherwise put points where it is sure of finding them again: on the edge that two cells share.
    """
    ordered = positions.flatten(2).sort(dim=2).values
    uniform = torch.linspace(0, 1, ordered.shape[2], device=positions.device)
    return ((ordered - uniform) ** 2).mean()


def decorrelation_loss(descriptors: Tensor) -> Tensor:
    """The mean squared correlation of any two elements of the descriptors (B, D, H/8, W/8) (equations 13 and 14)."""
    centered = descriptors.flatten(2) - descriptors.flatten(2).mean(dim=2, keepdim=True)
    standardized = centered / torch.linalg.vector_norm(centered, dim=2, keepdim=True).clamp(min=1e-6)
    squares = (standardized @ standardized.mT) ** 2
    size = squares.shape[1]
    diagonal = squares.diagonal(dim1=1, dim2=2).sum()
    return (squares.sum() - diagonal) / (len(squares) * size * max(1, size - 1))


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values; 0 if there are none."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


@torch.no_grad()
def health(scores: Tensor, positions: Tensor, found: Correspondences) -> dict[str, Tensor]:
    """Figures that show a collapse: scores that are all the same, and points that stay in one place of their cells.

    Returns:
        spread/scores: their standard deviation (half scored 0, half scored 1: 0.5).
        spread/positions: the same, 0.289 if uniform in the cell.
        matched: the share of the points that found a partner.
        repeats/high and repeats/low: the same for the half of the points that scored higher, and lower.
    """
    high = scores > scores.median(dim=1, keepdim=True).values
    close = found.close.float()
    return {
        'spread/scores': scores.std(),
        'spread/positions': positions.std(),
        'matched': close.mean(),
        'repeats/high': mean_of(close, high),
        'repeats/low': mean_of(close, ~high),
    }
