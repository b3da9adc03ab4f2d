"""UnSuperPoint (arXiv 1907.04011) learns from pairs of views alone, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.decode import CELL
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.training.homography import pixel_grid, warp_points
from superpoint_ros.training.losses import DescriptorLossConfig, descriptor_loss, mean_of, mutual, sample, shown
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.stage import Batch, Stage, visible_of

RIGHT = 3.0
"""Distance in pixels up to which a match is correct."""


@dataclass(frozen=True)
class UnSuperPointLossConfig:
    """Weights of the terms.

    The paper sums each term; here each is a mean. With M = 1200 points and D² entries of the correlation matrix, the
    paper's sums divided by M are these means with the weights 1, 2, 1, 100, 0.001·M for the descriptors and 0.03·D²/M
    for decorrelation. The weight of the score term is 0.1 instead of 2: this term is quadratic in the spread of the
    scores and `usp` is linear, so a weight of 2 collapses all scores to one value early in training. The matching term
    is not in the paper; in the first steps it makes all scores low, because hardly any match is correct.

    Args:
        position: distance between corresponding points.
        score: squared difference of their scores.
        usp: correlation of the scores with the distance.
        matching: cross-entropy between the scores and whether the descriptors match the points correctly.
        uniformity: deviation of the positions in the cells from a uniform distribution.
        decorrelation: correlation between the elements of the descriptors.
        reach: points correspond if they are mutual nearest neighbors within this many pixels.
    """

    position: float = 1.0
    score: float = 0.1
    usp: float = 1.0
    matching: float = 0.0
    uniformity: float = 100.0
    decorrelation: float = 1.6
    reach: float = 4.0


class Correspondences(NamedTuple):
    """For each of the M points of the first views, its nearest neighbor among those of the second."""

    partners: Tensor
    """(B, M) int64."""
    distances: Tensor
    """(B, M), pixels of the second view."""
    close: Tensor
    """(B, M) bool: the second view shows the point, and its partner is mutual and within reach."""


class UnSuperPointTraining(Stage):
    """All three heads at once, on two views with different photometric changes.

    Args:
        network: configuration of the network.
        photometric: strength of the photometric changes.
        losses: weights of the terms.
        descriptors: loss of the descriptors, on a grid instead of at the points as in the paper.
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
        pair, rngs = self.pair(batch)
        outputs = self(pair)
        visible = visible_of(batch)
        scores = scores0, scores1 = outputs['scores'].flatten(1).chunk(2)
        points = points0, points1 = points_of(outputs['positions']).chunk(2)
        descriptors = descriptors0, descriptors1 = outputs['descriptors'].chunk(2)

        found = correspondences(points0, points1, homographies, visible, weights.reach)
        partner_scores = scores1.gather(1, found.partners)
        descriptor = descriptor_loss(descriptors0, descriptors1, homographies, visible, self.descriptors, rngs)
        terms = {
            'position': mean_of(found.distances, found.close),
            'score': mean_of((scores0 - partner_scores) ** 2, found.close),
            'usp': usp_loss(scores0, partner_scores, found),
            'uniformity': uniformity_loss(outputs['positions']),
            'decorrelation': decorrelation_loss(outputs['descriptors']),
        }
        if weights.matching:
            terms['matching'] = matching_loss(scores, points, descriptors, homographies, visible)
        loss = self.descriptors.weight * descriptor
        for name, term in terms.items():
            loss = loss + getattr(weights, name) * term
        figures = {f'loss/{name}': term for name, term in (terms | {'descriptor': descriptor}).items()}
        return loss, figures | health(scores0, outputs['positions'], found)


def points_of(positions: Tensor) -> Tensor:
    """Pixels (x, y) of the points, (B, M, 2), from their positions in the cells, (B, 2, H/8, W/8)."""
    rows, columns = positions.shape[-2:]
    corners = pixel_grid(rows, columns, positions.device).to(positions.dtype)
    return (positions.flatten(2).mT + corners) * CELL - 0.5


