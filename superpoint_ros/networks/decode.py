"""The decoding of superpoint_ros.decode in torch: batched, on the device, nothing waits for the host.

All shapes depend on the shapes of the input and on the configuration only, so a call can be captured in a CUDA graph.
The keypoints are those of superpoint_ros.decode, whose documentation says what everything means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from superpoint_ros.decode import CELL, DecodeConfig


class DecodedBatch(NamedTuple):
    """Keypoints of a batch, best first; K is max_keypoints, or the number of pixels if that is less."""

    keypoints: Tensor
    """(B, K, 2) float32, pixels (x, y) of the network's input."""
    scores: Tensor
    """(B, K) float32, descending; 0 where there is no keypoint any more."""
    descriptors: Tensor
    """(B, K, D) float32, unit length."""
    settled: Tensor
    """(B,) bool: the rounds of non-maximum suppression were enough. If not, decode again with more."""


def decode_superpoint(
    outputs: Mapping[str, Tensor],
    sizes: Tensor,
    config: DecodeConfig,
    masks: Tensor | None = None,
    rounds: int = 8,
) -> DecodedBatch:
    """Keypoints and descriptors from the raw heads of SuperPoint, or of MagicPoint, which has no descriptors.

    Args:
        outputs: logits (B, 65, H/8, W/8) and, if the model has them, descriptors (B, D, H/8, W/8), fastest if
            channels last.
        sizes: (B, 2) integers: width and height of the part at the top left that is picture and not padding.
        config: how to decode.
        masks: (B, H, W) bool, False where no keypoint may be.
        rounds: of non-maximum suppression; see `find_peaks`.
    """
    scores = score_map(outputs['logits'])
    index, values, settled = find_peaks(scores, sizes, config, masks, rounds)
    width = scores.shape[2]
    y, x = index // width, index % width
    keypoints = torch.stack([x, y], dim=-1).float()
    if config.subpixel:
        keypoints = (keypoints + refinement(scores, y, x)).clamp(min=0).minimum(sizes[:, None] - 1.0)
    if 'descriptors' in outputs:
        descriptors = sample_descriptors(outputs['descriptors'], keypoints, config.interpolation)
    else:
        descriptors = keypoints[..., :0]
    return DecodedBatch(keypoints, values, descriptors, settled)


def decode_unsuperpoint(
    outputs: Mapping[str, Tensor],
    sizes: Tensor,
    config: DecodeConfig,
    masks: Tensor | None = None,
    rounds: int = 8,
) -> DecodedBatch:
    """Keypoints and descriptors from the raw heads of UnSuperPoint, which has one keypoint in each cell.

    Args:
        outputs: scores (B, 1, H/8, W/8), positions (B, 2, H/8, W/8) in the cells, and descriptors (B, D, H/8, W/8).
        sizes: and all others as in `decode_superpoint`.
        config: ″
        masks: ″
        rounds: ″
    """
    batch, _, rows, columns = outputs['scores'].shape
    height, width, cells = rows * CELL, columns * CELL, rows * columns
    device, values, (right, down) = sizes.device, outputs['scores'].flatten(1), outputs['positions'].unbind(dim=1)
    x = ((torch.arange(columns, device=device) + right) * CELL - 0.5).flatten(1)
    y = ((torch.arange(rows, device=device)[:, None] + down) * CELL - 0.5).flatten(1)
    pixels = y.round().long().clamp(0, height - 1) * width + x.round().long().clamp(0, width - 1)
    # Of the keypoints in one pixel the best stays, of equal ones the first: scores and cells in one number.
    order = torch.arange(cells - 1, -1, -1, device=device)
    keys = (values.contiguous().view(torch.int32).long() << 32) | order
    best = torch.zeros(batch, height * width, dtype=torch.int64, device=device).scatter_reduce(1, pixels, keys, 'amax')
    scores = (best >> 32).int().view(torch.float32).view(batch, height, width)
    index, found, settled = find_peaks(scores, sizes, config, masks, rounds)
    chosen = cells - 1 - (best.gather(1, index) & 0xFFFFFFFF)
    keypoints = torch.stack([x.gather(1, chosen), y.gather(1, chosen)], dim=-1)
    keypoints = keypoints.clamp(min=0).minimum(sizes[:, None] - 1.0)
    descriptors = sample_descriptors(outputs['descriptors'], keypoints, config.interpolation)
    return DecodedBatch(keypoints, found, descriptors, settled)


Decoder = Callable[[Mapping[str, Tensor], Tensor, DecodeConfig, 'Tensor | None', int], DecodedBatch]

DECODERS: dict[frozenset[str], Decoder] = {
    frozenset({'logits'}): decode_superpoint,
    frozenset({'logits', 'descriptors'}): decode_superpoint,
    frozenset({'scores', 'positions', 'descriptors'}): decode_unsuperpoint,
}
"""What decodes a network, by the names of its outputs."""


def decoder_for(outputs: Iterable[str]) -> Decoder:
    """The decoder of a network with these outputs; KeyError if we know no such network."""
    return DECODERS[frozenset(outputs)]


def score_map(logits: Tensor) -> Tensor:
    """Probability of a keypoint at each pixel, (B, H, W) float32, from logits (B, 65, H/8, W/8)."""
    return F.pixel_shuffle(logits.float().softmax(dim=1)[:, :-1], CELL)[:, 0]


