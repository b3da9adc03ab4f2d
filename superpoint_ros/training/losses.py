"""Losses of the two heads; all are means over what is valid, so that batches of any size compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.networks.superpoint import CELL
from superpoint_ros.training.homography import pixel_grid, warp_points

DUSTBIN = CELL * CELL
IGNORED = -100


@dataclass(frozen=True)
class HingeConfig:
    """Of the hinge loss on descriptors; the defaults are the paper's.

    Args:
        positive_margin: similarity above which a corresponding pair costs nothing.
        negative_margin: similarity below which another pair costs nothing.
        positive_weight: λ_d, as corresponding pairs are few.
        reach: pixels between a warped center and another that make them correspond.
    """

    positive_margin: float = 1.0
    negative_margin: float = 0.2
    positive_weight: float = 250.0
    reach: float = 8.0


@dataclass(frozen=True)
class DescriptorLossConfig:
    """Which loss the descriptors have.

    Args:
        kind: contrastive, or the paper's hinge.
        weight: λ, what it counts beside the detector's loss.
        temperature: of the contrastive loss.
        hinge: of the hinge loss.
    """

    kind: Literal['contrastive', 'hinge'] = 'contrastive'
    weight: float = 0.5
    temperature: float = 0.07
    hinge: HingeConfig = HingeConfig()


def cell_labels(points: Tensor, valid: Tensor) -> Tensor:
    """The class of each cell: which of its pixels is an interest point, or none.

    Args:
        points: (B, N, 2) pixels (x, y); NaN and points outside the image are passed over. Of several in one cell the
            one that comes first counts, so points in random order give a random choice.
        valid: (B, 1, H, W) bool; cells with a pixel that is not valid are ignored.

    Returns:
        (B, H/8, W/8) int64: 8·v + u, DUSTBIN, or IGNORED.
    """
    batch, _, height, width = valid.shape
    rows, columns, count = height // CELL, width // CELL, points.shape[1]
    x, y = torch.nan_to_num(points, nan=-1e6, posinf=-1e6, neginf=-1e6).round().long().unbind(dim=-1)
    seen = (x >= 0) & (x < columns * CELL) & (y >= 0) & (y < rows * CELL)
    place = (y % CELL) * CELL + x % CELL
    # The order and the place in one number, so that the maximum over a cell's points is the first of them.
    key = torch.arange(count, 0, -1, device=points.device) * DUSTBIN + place
    cell = torch.where(seen, y // CELL * columns + x // CELL, rows * columns)
    best = key.new_full((batch, rows * columns + 1), -1).scatter_reduce(1, cell, key, 'amax')[:, :-1]
    labels = torch.where(best >= 0, best % DUSTBIN, DUSTBIN).view(batch, rows, columns)
    return labels.where(cells_valid(valid), IGNORED)


def detector_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the 65 classes of each cell (SuperPoint, equation 2); 0 if every cell is ignored.

    Args:
        logits: (B, 65, H/8, W/8).
        labels: (B, H/8, W/8), from cell_labels.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction='sum')
    return total / (labels != IGNORED).sum().clamp(min=1)


def localization_loss(
    logits0: Tensor, logits1: Tensor, points: Tensor, homographies: Tensor, valid1: Tensor, radius: int = 3
) -> Tensor:
    """How far apart the peaks are that the two score maps have at the same labeled points, in pixels.

    A peak is the mean position in a square about the label, weighted by the scores (soft-argmax), so the loss moves
    scores between pixels, and finer than whole ones; cross-entropy does not know which pixels are neighbors. It is the
    reprojection loss of ALIKE (Zhao et al., arXiv 2112.02906, section III-C) at labels instead of detections.

    Args:
        logits0: (B, 65, H/8, W/8), of the images.
        logits1: (B, 65, H/8, W/8), of the warped images.
        points: (B, N, 2) pixels of the images; NaN and points near an edge of either image are passed over.
        homographies: (B, 3, 3), from image to warped image, in pixels.
        valid1: (B, 1, H, W) bool, which pixels of the warped image show the image.
        radius: of the squares.

    Returns:
        The mean over the points that both images show; 0 if there are none.
    """
    height, width = valid1.shape[-2:]
    inside = torch.tensor([width, height], device=points.device) - 1 - radius
    there = torch.nan_to_num(points, nan=-1e4)
    warped = torch.nan_to_num(warp_points(there, homographies), posinf=-1e4).float()
    seen = _sample(valid1.float(), warped, 'nearest')[..., 0] > 0.5
    for where in (there, warped):
        seen &= ((where >= radius) & (where <= inside)).all(dim=-1)
    rows = seen.nonzero()[:, 0]
    peaks0 = _peaks(logits0, rows, there[seen], radius)
    peaks1 = _peaks(logits1, rows, warped[seen], radius)
    moved = warp_points(peaks0[:, None], homographies[rows])[:, 0].float()
    # The root of the sum of squares has no gradient at 0.
    distances = ((moved - peaks1).square().sum(dim=-1) + 1e-4).sqrt()
    return distances.sum() / max(len(distances), 1)


def _peaks(logits: Tensor, rows: Tensor, points: Tensor, radius: int) -> Tensor:
    """(K, 2): the mean position by score in the squares about points (K, 2) of the images `rows` (K,)."""
    scores = F.pixel_shuffle(logits.float().log_softmax(dim=1)[:, :DUSTBIN], CELL)[:, 0]
    side = 2 * radius + 1
    steps = pixel_grid(side, side, points.device).float() - radius
    pixels = points.round()[:, None] + steps
    x, y = pixels.long().unbind(dim=-1)
    weights = scores[rows[:, None], y, x].softmax(dim=-1)
    return (weights[..., None] * pixels).sum(dim=1)


def descriptor_loss(
    descriptors0: Tensor,
    descriptors1: Tensor,
    homographies: Tensor,
    valid1: Tensor,
    config: DescriptorLossConfig,
    rngs: Sequence[torch.Generator],
) -> Tensor:
    """The loss that the configuration names, without its weight.

    Args:
        descriptors0: and the three after it as in the two losses.
        descriptors1: ″
        homographies: ″
        valid1: ″
        config: which.
        rngs: one for each image, for the points that the contrastive loss looks at.
    """
    views = descriptors0, descriptors1, homographies, valid1
    if config.kind == 'hinge':
        return hinge_descriptor_loss(*views, config.hinge)
    # One shift for a whole image: its points stay a cell apart, so that none is its neighbor's false negative.
    offsets = torch.stack([torch.rand(1, 2, generator=rng, device=rng.device) for rng in rngs])
    return contrastive_descriptor_loss(*views, (offsets - 0.5) * CELL, config.temperature)


def hinge_descriptor_loss(
    descriptors0: Tensor, descriptors1: Tensor, homographies: Tensor, valid1: Tensor, config: HingeConfig
) -> Tensor:
    """Hinge loss over all pairs of cells of two images (SuperPoint, equations 4 to 6).

    A pair corresponds if the center of the first cell, warped, lies within `reach` of the second cell's. Similarities
    are one matrix product; nothing is ever as large as cells × cells × D.

    Args:
        descriptors0: (B, D, H/8, W/8), of the images; normalized here.
        descriptors1: (B, D, H/8, W/8), of the warped images.
        homographies: (B, 3, 3), from image to warped image, in pixels.
        valid1: (B, 1, H, W) bool, which pixels of the warped image show the image.
        config: margins and weights.

    Returns:
        The mean over all pairs whose second cell is valid; 0 if none is.
    """
    rows, columns = descriptors0.shape[-2:]
    centers = cell_centers(rows, columns, descriptors0.device)
    distance = torch.cdist(warp_points(centers, homographies).float().clamp(-1e4, 1e4), centers.float()[None])
    similarity = _normalized(descriptors0) @ _normalized(descriptors1).mT
    positive = config.positive_weight * (config.positive_margin - similarity).clamp(min=0)
    negative = (similarity - config.negative_margin).clamp(min=0)
    valid = cells_valid(valid1).flatten(1)[:, None].expand_as(similarity)
    terms = torch.where(distance <= config.reach, positive, negative) * valid
    return terms.sum() / valid.sum().clamp(min=1)


def contrastive_descriptor_loss(
    descriptors0: Tensor,
    descriptors1: Tensor,
    homographies: Tensor,
    valid1: Tensor,
    offsets: Tensor,
    temperature: float,
) -> Tensor:
    """Cross-entropy of finding each point's partner among those of all others, in both directions (InfoNCE).

    It looks at points between the cells' centers, as extraction does, and at the hardest negatives first, where the
    hinge loss averages over easy ones; so it needs fewer images (van den Oord et al., arXiv 1807.03748, equation 4).

    Args:
        descriptors0: (B, D, H/8, W/8), of the images; sampled and normalized here.
        descriptors1: (B, D, H/8, W/8), of the warped images.
        homographies: (B, 3, 3), from image to warped image, in pixels.
        valid1: (B, 1, H, W) bool, which pixels of the warped image show the image.
        offsets: (B, 1, 2), how far from the cells' centers an image's points lie, in pixels.
        temperature: that similarities are divided by.

    Returns:
        The mean over the points that the warped image shows; 0 if it shows fewer than two.
    """
    rows, columns = descriptors0.shape[-2:]
    points0 = cell_centers(rows, columns, descriptors0.device) + offsets.double()
    points1 = warp_points(points0, homographies)
    seen = _sample(valid1.float(), points1, 'nearest')[..., 0] > 0.5
    last_pixel = torch.tensor([columns, rows], device=seen.device) * CELL - 1
    seen &= ((points1 >= 0) & (points1 <= last_pixel)).all(dim=-1)
    sampled0 = F.normalize(_sample(descriptors0.float(), points0, 'bilinear', CELL), dim=-1)
    sampled1 = F.normalize(_sample(descriptors1.float(), points1, 'bilinear', CELL), dim=-1)
    similarity = sampled0 @ sampled1.mT / temperature
    unseen = ~seen
    partners = torch.arange(rows * columns, device=seen.device).expand(len(seen), -1).masked_fill(unseen, IGNORED)
    forth = similarity.masked_fill(unseen[:, None], -1e4)
    back = similarity.mT.masked_fill(unseen[:, None], -1e4)
    losses = [F.cross_entropy(way.mT, partners, ignore_index=IGNORED, reduction='sum') for way in (forth, back)]
    return (losses[0] + losses[1]) / 2 / seen.sum().clamp(min=1)


def cell_centers(rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows · columns, 2) float64: center (x, y) of every cell in pixels, row by row."""
    return pixel_grid(rows, columns, device) * CELL + (CELL - 1) / 2


def cells_valid(valid: Tensor) -> Tensor:
    """(B, H/8, W/8) bool: the cells all of whose pixels are valid in (B, 1, H, W)."""
    return F.max_pool2d((~valid).float(), CELL)[:, 0] == 0


def _normalized(descriptors: Tensor) -> Tensor:
    return F.normalize(descriptors.float().flatten(2).mT, dim=-1)


def _sample(maps: Tensor, points: Tensor, mode: str, cell: int = 1) -> Tensor:
    """(B, N, C): maps (B, C, H, W) of cells of this size, read at points (B, N, 2) in pixels."""
    height, width = maps.shape[-2:]
    size = torch.tensor([width, height], device=maps.device) * cell
    grid = ((2 * points + 1) / size - 1).clamp(-2, 2).to(maps.dtype)
    return F.grid_sample(maps, grid[:, None], mode, 'border', align_corners=False)[:, :, 0].mT