def correspondences(
    points0: Tensor, points1: Tensor, homographies: Tensor, visible: tuple[Tensor, Tensor], reach: float
) -> Correspondences:
    """Points of two views that correspond (UnSuperPoint, section 3.3.1; here only mutual nearest neighbors do).

    Points are (B, M, 2) in pixels, homographies (B, 3, 3) from first to second view. Corresponding points are at most
    `reach` pixels apart, at visible pixels (B, 1, H, W) of both views.
    """
    moved = warp_points(points0, homographies).float().clamp(-1e4, 1e4)
    with torch.no_grad():
        between = torch.cdist(moved, points1)
        partners = between.argmin(dim=2)
        seen = shown(points0, visible[0]) & shown(moved, visible[1]) & mutual(partners, between.argmin(dim=1))
    distances = _distances(moved, points1, partners)
    return Correspondences(partners, distances, seen & (distances.detach() <= reach))


def _distances(points0: Tensor, points1: Tensor, partners: Tensor) -> Tensor:
    """(B, M): from points (B, M, 2) to their partners (B, M) among other points (B, M, 2)."""
    return torch.linalg.vector_norm(points0 - points1.gather(1, partners[..., None].expand(-1, -1, 2)), dim=2)


def usp_loss(scores0: Tensor, scores1: Tensor, found: Correspondences) -> Tensor:
    """Raises the scores of points that repeat better than the mean of their pair, lowers the others (equations 6 to 8).

    Scores are (B, M), those of the first views' points and those of their partners.
    """
    count = found.close.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (found.distances * found.close).sum(dim=1, keepdim=True) / count
    return mean_of((scores0 + scores1) / 2 * (found.distances - mean), found.close)


def matching_loss(
    scores: Sequence[Tensor],
    points: Sequence[Tensor],
    descriptors: Sequence[Tensor],
    homographies: Tensor,
    visible: tuple[Tensor, Tensor],
) -> Tensor:
    """Cross-entropy between the scores and whether mutual nearest descriptors match the points correctly.

    A score becomes the probability that the point finds its partner (SiLK, Gleize et al., arXiv 2304.06194, section
    3.3). Points and descriptors get no gradient. The loss is the mean over the points whose place the other view shows;
    0 if there are none. So points in black borders and at their edges get low scores.

    Args:
        scores: (B, M) of first and second views.
        points: (B, M, 2) pixels of both.
        descriptors: (B, D, H/8, W/8) of both.
        homographies: (B, 3, 3), from first to second view.
        visible: (B, 1, H, W) bool of both.
    """
    with torch.no_grad():
        first, second = (F.normalize(sample(*views), dim=-1) for views in zip(descriptors, points, strict=True))
        similarity = (first @ second.mT).float()  # argmax is slow in bfloat16
        forth, back = similarity.argmax(dim=2), similarity.argmax(dim=1)
        moved = warp_points(points[0], homographies).float().clamp(-1e4, 1e4)
        right0 = mutual(forth, back) & (_distances(moved, points[1], forth) <= RIGHT)
        right1 = mutual(back, forth) & right0.gather(1, back)
        returned = warp_points(points[1], torch.linalg.inv(homographies)).float()
        seen = torch.cat([shown(moved, visible[1]), shown(returned, visible[0])])
    probabilities = torch.cat(list(scores)).clamp(1e-4, 1 - 1e-4)
    with torch.autocast(probabilities.device.type, enabled=False):
        losses = F.binary_cross_entropy(probabilities, torch.cat([right0, right1]).float(), reduction='none')
    return mean_of(losses, seen)


def uniformity_loss(positions: Tensor) -> Tensor:
    """Deviation of the positions (B, 2, H/8, W/8) from a uniform distribution in the cells, in x and y (equation 10).

    Without it, the network puts points where two cells meet, because it finds them again there most easily.
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


@torch.no_grad()
def health(scores: Tensor, positions: Tensor, found: Correspondences) -> dict[str, Tensor]:
    """Figures that show a collapse: scores that are all the same, or points that stay at one place of their cells.

    The spreads are standard deviations; that of the positions is 0.289 if they are uniform in their cells. `matched` is
    the share of points that have a partner, `repeats` the same among the higher and the lower scored half.
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
