"""Which features of two images show the same point: mutual nearest neighbors on unit descriptors, then geometry.

Descriptors are compared in float32, also those that traveled as INT8: for 1024 × 1024 descriptors of 256 numbers a
float32 matrix product takes 2.3 ms on two cores with AVX-512, torch's integer one 12 ms, and converting costs 0.1 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.features import Features, Floats, Matches

Doubles = npt.NDArray[np.float64]

BLOCK = 128
"""Rows of the similarity matrix that are worked on at a time: they stay in the cache of one core."""

GEOMETRIES = {'homography': 4, 'fundamental': 7, 'essential': 5}
"""How many matches each geometry needs."""


class Matcher(Protocol):
    """Matches the features of two images: `match` with its defaults, or `functools.partial(match, config=...)`.

    Raises:
        ValueError: the features cannot be compared; see check_comparable.
    """

    def __call__(self, features0: Features, features1: Features, /) -> Matches: ...


@dataclass(frozen=True)
class MatchConfig:
    """What makes two features a match."""

    min_similarity: float = option(
        0.7, 'Smallest cosine similarity of the two descriptors.', minimum=-1.0, maximum=1.0, live=True
    )
    max_ratio: float = option(
        1.0,
        'Ratio test: largest distance to the best candidate divided by the distance to the second best; 1 is off.',
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    window: float = option(
        0.0, 'Largest |dx| and |dy| from the predicted position; 0 is no limit.', unit='px', minimum=0.0, live=True
    )
    epipolar_band: float = option(
        0.0,
        'For rectified stereo with the left image first: largest |dy|; the right point lies to the left of the left '
        'one, or at most this far to its right; 0 is off.',
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
    """Match the features of two images.

    Two features match when each is the other's most similar one among the candidates that window and band allow. The
    ratio test (Lowe, IJCV 2004, section 7.1) compares Euclidean distances between unit descriptors, sqrt(2 − 2·cos),
    from each feature of the first image to its best and its second best candidate in the second one; a feature with
    a single candidate passes. No feature is in two matches; which of several exactly equal candidates is taken is not
    defined, but is always the same.

    Args:
        features0: the first image's, N0 of them.
        features1: the second image's, N1 of them.
        config: what makes a match.
        predicted: (N0, 2), where in the second image, in pixels, each feature of the first one is expected; its
            own position if not given. Only window and epipolar band look at it; a NaN is near nothing.

    Returns:
        At most min(N0, N1) matches in the order of features0.

    Raises:
        ValueError: the features cannot be compared (see check_comparable), or predicted is not (N0, 2).
    """
    check_comparable(features0, features1)
    if predicted is not None and predicted.shape != (len(features0), 2):
        raise ValueError(f'predicted: expected shape ({len(features0)}, 2), got {predicted.shape}')
    if not len(features0) or not len(features1):
        return Matches(np.empty((0, 2), np.uint32), np.empty(0, np.float32))

    reach = _reach(config)
    if reach is None:
        best, similarity, second, back = _nearest(features0.descriptors, features1.descriptors)
    else:
        positions0 = features0.keypoints if predicted is None else predicted.astype(np.float32)
        best, similarity, second, back = _nearest_within(positions0, features0, features1, reach)

    accepted = (similarity >= config.min_similarity) & (similarity == back[best]) & np.isfinite(similarity)
    if config.max_ratio < 1:
        accepted &= 1 - similarity <= config.max_ratio**2 * (1 - second)
    index0 = np.flatnonzero(accepted)
    # Exactly equal descriptors in the first image may claim the same feature of the second: the first of them gets it.
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
    """The geometry between two images that most of their matches agree on.

    Args:
        matrix: (3, 3) float64, from the first image's pixels to the second's: a homography H (x1 ~ H·x0), a fundamental
            matrix F (x1ᵀ·F·x0 = 0) or an essential matrix (of normalized image coordinates); None if there is none.
        inliers: (M,) bool, the matches that agree with it; none of them when there is no matrix.
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
    """Find the geometry that explains most matches (MAGSAC++, Barath et al., CVPR 2020, in OpenCV's USAC).

    Args:
        points0: (M, 2), the matched points in the first image, in pixels, without lens distortion.
        points1: (M, 2), the same points in the second image.
        geometry: 'homography' (a plane, or a camera that only turns), 'fundamental', or 'essential'.
        threshold: how far, in pixels, a match may be from the geometry.
        camera_matrices: the two (3, 3) matrices K of the cameras, for 'essential'.

    Returns:
        The geometry; with fewer matches than it needs there is none. The same input gives the same result.

    Raises:
        ValueError: the geometry is unknown, the points are not two (M, 2) arrays, or camera matrices are missing.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f'geometry: {geometry!r} is not one of {", ".join(GEOMETRIES)}')
    if points0.shape != points1.shape or points0.ndim != 2 or points0.shape[1] != 2:
        raise ValueError(f'points: expected two arrays of shape (M, 2), got {points0.shape} and {points1.shape}')
    if geometry == 'essential' and camera_matrices is None:
        raise ValueError('camera_matrices: an essential matrix needs the matrices K of both cameras')
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
    except cv2.error:  # some degenerate points end in a failed assertion of USAC
        return nothing
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return nothing
    return Verified(np.asarray(matrix, np.float64), mask.ravel().astype(bool))


def _essential(points: tuple[Doubles, Doubles], threshold: float, cameras: Any) -> tuple[Any, Any]:
    """OpenCV's essential matrix wants one camera: so of both images, as one of their mean focal length sees them.

    In pixels, for on the plane at distance 1 OpenCV's MAGSAC finds less than half of the right matches.
    """
    focal_length = float(np.mean([camera[i, i] for camera in cameras for i in (0, 1)]))
    camera = np.diag([focal_length, focal_length, 1.0])
    seen0, seen1 = (
        cv2.undistortPoints(seen, own.astype(np.float64), None, P=camera).reshape(-1, 2)
        for seen, own in zip(points, cameras, strict=True)
    )
    return cv2.findEssentialMat(seen0, seen1, camera, cv2.USAC_MAGSAC, 0.999, threshold)


@dataclass(frozen=True)
class _Reach:
    """Where the candidates are, from the predicted position, in pixels."""

    left: float
    right: float
    up_down: float


def _reach(config: MatchConfig) -> _Reach | None:
    window, band = config.window or np.inf, config.epipolar_band or np.inf
    if np.isinf(min(window, band)):
        return None
    return _Reach(left=window, right=min(window, band), up_down=min(window, band))


_Nearest = tuple[npt.NDArray[np.intp], Floats, Floats, Floats]
"""Each row's best column, its similarity and the second best one's, and each column's best similarity."""


