"""Losses of the two heads. All are means over what is valid, so losses of different batch sizes are comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.decode import CELL
from superpoint_ros.training.homography import pixel_grid, warp_points

DUSTBIN = CELL * CELL
IGNORED = -100
SPACING = 12
"""Pixels between the points of the contrastive loss: closer ones hardly add to what a pair teaches."""

NEAR = 6.0
"""Pixels within which a rival of the contrastive loss does not count, because it shares the partner's descriptor.
Keypoints may be 5 px apart: with 8 px here, their descriptors are confused."""


@dataclass(frozen=True)
class HingeConfig:
    """Configuration of the hinge loss on descriptors; the defaults are the paper's.

    Args:
        positive_margin: similarity above which a corresponding pair costs nothing.
        negative_margin: similarity below which any other pair costs nothing.
        positive_weight: λ_d, because corresponding pairs are few.
        reach: cells correspond if a warped center is within this many pixels of the other center.
    """

    positive_margin: float = 1.0
    negative_margin: float = 0.2
    positive_weight: float = 250.0
    reach: float = 8.0


@dataclass(frozen=True)
class DescriptorLossConfig:
    """Loss of the descriptors.

    Args:
        kind: contrastive, or the paper's hinge.
        weight: λ, relative to the loss of the detector.
        temperature: temperature of the contrastive loss.
        hinge: configuration of the hinge loss.
    """

    kind: Literal['contrastive', 'hinge'] = 'contrastive'
    weight: float = 0.5
    temperature: float = 0.07
    hinge: HingeConfig = HingeConfig()


def cell_labels(points: Tensor, valid: Tensor) -> Tensor:
    """The class of each cell, (B, H/8, W/8) int64: 8·v + u of its interest point, DUSTBIN if it has none, or IGNORED.

    Args:
        points: (B, N, 2) pixels (x, y); NaN and points outside the image are ignored. The first point in a cell counts,
            so a random order gives a random choice.
        valid: (B, 1, H, W) bool; cells with an invalid pixel are ignored.
    """
    batch, _, height, width = valid.shape
    rows, columns, count = height // CELL, width // CELL, points.shape[1]
    x, y = torch.nan_to_num(points, nan=-1e6, posinf=-1e6, neginf=-1e6).round().long().unbind(dim=-1)
    seen = (x >= 0) & (x < columns * CELL) & (y >= 0) & (y < rows * CELL)
    place = (y % CELL) * CELL + x % CELL
    # Order and place in one number: the maximum over the points of a cell is the first of them.
    key = torch.arange(count, 0, -1, device=points.device) * DUSTBIN + place
    cell = torch.where(seen, y // CELL * columns + x // CELL, rows * columns)
    best = key.new_full((batch, rows * columns + 1), -1).scatter_reduce(1, cell, key, 'amax')[:, :-1]
    labels = torch.where(best >= 0, best % DUSTBIN, DUSTBIN).view(batch, rows, columns)
    return labels.where(visible_cells(valid)[:, 0], IGNORED)


def visible_cells(visible: Tensor) -> Tensor:
    """The cells (B, 1, H/8, W/8) bool whose pixels (B, 1, H, W) are all visible."""
    return F.max_pool2d((~visible).float(), CELL) == 0


def detector_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, 65, H/8, W/8) over the classes of cell_labels (SuperPoint, equation 2).

    It is 0 if every cell is ignored.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction='sum')
    return total / (labels != IGNORED).sum().clamp(min=1)


def localization_loss(
    logits0: Tensor,
    logits1: Tensor,
    points: Tensor,
    homographies: Tensor,
    visible: tuple[Tensor, Tensor],
    radius: int = 3,
) -> Tensor:
    """Distance in pixels between the peaks of the two score maps at the same labeled points.

    A peak is the mean position in a square around the label, weighted by the scores (soft-argmax), so the loss moves
    peaks by fractions of a pixel; cross-entropy does not know which pixels are neighbors. It is the reprojection loss
    of ALIKE (Zhao et al., arXiv 2112.02906, section III-C) at labels instead of detections.

    The loss is the mean over the points that both views show; 0 if there are none.

    Args:
        logits0: (B, 65, H/8, W/8), of the first views.
        logits1: (B, 65, H/8, W/8), of the second views.
        points: (B, N, 2) pixels of the first views; NaN and points near an edge of either view are ignored.
        homographies: (B, 3, 3), from first to second view, in pixels.
        visible: (B, 1, H, W) bool of both views; points at other pixels are ignored.
        radius: half the side of the squares.
    """
    cells_down, cells_across = logits0.shape[-2:]
    inside = torch.tensor([cells_across, cells_down], device=points.device) * CELL - 1 - radius
    there = torch.nan_to_num(points, nan=-1e4)
    warped = torch.nan_to_num(warp_points(there, homographies), posinf=-1e4).float()
    seen = ((there >= radius) & (there <= inside) & (warped >= radius) & (warped <= inside)).all(dim=-1)
    seen = seen & shown(there, visible[0]) & shown(warped, visible[1])
    rows = seen.nonzero()[:, 0]
    peaks0 = _peaks(logits0, rows, there[seen], radius)
    peaks1 = _peaks(logits1, rows, warped[seen], radius)
    moved = warp_points(peaks0[:, None], homographies[rows])[:, 0].float()
    # The norm has no gradient at 0.
    distances = ((moved - peaks1).square().sum(dim=-1) + 1e-4).sqrt()
    return distances.sum() / max(len(distances), 1)


def _peaks(logits: Tensor, rows: Tensor, points: Tensor, radius: int) -> Tensor:
    """(K, 2): mean position, weighted by score, in squares around points (K, 2) of the images `rows` (K,)."""
    scores = F.pixel_shuffle(logits.float().log_softmax(dim=1)[:, :DUSTBIN], CELL)[:, 0]
    side = 2 * radius + 1
    steps = pixel_grid(side, side, points.device).float() - radius
    pixels = points.round()[:, None] + steps
    x, y = pixels.long().unbind(dim=-1)
    weights = scores[rows[:, None], y, x].softmax(dim=-1)
    return (weights[..., None] * pixels).sum(dim=1)


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values; 0 if there are none."""
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


