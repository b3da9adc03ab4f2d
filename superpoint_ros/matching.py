"""Matches of the features of two images: mutual nearest neighbors of unit descriptors, and geometric verification.

Descriptors are compared in float32, also those sent as INT8. For 1024 × 1024 descriptors of 256 elements, a float32
matrix product takes 2.3 ms on two cores with AVX-512, torch's integer product 12 ms, and the conversion 0.1 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.features import Features, Floats, Matches

Doubles = npt.NDArray[np.float64]

BLOCK = 128
"""Rows of the similarity matrix that are computed at a time, so that they stay in the cache of one core."""

GEOMETRIES = {'homography': 4, 'fundamental': 7, 'essential': 5}
"""Number of matches that each geometry needs."""

Matcher = Callable[[Features, Features], Matches]
"""Matches the features of two images: `match`, `functools.partial(match, config=...)` or a LearnedMatcher.

It raises ValueError if they cannot be compared; see check_comparable.
"""


@dataclass(frozen=True)
class MatchConfig:
    """Conditions for two features to match; a learned matcher uses only min_similarity."""

    min_similarity: float = option(
        0.7,
        'Smallest cosine similarity of two descriptors that match, or probability of a learned matcher.',
        minimum=-1.0,
        maximum=1.0,
        live=True,
    )
    max_ratio: float = option(
        1.0,
        'Ratio test: largest ratio of the distances to the best and the second best candidate; 1 disables it.',
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    window: float = option(
        0.0, 'Largest |dx| and |dy| from the predicted position; 0 for no limit.', unit='px', minimum=0.0, live=True
    )
    epipolar_band: float = option(
        0.0,
        'For rectified stereo, left camera first: largest |dy|, and largest dx to the right, as points in the right '
        'image lie farther to the left; 0 for no limit.',
        unit='px',
        minimum=0.0,
        live=True,
    )

    def __post_init__(self) -> None:
        check(self)


def match(
    features0: Features,
    features1: Features,
    config: MatchConfig = MatchConfig(),
    predicted: npt.NDArray[np.floating] | None = None,
) -> Matches:
    """Match the features of two images by mutual nearest neighbors.

    Two features match if each is the most similar one to the other among the candidates inside the window and the
    epipolar band. The ratio test (Lowe, IJCV 2004, section 7.1) compares the Euclidean distances of unit descriptors,
    sqrt(2 − 2·cos), from a feature of the first image to its best and second best candidates in the second image; a
    feature with one candidate passes. Each feature has at most one match. Ties are broken in an unspecified but
    repeatable way.

    Args:
        features0: N0 features of the first image.
        features1: N1 features of the second image.
        config: conditions for a match.
        predicted: (N0, 2), pixels: the expected positions in the second image of the features of the first, for window
            and epipolar band. By default their positions in the first image. NaN excludes a feature.

    Returns:
        At most min(N0, N1) matches, in the order of features0.

    Raises:
        ValueError: the features cannot be compared (see check_comparable), or predicted is not (N0, 2).
    """
    check_comparable(features0, features1)
    if predicted is not None and predicted.shape != (len(features0), 2):
        raise ValueError(f'predicted: expected shape ({len(features0)}, 2), got {predicted.shape}')
    if not len(features0) or not len(features1):
        return Matches(np.empty((0, 2), np.uint32), np.empty(0, np.float32))

    left = config.window or np.inf
    # As points in a rectified right image lie farther to the left, the band limits the other directions.
    reach = min(left, config.epipolar_band or np.inf)
    if np.isinf(reach):
        best, similarity, second, back = _nearest(features0.descriptors, features1.descriptors)
    else:
        positions0 = features0.keypoints if predicted is None else predicted.astype(np.float32)
        best, similarity, second, back = _nearest_within(positions0, features0, features1, left, reach)

    accepted = (similarity >= config.min_similarity) & (similarity == back[best]) & np.isfinite(similarity)
    if config.max_ratio < 1:
        accepted &= 1 - similarity <= config.max_ratio**2 * (1 - second)
    index0 = np.flatnonzero(accepted)
    # Equal descriptors in the first image may have the same nearest neighbor: only the first of them gets it.
    index0 = index0[np.sort(np.unique(best[index0], return_index=True)[1])]
    return Matches(np.stack([index0, best[index0]], axis=1).astype(np.uint32), similarity[index0])


def check_comparable(features0: Features, features1: Features) -> None:
    """Check that two sets of features have descriptors, and that these come from one model as far as known.

    Raises:
        ValueError: one sentence that says why they cannot be matched.
    """
    size0, size1 = features0.descriptors.shape[1], features1.descriptors.shape[1]
    if size0 != size1:
        raise ValueError(f'descriptors of different sizes, {size0} and {size1}: features of two models do not match')
    if size0 == 0:
        raise ValueError('features without descriptors cannot be matched: use a model that describes its keypoints')
    known = features0.checksum, features1.checksum
    if all(known) and known[0] != known[1]:
        short = ' and '.join(checksum[:12] for checksum in known)
        raise ValueError(f'features of two models do not match (checksums {short})')


@dataclass(frozen=True, eq=False)
class Verified:
    """Geometry between two images, and the matches that agree with it.

    Args:
        matrix: (3, 3) float64, from the first image to the second: a homography H (x1 ~ H·x0) or fundamental matrix F
            (x1ᵀ·F·x0 = 0) in pixels, or an essential matrix in normalized image coordinates. None if none was found.
        inliers: (M,) bool, the matches that agree with it; all False without a matrix.
    """

    matrix: Doubles | None
    inliers: npt.NDArray[np.bool_]


def verify(
    points0: npt.NDArray[np.floating],
    points1: npt.NDArray[np.floating],
    geometry: str,
    threshold: float = 2.0,
    camera_matrices: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]] | None = None,
) -> Verified:
    """Estimate the geometry between two images with MAGSAC++ (Barath et al., CVPR 2020; OpenCV's USAC).

    Args:
        points0: (M, 2), matched points in the first image, in pixels, without lens distortion.
        points1: (M, 2), the same points in the second image.
        geometry: 'homography' (a plane, or a camera that only rotates), 'fundamental' or 'essential'.
        threshold: largest distance of an inlier from the geometry, in pixels.
        camera_matrices: (3, 3) matrix K of each camera, for 'essential'.

    Returns:
        The geometry and its inliers. The same input gives the same result.

    Raises:
        ValueError: the geometry is unknown, the points are not two (M, 2) arrays, or camera matrices are missing.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f'geometry: {geometry!r} is not one of {", ".join(GEOMETRIES)}')
    if points0.shape != points1.shape or points0.ndim != 2 or points0.shape[1] != 2:
        raise ValueError(f'points: expected two arrays of shape (M, 2), got {points0.shape} and {points1.shape}')
    if geometry == 'essential' and camera_matrices is None:
        raise ValueError('camera_matrices: the essential matrix needs the matrix K of each camera')
    nothing = Verified(None, np.zeros(len(points0), bool))
    if len(points0) < GEOMETRIES[geometry]:
        return nothing
    points = (points0.astype(np.float64), points1.astype(np.float64))
    try:
        if geometry == 'homography':
            matrix, mask = cv2.findHomography(*points, cv2.USAC_MAGSAC, threshold)
        elif geometry == 'fundamental':
            matrix, mask = cv2.findFundamentalMat(*points, cv2.USAC_MAGSAC, threshold, 0.999)
        else:
            matrix, mask = _essential(points, threshold, camera_matrices)
    except cv2.error:  # degenerate points can fail an assertion in USAC
        return nothing
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return nothing
    return Verified(np.asarray(matrix, np.float64), mask.ravel().astype(bool))