def _nearest(descriptors0: Floats, descriptors1: Floats) -> _Nearest:
    """Argmax over rows, maximum over columns: both run along the memory, where an argmax over columns takes 4 ms."""
    found = _start(len(descriptors0), len(descriptors1))
    buffer = np.empty(BLOCK * len(descriptors1), np.float32)
    for start in range(0, len(descriptors0), BLOCK):
        rows = slice(start, min(start + BLOCK, len(descriptors0)))
        similarities = buffer[: (rows.stop - start) * len(descriptors1)].reshape(rows.stop - start, -1)
        np.matmul(descriptors0[rows], descriptors1.T, out=similarities)
        _reduce(similarities, rows, slice(0, len(descriptors1)), found)
    return found


def _nearest_within(positions0: Floats, features0: Features, features1: Features, reach: _Reach) -> _Nearest:
    """The same among the candidates in reach: in the order of y, those of a block of rows lie side by side."""
    order0 = np.argsort(positions0[:, 1], kind='stable')
    order1 = np.argsort(features1.keypoints[:, 1], kind='stable')
    positions0, positions1 = positions0[order0], features1.keypoints[order1]
    descriptors0, descriptors1 = features0.descriptors[order0], features1.descriptors[order1]
    found = _start(len(order0), len(order1))
    buffer = np.empty(BLOCK * len(order1), np.float32)
    for start in range(0, len(order0), BLOCK):
        rows = slice(start, min(start + BLOCK, len(order0)))
        top, bottom = positions0[start, 1] - reach.up_down - 1, positions0[rows.stop - 1, 1] + reach.up_down + 1
        columns = slice(*np.searchsorted(positions1[:, 1], [top, bottom]))
        if columns.start == columns.stop:
            continue
        shape = rows.stop - start, columns.stop - columns.start
        similarities = buffer[: shape[0] * shape[1]].reshape(shape)
        np.matmul(descriptors0[rows], descriptors1[columns].T, out=similarities)
        dx, dy = (positions1[columns, i] - positions0[rows, i, None] for i in (0, 1))
        inside = (np.abs(dy) <= reach.up_down) & (dx >= -reach.left) & (dx <= reach.right)
        np.copyto(similarities, -np.inf, where=~inside)
        _reduce(similarities, rows, columns, found)
    best, similarity, second, back = _start(len(order0), len(order1))
    best[order0], similarity[order0], second[order0] = order1[found[0]], found[1], found[2]
    back[order1] = found[3]
    return best, similarity, second, back


def _start(count0: int, count1: int) -> _Nearest:
    worst0, worst1 = np.full(count0, -np.inf, np.float32), np.full(count1, -np.inf, np.float32)
    return np.zeros(count0, np.intp), worst0, worst0.copy(), worst1


def _reduce(similarities: Floats, rows: slice, columns: slice, found: _Nearest) -> None:
    """Add a block of the similarity matrix to what was found; the block is used up."""
    best, similarity, second, back = found
    np.maximum(back[columns], similarities.max(axis=0), out=back[columns])
    chosen = similarities.argmax(axis=1)
    every = np.arange(len(similarities))
    best[rows], similarity[rows] = chosen + columns.start, similarities[every, chosen]
    similarities[every, chosen] = -np.inf
    second[rows] = similarities.max(axis=1)