def shown(points: Tensor, visible: Tensor) -> Tensor:
    """(B, N) bool: whether points (B, N, 2) in pixels, not NaN, lie in the image, at visible pixels (B, 1, H, W)."""
    height, width = visible.shape[-2:]
    x, y = points.clamp(-2, max(width, height) + 1).round().long().unbind(dim=-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    pixels = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return inside & visible.flatten(1).gather(1, pixels)


def mutual(forth: Tensor, back: Tensor) -> Tensor:
    """(B, N) bool: whether `forth` (B, N) and then `back` (B, M) lead from each index back to it."""
    return back.gather(1, forth) == torch.arange(forth.shape[1], device=forth.device)


def descriptor_loss(
    descriptors0: Tensor,
    descriptors1: Tensor,
    homographies: Tensor,
    visible: tuple[Tensor, Tensor],
    config: DescriptorLossConfig,
    rngs: Sequence[torch.Generator],
) -> Tensor:
    """The loss that the configuration selects, without its weight.

    Args:
        descriptors0: (B, D, H/8, W/8), of the first views; normalized here.
        descriptors1: (B, D, H/8, W/8), of the second views.
        homographies: (B, 3, 3), from first to second view, in pixels.
        visible: (B, 1, H, W) bool of both; other pixels have no correspondences.
        config: which loss.
        rngs: random generator of each pair, for the points of the contrastive loss.
    """
    if config.kind == 'hinge':
        return hinge_descriptor_loss(descriptors0, descriptors1, homographies, visible, config.hinge)
    shifts = torch.stack([torch.rand(2, 1, 2, generator=rng, device=rng.device) for rng in rngs]) - 0.5
    return contrastive_descriptor_loss(
        descriptors0, descriptors1, homographies, visible, shifts.double(), config.temperature
    )


def hinge_descriptor_loss(
    descriptors0: Tensor,
    descriptors1: Tensor,
    homographies: Tensor,
    visible: tuple[Tensor, Tensor],
    config: HingeConfig,
) -> Tensor:
    """Hinge loss over all pairs of cells of two views (SuperPoint, equations 4 to 6).

    A pair corresponds if the warped center of the first cell is within `reach` of the center of the second. The loss is
    the mean over all pairs of visible cells; arguments as in descriptor_loss.
    """
    cells0, cells1 = (F.normalize(views.flatten(2).mT, dim=-1) for views in (descriptors0, descriptors1))
    centers = _grid(descriptors0, CELL)
    distance = torch.cdist(warp_points(centers, homographies).float().clamp(-1e4, 1e4), centers.float()[None])
    similarity = cells0 @ cells1.mT
    positive = config.positive_weight * (config.positive_margin - similarity).clamp(min=0)
    negative = (similarity - config.negative_margin).clamp(min=0)
    seen0, seen1 = (shown(centers.expand(len(views), -1, -1), views) for views in visible)
    return mean_of(torch.where(distance <= config.reach, positive, negative), seen0[:, :, None] & seen1[:, None])


def contrastive_descriptor_loss(
    descriptors0: Tensor,
    descriptors1: Tensor,
    homographies: Tensor,
    visible: tuple[Tensor, Tensor],
    shifts: Tensor,
    temperature: float,
) -> Tensor:
    """Cross-entropy of finding each point's partner among rivals from the whole other view, in both directions.

    InfoNCE (van den Oord et al., arXiv 1807.03748, equation 4). Points and rivals lie on randomly shifted grids, not at
    the centers of the cells: partners lie anywhere, and if rivals did not, the network would learn to tell descriptors
    that were read between cells from others. Rivals within NEAR pixels of the partner do not count.

    Descriptors, homographies and visible pixels are as in descriptor_loss. The shifts (B, 2, 1, 2) of the grids in the
    two views are in [-0.5, 0.5), as parts of their spacings; the temperature divides similarities. The loss is the mean
    over the points that both views show, 0 if there are none.
    """
    points, rivals = _grid(descriptors0, SPACING), _grid(descriptors0, CELL)
    losses, count = [], []
    views0 = descriptors0, visible[0], shifts[:, 0]
    views1 = descriptors1, visible[1], shifts[:, 1]
    for (own, seen0, shift0), (other, seen1, shift1), mapping in (
        (views0, views1, homographies),
        (views1, views0, torch.linalg.inv(homographies)),
    ):
        own_points, other_points = points + shift0 * SPACING, (rivals + shift1 * CELL).float()
        partners = warp_points(own_points, mapping).float().clamp(-1e4, 1e4)
        queries = F.normalize(sample(own, own_points), dim=-1) / temperature
        positives = (queries * F.normalize(sample(other, partners), dim=-1)).sum(dim=-1)
        negatives = queries @ F.normalize(sample(other, other_points), dim=-1).mT
        (x, y), (u, v) = partners[:, :, None].unbind(dim=-1), other_points[:, None].unbind(dim=-1)
        near = ((x - u).abs() < NEAR) & ((y - v).abs() < NEAR)
        losses.append(F.softplus(negatives.masked_fill(near, -torch.inf).logsumexp(dim=-1) - positives))
        count.append(shown(own_points, seen0) & shown(partners, seen1))
    return mean_of(torch.stack(losses), torch.stack(count))


def _grid(maps: Tensor, spacing: int) -> Tensor:
    """(N, 2) float64: pixels (x, y) on a centered grid over the images of maps (B, D, H/8, W/8), row by row."""
    rows, columns = (cells * CELL // spacing for cells in maps.shape[-2:])
    return pixel_grid(rows, columns, maps.device) * spacing + (spacing - 1) / 2


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """(B, N, D): maps (B, D, H/8, W/8) read bilinearly at points (B, N, 2) in pixels."""
    height, width = maps.shape[-2:]
    size = torch.tensor([width, height], device=maps.device) * CELL
    grid = ((2 * points + 1) / size - 1).clamp(-2, 2).to(maps.dtype)
    return F.grid_sample(maps, grid[:, None], 'bilinear', 'border', align_corners=False)[:, :, 0].mT