def _essential(points: tuple[Doubles, Doubles], threshold: float, cameras: Any) -> tuple[Any, Any]:
    """Essential matrix of two different cameras; OpenCV's USAC takes one camera only.

    The points are therefore moved to a common camera with the mean focal length. Its pixels matter: in normalized
    coordinates OpenCV's MAGSAC finds less than half of the inliers.
    """
    focal_length = float(np.mean([camera[i, i] for camera in cameras for i in (0, 1)]))
    camera = np.diag([focal_length, focal_length, 1.0])
    points0, points1 = (
        cv2.undistortPoints(pixels, own.astype(np.float64), None, P=camera).reshape(-1, 2)
        for pixels, own in zip(points, cameras, strict=True)
    )
    return cv2.findEssentialMat(points0, points1, camera, cv2.USAC_MAGSAC, 0.999, threshold)


_Nearest = tuple[npt.NDArray[np.intp], Floats, Floats, Floats]
"""Best column of each row, its similarity, the second best similarity, and the best similarity of each column."""


def _nearest_within(
    positions0: Floats, features0: Features, features1: Features, left: float, reach: float
) -> _Nearest:
    """Nearest neighbors that are at most `left` px to the left, and `reach` px right, above and below.

    Sorted by y, the candidates of a block of rows are contiguous.
    """
    order0 = np.argsort(positions0[:, 1], kind='stable')
    order1 = np.argsort(features1.keypoints[:, 1], kind='stable')
    positions0, positions1 = positions0[order0], features1.keypoints[order1]

    def candidates(rows: slice) -> tuple[slice, npt.NDArray[np.bool_]]:
        top, bottom = positions0[rows.start, 1] - reach - 1, positions0[rows.stop - 1, 1] + reach + 1
        columns = slice(*np.searchsorted(positions1[:, 1], [top, bottom]))
        dx, dy = (positions1[columns, i] - positions0[rows, i, None] for i in (0, 1))
        return columns, (np.abs(dy) <= reach) & (dx >= -left) & (dx <= reach)

    found = _nearest(features0.descriptors[order0], features1.descriptors[order1], candidates)
    best, (similarity, second, back) = np.empty_like(found[0]), (np.empty_like(values) for values in found[1:])
    best[order0], similarity[order0], second[order0] = order1[found[0]], found[1], found[2]
    back[order1] = found[3]
    return best, similarity, second, back