def find_peaks(
    scores: Tensor, sizes: Tensor, config: DecodeConfig, masks: Tensor | None = None, rounds: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """The best keypoints of score maps after greedy non-maximum suppression, which is done in rounds.

    How many rounds it takes depends on the map: photographs need three or four, a chain of ever higher pixels many.
    As the host must not wait in between, their number is given, and the result says whether it was enough for the
    best K keypoints to be certain.

    Args:
        scores: (B, H, W) float32 in [0, 1].
        sizes: (B, 2), width and height of the picture.
        config: threshold, max_keypoints, nms_radius and border.
        masks: (B, H, W) bool, False where no keypoint may be.
        rounds: of suppression.

    Returns:
        flat indices y·W + x (B, K), scores (B, K), 0 where there is no keypoint any more, and settled (B,).
    """
    height, width = scores.shape[1:]
    x, y = torch.arange(width, device=scores.device), torch.arange(height, device=scores.device)[:, None]
    right, bottom = sizes[:, 0, None, None], sizes[:, 1, None, None]
    left = torch.where((scores > config.threshold) & (x < right) & (y < bottom), scores, 0)
    found = torch.zeros_like(left)
    for _ in range(rounds if config.nms_radius else 0):
        highest, earlier = _window_maxima(left, config.nms_radius)
        peaks = (left > earlier) & (left == highest)
        found = torch.where(peaks, left, found)
        covered, _ = _window_maxima(peaks.float(), config.nms_radius)
        left = torch.where(covered > 0, 0, left)
    if not config.nms_radius:
        found, left = left, torch.zeros_like(left)
    border = config.border
    eligible = (x >= border) & (x < right - border) & (y >= border) & (y < bottom - border)
    if masks is not None:
        eligible = eligible & masks
    found = torch.where(eligible, found, 0).flatten(1)
    # Non-negative floats are ordered as their bits are; the index in the lower half makes equal ones come row-major.
    order = torch.arange(height * width - 1, -1, -1, device=scores.device)
    keys = (found.view(torch.int32).long() << 32) | order
    best = keys.topk(min(config.max_keypoints, height * width), dim=1).values
    index = height * width - 1 - (best & 0xFFFFFFFF)
    values = found.gather(1, index)
    undecided = (left > 0) & (left >= values[:, -1, None, None])
    return index, values, ~undecided.flatten(1).any(dim=1)


def _window_maxima(values: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Of non-negative maps (B, H, W): the maximum in the square around each pixel, and in its part before the pixel."""
    runs = _running_maximum(F.pad(values, (radius, radius)), radius, dim=2)
    before = runs[:, :, : values.shape[2]]
    rows = torch.maximum(torch.maximum(before, values), runs[:, :, radius + 1 :])
    runs = _running_maximum(F.pad(rows, (0, 0, radius, radius)), radius, dim=1)
    above = runs[:, : values.shape[1]]
    square = torch.maximum(torch.maximum(above, rows), runs[:, radius + 1 :])
    return square, torch.maximum(above, before)


def _running_maximum(values: Tensor, count: int, dim: int) -> Tensor:
    """The maximum of each `count` successive values: in few passes, as each doubles the length of the runs."""
    length = 1
    while length < count:
        step = min(length, count - length)
        rest = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
        length += step
    return values


def refinement(scores: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Offsets (B, K, 2) in x and y, within ±0.5 px, from whole pixels (B, K) to the peaks of the score maps."""
    height, width = scores.shape[1:]
    logs = scores.flatten(1).clamp(min=1e-12)
    middle = logs.gather(1, y * width + x).log()

    def offset(dy: int, dx: int) -> Tensor:
        below = logs.gather(1, (y - dy).clamp(min=0) * width + (x - dx).clamp(min=0)).log()
        above = logs.gather(1, (y + dy).clamp(max=height - 1) * width + (x + dx).clamp(max=width - 1)).log()
        curvature = (below - 2 * middle + above).clamp(max=-1e-6)
        return (0.5 * (below - above) / curvature).clamp(-0.5, 0.5)

    return torch.stack([offset(0, 1), offset(1, 0)], dim=-1)


def sample_descriptors(descriptors: Tensor, keypoints: Tensor, interpolation: str = 'bilinear') -> Tensor:
    """Descriptors (B, K, D) of unit length at keypoints (B, K, 2), from a map (B, D, H/8, W/8)."""
    batch, depth, rows, columns = descriptors.shape
    count = keypoints.shape[1]
    position = (keypoints - (CELL - 1) / 2) / CELL
    first = position.floor()
    taps, weights = (_bilinear if interpolation == 'bilinear' else _bicubic)(position - first)
    near = first.long()[..., None] + taps
    column, row = near[:, :, 0].clamp(0, columns - 1), near[:, :, 1].clamp(0, rows - 1)
    index = (row[..., :, None] * columns + column[..., None, :]).reshape(batch, -1, 1)
    weight = (weights[:, :, 1, :, None] * weights[:, :, 0, None, :]).flatten(2)
    cells = descriptors.permute(0, 2, 3, 1).reshape(batch, rows * columns, depth)
    taken = cells.gather(1, index.expand(-1, -1, depth)).reshape(batch, count, -1, depth).float()
    return F.normalize((weight[..., None] * taken).sum(dim=2), dim=-1)


def _bilinear(fraction: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(2, device=fraction.device), torch.stack([1 - fraction, fraction], dim=-1)


def _bicubic(fraction: Tensor) -> tuple[Tensor, Tensor]:
    a = -0.75
    taps = torch.arange(-1, 3, device=fraction.device)
    distance = (fraction[..., None] - taps).abs()
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = a * (((distance - 5) * distance + 8) * distance - 4)
    return taps, torch.where(distance <= 1, inner, outer)
