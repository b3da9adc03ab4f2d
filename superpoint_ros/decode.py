"""Decodes the heads of a network to keypoints and descriptors, with NumPy and OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.features import Features, Floats

CELL = 8
"""Side of the cells of the heads, in pixels."""

Heads = Mapping[str, npt.NDArray[Any]]
"""The outputs of a network for one image, by name."""

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class DecodeConfig:
    """How keypoints are selected and descriptors interpolated.

    Non-maximum suppression is greedy by score, as in the paper's demo: select the best remaining pixel, discard all
    others in the square of (2·nms_radius + 1)² pixels around it, repeat. Of equal scores the first in row-major order
    (top to bottom, then left to right) wins. The border and the mask are applied afterwards: otherwise the slope of a
    peak that they remove would become a peak of its own.
    """

    threshold: float = option(0.005, 'Keypoints have scores above this.', minimum=0, maximum=1, live=True)
    max_keypoints: int = option(
        1024, 'Largest number of keypoints; those with the best scores are kept.', minimum=1, maximum=100_000, live=True
    )
    nms_radius: int = option(
        4,
        'Radius of non-maximum suppression: no two keypoints are this close in both x and y.',
        unit='px',
        minimum=0,
        maximum=64,
        live=True,
    )
    border: int = option(
        4, 'Width of the border of the image, which has no keypoints.', unit='px', minimum=0, maximum=1000, live=True
    )
    subpixel: bool = option(True, 'Refine keypoints to a fraction of a pixel.', live=True)
    interpolation: str = option(
        'bilinear',
        'Interpolation of descriptors between cells: bilinear, or bicubic as in the paper (slower).',
        choices=('bilinear', 'bicubic'),
        live=True,
    )

    def __post_init__(self) -> None:
        check(self)


def decode_superpoint(heads: Heads, size: tuple[int, int], config: DecodeConfig, mask: Mask | None = None) -> Features:
    """Decode the heads of SuperPoint, or of MagicPoint, which has no descriptors, to features of the network's picture.

    Args:
        heads: score_map (H, W) and, if the model has them, descriptors (H/8, W/8, D).
        size: (width, height) of the picture, which is at the top left; the rest is padding.
        config: thresholds and options.
        mask: (h, w) bool, at least as large as the picture; False where keypoints are not allowed.
    """
    scores = heads['score_map']
    y, x = find_peaks(scores, size, config, mask)
    keypoints = np.stack([x, y], axis=1).astype(np.float32)
    if config.subpixel:
        keypoints += refinement(scores, y, x)
        np.clip(keypoints, 0, np.array(size, np.float32) - 1, out=keypoints)  # beyond the edge is no picture
    if 'descriptors' in heads:
        descriptors = sample_descriptors(heads['descriptors'], keypoints, config.interpolation)
    else:
        descriptors = np.empty((len(keypoints), 0), np.float32)
    return Features(keypoints, scores[y, x], descriptors, size)


def decode_unsuperpoint(
    heads: Heads, size: tuple[int, int], config: DecodeConfig, mask: Mask | None = None
) -> Features:
    """Decode the heads of UnSuperPoint, which has one keypoint in each cell; arguments as in decode_superpoint.

    The heads are scores (1, H/8, W/8), positions (2, H/8, W/8) within the cells, 0 to 1, and descriptors
    (H/8, W/8, D). The positions are subpixel already, so config.subpixel has no effect. Non-maximum suppression, border
    and mask use the pixel nearest to each keypoint.
    """
    _, rows, columns = heads['scores'].shape
    scores, (right, down) = heads['scores'].ravel(), heads['positions']
    x = ((np.arange(columns, dtype=np.float32) + right) * CELL - 0.5).ravel()
    y = ((np.arange(rows, dtype=np.float32)[:, None] + down) * CELL - 0.5).ravel()
    chosen = best_of_cells(scores, x, y, (rows, columns), size, config, mask)
    keypoints = np.stack([x[chosen], y[chosen]], axis=1)
    np.clip(keypoints, 0, np.array(size, np.float32) - 1, out=keypoints)
    descriptors = sample_descriptors(heads['descriptors'], keypoints, config.interpolation)
    return Features(keypoints, scores[chosen], descriptors, size)


def decode(heads: Heads, size: tuple[int, int], config: DecodeConfig, mask: Mask | None = None) -> Features:
    """Decode the heads of any of our networks; the arguments are those of decode_superpoint and decode_unsuperpoint."""
    decoder = decode_superpoint if 'score_map' in heads else decode_unsuperpoint
    return decoder(heads, size, config, mask)


def score_map(logits: Floats) -> Floats:
    """Probability of a keypoint at each pixel.

    Args:
        logits: (65, H/8, W/8); channel 8·v + u is pixel (u, v) of the cell, channel 64 the dustbin.

    Returns:
        (H, W) float32: softmax over the 65 channels, dustbin dropped, cells unfolded to pixels.
    """
    _, rows, columns = logits.shape
    exponentials = np.exp(logits - logits.max(axis=0))
    scores = exponentials[: CELL * CELL]
    scores /= exponentials.sum(axis=0)
    cells = scores.reshape(CELL, CELL, rows, columns)
    return cells.transpose(2, 0, 3, 1).reshape(rows * CELL, columns * CELL)


def find_peaks(
    scores: Floats, size: tuple[int, int], config: DecodeConfig, mask: Mask | None = None
) -> tuple[Indices, Indices]:
    """Find the best keypoints of a score map, in whole pixels, with the non-maximum suppression of DecodeConfig.

    Greedy suppression runs in rounds. A pixel that is the first maximum of its square among the remaining ones would be
    selected before any pixel that could discard it, so all such pixels are selected at once and their squares cleared.
    The next round continues with the rest. Pixels below the K best so far are dropped early.

    Args:
        scores: (H, W) float32 in [0, 1]. NaN counts as 0.
        size: (width, height) of the picture, which is at the top left; the rest is padding.
        config: threshold, max_keypoints, nms_radius and border.
        mask: (h, w) bool, at least as large as the picture; False where keypoints are not allowed.

    Returns:
        Rows and columns, each (K,), by descending score; equal scores in row-major order.
    """
    (width, height), radius = size, config.nms_radius
    picture = cv2.copyMakeBorder(scores[:height, :width], radius, radius, radius, radius, cv2.BORDER_CONSTANT, value=0)
    cv2.patchNaNs(picture, 0)
    values, stride = picture.ravel(), picture.shape[1]
    square, kernel = _square(radius, stride)
    before, after = square[: square.size // 2], square[square.size // 2 + 1 :]

    def first_of_equals(where: Indices) -> Mask:
        if where.size * before.size <= values.size:
            return np.asarray((values[where[:, None] + before] < values[where, None]).all(axis=1))
        # On a plateau nearly every pixel is a candidate, and their windows would need too much memory.
        above = cv2.dilate(picture, kernel[:radius], anchor=(radius, radius - 1)).ravel()
        beside = cv2.dilate(picture, kernel[:1, :radius], anchor=(radius - 1, 0)).ravel()
        return np.asarray(np.maximum(above[where - stride], beside[where - 1]) < values[where])

    found, found_scores = np.empty(0, np.intp), np.empty(0, np.float32)
    least = np.nextafter(np.float32(config.threshold), np.float32(np.inf))
    left: Indices | None = None  # the whole picture
    peaks = np.flatnonzero(picture == cv2.dilate(picture, kernel))
    peaks = peaks[values[peaks] >= least]
    while peaks.size:
        peaks = peaks[first_of_equals(peaks)]
        eligible = peaks[_allowed(peaks // stride - radius, peaks % stride - radius, size, config, mask)]
        found = np.concatenate([found, eligible])
        found_scores = np.concatenate([found_scores, values[eligible]])
        values[peaks[:, None] + square] = 0
        if found.size >= config.max_keypoints:
            least = np.partition(found_scores, -config.max_keypoints)[-config.max_keypoints]
        peaks = left = np.flatnonzero(values >= least) if left is None else left[values[left] >= least]
        if left.size * square.size < values.size:
            for part in (after[:1], after):  # the next pixel alone decides most cases
                peaks = peaks[(values[peaks[:, None] + part] <= values[peaks, None]).all(axis=1)]
        else:
            peaks = left[values[left] == cv2.dilate(picture, kernel).ravel()[left]]
    best = np.lexsort((found, -found_scores))[: config.max_keypoints]
    return found[best] // stride - radius, found[best] % stride - radius


def best_of_cells(
    scores: Floats,
    x: Floats,
    y: Floats,
    cells: tuple[int, int],
    size: tuple[int, int],
    config: DecodeConfig,
    mask: Mask | None = None,
) -> Indices:
    """Find the best keypoints as find_peaks does, for one point in each cell: only neighboring cells can discard it.

    The points of the M cells (rows × columns) are in row-major order: scores (M,) float32 in [0, 1], NaN counting as 0,
    and x and y (M,) in pixels, within the cell or on its edge; the nearest whole pixel counts. The other arguments are
    those of find_peaks.

    Returns:
        (K,) indices of points, by descending score; equal scores in row-major order of their pixels.
    """
    (rows, columns), (width, height), radius = cells, size, config.nms_radius
    column = np.rint(x).astype(np.int32).clip(0, columns * CELL - 1)
    row = np.rint(y).astype(np.int32).clip(0, rows * CELL - 1)
    left = np.flatnonzero((scores > config.threshold) & (column < width) & (row < height))
    # Points are selected by descending rank. Floats from 0 up have the order of their bits; for equal scores the pixel
    # decides. One more point, which is never better, stands for missing neighbors.
    rank = np.full(scores.size + 1, -1, np.int64)
    rank[left] = scores[left].view(np.int32).astype(np.int64) << 32
    rank[left] -= row[left] * (columns * CELL) + column[left]

    def neighbors(steps: Indices) -> Indices:
        """(steps, points): the points this many cells down and right of each remaining point that it would discard."""
        below, beside = left // columns + steps[:, :1], left % columns + steps[:, 1:]
        there = (below >= 0) & (below < rows) & (beside >= 0) & (beside < columns)
        near = np.where(there, below * columns + beside, 0)
        there &= np.abs(column[near] - column[left]) <= radius
        there &= np.abs(row[near] - row[left]) <= radius
        return np.where(there, near, scores.size)

    reach = radius // CELL + 1
    around = np.stack(np.meshgrid(*2 * [np.arange(-reach, reach + 1)], indexing='ij'), axis=-1).reshape(-1, 2)
    before, after = neighbors(around[: len(around) // 2]), neighbors(around[len(around) // 2 + 1 :])
    found, standing = [left[:0]], rank.copy()
    while left.size:
        # Of two points with the same score in one pixel the first is selected.
        best = (rank[left] > standing[before].max(axis=0)) & (rank[left] >= standing[after].max(axis=0))
        found.append(left[best])
        for gone in (left[best], before[:, best], after[:, best]):
            standing[gone] = -1
        kept = standing[left] >= 0
        left, before, after = left[kept], before[:, kept], after[:, kept]
    points = np.concatenate(found)
    points = points[np.argsort(-rank[points])]
    return points[_allowed(row[points], column[points], size, config, mask)][: config.max_keypoints]


def _allowed(y: Indices, x: Indices, size: tuple[int, int], config: DecodeConfig, mask: Mask | None) -> Mask:
    """Whether border and mask allow keypoints at these pixels."""
    width, height = size
    inside = (x >= config.border) & (x < width - config.border)
    inside &= (y >= config.border) & (y < height - config.border)
    return inside if mask is None else inside & mask[y, x]


@lru_cache(maxsize=8)
def _square(radius: int, stride: int) -> tuple[Indices, npt.NDArray[np.uint8]]:
    """The pixels of a square as offsets from its center in a flat map, in row-major order; and OpenCV's kernel."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] * stride + steps).ravel(), np.ones((steps.size, steps.size), np.uint8)