def _nearest(
    descriptors0: Floats,
    descriptors1: Floats,
    candidates: Callable[[slice], tuple[slice, npt.NDArray[np.bool_]]] | None = None,
) -> _Nearest:
    """Nearest neighbors, block by block.

    Both reductions run along contiguous memory; an argmax over columns would take 4 ms.

    Args:
        descriptors0: (N0, D), the rows of the similarity matrix.
        descriptors1: (N1, D), its columns.
        candidates: the columns that can match some rows, and (rows, columns) which pairs of them can; all if None.
    """
    count0, count1 = len(descriptors0), len(descriptors1)
    best, similarity = np.zeros(count0, np.intp), np.full(count0, -np.inf, np.float32)
    second, back = similarity.copy(), np.full(count1, -np.inf, np.float32)
    buffer = np.empty(BLOCK * count1, np.float32)
    for start in range(0, count0, BLOCK):
        rows = slice(start, min(start + BLOCK, count0))
        columns, inside = candidates(rows) if candidates else (slice(0, count1), None)
        shape = rows.stop - rows.start, columns.stop - columns.start
        if not shape[1]:
            continue
        similarities = buffer[: shape[0] * shape[1]].reshape(shape)
        np.matmul(descriptors0[rows], descriptors1[columns].T, out=similarities)
        if inside is not None:
            np.copyto(similarities, -np.inf, where=~inside)
        np.maximum(back[columns], similarities.max(axis=0), out=back[columns])
        chosen, every = similarities.argmax(axis=1), np.arange(shape[0])
        best[rows], similarity[rows] = chosen + columns.start, similarities[every, chosen]
        similarities[every, chosen] = -np.inf
        second[rows] = similarities.max(axis=1)
    return best, similarity, second, back