def refinement(scores: Floats, y: Indices, x: Indices) -> Floats:
    """Offsets (K, 2) in x and y, within ±0.5 px, from whole pixels to the peaks of the score map.

    Fits a parabola to the logarithms of three scores in a row, and of three in a column; exact for a Gaussian.
    """
    height, width = scores.shape
    dy, dx = np.array([[0, 0, -1, 0, 1], [0, -1, 0, 1, 0]])[:, :, None]
    around = scores[(y + dy).clip(0, height - 1), (x + dx).clip(0, width - 1)]
    logarithms = np.log(np.maximum(around, np.float32(1e-12)))
    middle, below, above = logarithms[0], logarithms[1:3], logarithms[3:]
    curvature = np.minimum(below - 2 * middle + above, -1e-6)
    return (0.5 * (below - above) / curvature).clip(-0.5, 0.5).T


def sample_descriptors(descriptors: Floats, keypoints: Floats, interpolation: str = 'bilinear') -> Floats:
    """Descriptors of unit length at keypoints.

    Cell (i, j) of the map is centered at pixel (8·j + 3.5, 8·i + 3.5). Outside the outermost centers the map continues
    with its edge values.

    Args:
        descriptors: (H/8, W/8, D) float32 or float16, not normalized.
        keypoints: (K, 2), pixels (x, y).
        interpolation: bilinear, or bicubic: Keys' kernel with a = −0.75, as in OpenCV and torch.

    Returns:
        (K, D) float32 with unit rows; rows of zeros stay zero.
    """
    rows, columns, depth = descriptors.shape
    cells = descriptors.reshape(rows * columns, depth)
    kernel = _bilinear if interpolation == 'bilinear' else _bicubic
    position: Floats = (keypoints - np.float32((CELL - 1) / 2)) / np.float32(CELL)
    first = np.floor(position)
    taps, weights = kernel(position - first)
    near = first.astype(np.intp)[:, :, None] + taps
    column, row = near[:, 0].clip(0, columns - 1), near[:, 1].clip(0, rows - 1)
    index = (row[:, :, None] * columns + column[:, None, :]).reshape(len(keypoints), taps.size**2)
    weight = (weights[:, 1, :, None] * weights[:, 0, None, :]).reshape(len(keypoints), 1, taps.size**2)
    sampled = np.empty((len(keypoints), depth), np.float32)
    for start in range(0, len(keypoints), 64):  # blocks that fit into the cache
        block = slice(start, start + 64)
        np.matmul(weight[block], cells[index[block]].astype(np.float32, copy=False), out=sampled[block, None])
    length = np.sqrt(np.einsum('kd,kd->k', sampled, sampled))
    sampled /= np.maximum(length, 1e-12)[:, None]
    return sampled


def _bilinear(fraction: Floats) -> tuple[Indices, Floats]:
    return np.arange(2), np.stack([1 - fraction, fraction], axis=-1)


def _bicubic(fraction: Floats) -> tuple[Indices, Floats]:
    a = -0.75
    distance = np.abs(fraction[..., None] - np.arange(-1, 3, dtype=np.float32))
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.arange(-1, 3), np.where(distance <= 1, inner, outer)
