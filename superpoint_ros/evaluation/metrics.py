"""The metrics of the SuperPoint paper (DeTone et al., arXiv 1712.07629v4, appendix A), on NumPy arrays.

Points are (N, 2) pixels (x, y), a homography is (3, 3) from pixels of image 0 to pixels of image 1, and a threshold is
the paper's correctness distance ε in pixels. A share of nothing is 0, an error of nothing is NaN (means leave it out),
and the error of a homography that was not found is infinite.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Floats, Matches
from superpoint_ros.geometry import UNIT_SQUARE, Transform, transform_points

Points = npt.NDArray[np.floating]
Values = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Frame = Literal['each', 'second']


def inverse(homography: Transform) -> Transform:
    """The homography in the other direction."""
    return np.asarray(np.linalg.inv(homography), np.float64)


def shared(points: Points, homography: Transform, size: tuple[int, int]) -> Mask:
    """Which points (N,) of one image are visible in the other ("the shared viewpoint region").

    The homography leads to the other image of this (width, height); a visible point is mapped between the centers of
    its outermost pixels.
    """
    mapped = transform_points(homography, points)
    return np.all((mapped >= 0) & (mapped <= np.subtract(size, 1)), axis=1)


def distances(points: Points, others: Points) -> Values:
    """The distance (N,) from each point to the nearest of the others, or inf: min_j ‖x − x̂_j‖ of Eq. 11 and 13."""
    if len(others) == 0:
        return np.full(len(points), np.inf)
    offsets = points[:, None] - others[None]
    return np.sqrt(np.min(np.einsum('ijk,ijk->ij', offsets, offsets), axis=1))


def correspondence_distances(points0: Points, points1: Points, homography: Transform, frame: Frame = 'each') -> Values:
    """The distance from each point of a pair to the nearest point of the other image, mapped by the homography.

    Args:
        points0: (N0, 2) points of image 0 in the shared region.
        points1: (N1, 2) points of image 1 in the shared region.
        homography: (3, 3).
        frame: 'each' measures a point in its own image (Eq. 13: x_i against the x̂_j that come from the other image);
            'second' measures all in image 1, as rpautrat/SuperPoint's evaluation does.

    Returns:
        (N0 + N1,): the points of image 0, then those of image 1.
    """
    forward = transform_points(homography, points0)
    if frame == 'second':
        return np.concatenate([distances(forward, points1), distances(points1, forward)])
    backward = transform_points(inverse(homography), points1)
    return np.concatenate([distances(points0, backward), distances(points1, forward)])


def repeatability(correspondences: Values, threshold: float = 3.0) -> float:
    """Eq. 14: the share of both images' points with a point of the other within ε, by correspondence_distances."""
    return float(np.mean(correspondences <= threshold)) if len(correspondences) else 0.0


def localization_error(nearest: Values, threshold: float = 3.0) -> float:
    """Eq. 12: the mean of the distances (N,) to the nearest true points, where at most ε; NaN if none is."""
    correct = nearest <= threshold
    return float(np.mean(nearest[correct])) if correct.any() else math.nan


def assign(points: Points, truth: Points, threshold: float) -> Mask:
    """Which detections (N, 2), best first, are correct if each true corner (K, 2) may be detected only once.

    Eq. 11 accepts every detection within ε of a corner, so recall could exceed 1. As usual for average precision, each
    detection takes the nearest free corner within ε. The two agree where detections are more than 2ε apart.
    """
    correct = np.zeros(len(points), bool)
    if len(truth) == 0:
        return correct
    offsets = points[:, None] - truth[None]
    squared = np.einsum('ijk,ijk->ij', offsets, offsets)
    for i in np.flatnonzero(squared.min(axis=1) <= threshold**2):
        nearest = int(np.argmin(squared[i]))
        if squared[i, nearest] <= threshold**2:
            correct[i] = True
            squared[:, nearest] = np.inf
    return correct


def precision_recall(correct: Mask, scores: Values, positives: int) -> tuple[Values, Values]:
    """Precision and recall as the score threshold falls; equal scores are one step, so their order does not matter.

    Args:
        correct: (N,) bool, whether each answer is right.
        scores: (N,) confidence of each answer, in any order.
        positives: how many right answers there were to find.

    Returns:
        (M,) and (M,) for the M distinct scores, from the highest down; empty without answers or anything to find.
    """
    if len(scores) == 0 or positives == 0:
        return np.empty(0), np.empty(0)
    order = np.argsort(-scores, kind='stable')
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(correct[order])[ends]
    return found / (ends + 1), found / positives


def average_precision(correct: Mask, scores: Values, positives: int | None = None) -> float:
    """The area under the precision–recall curve, Σ (R_n − R_{n−1}) P_n, without interpolation.

    Arguments as in precision_recall. By default, positives are the right answers that were found, which measures the
    ranking alone. So does nearest-neighbor mAP here: the paper does not say what its recall is relative to,
    scikit-learn's average_precision_score uses the right neighbors. Relative to all points with a counterpart, it could
    not exceed matching score / repeatability, but the paper's ORB does (.735 with .266 / .641).
    """
    precision, recall = precision_recall(correct, scores, int(correct.sum()) if positives is None else positives)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def nearest_neighbors(descriptors0: Floats, descriptors1: Floats, mutual: bool = False) -> tuple[Matches, Matches]:
    """The nearest neighbor of every descriptor by cosine similarity, from image 0 to 1 and back; ties go to the first.

    Descriptors are (N, D) with unit rows. With `mutual`, only neighbors in both directions.
    """
    similarities = descriptors0 @ descriptors1.T
    if not similarities.size:
        nothing = Matches(np.empty((0, 2), np.uint32), np.empty(0, np.float32))
        return nothing, nothing

    def match(similarities: Floats) -> Matches:
        rows, columns = np.arange(len(similarities)), similarities.argmax(axis=1)
        if mutual:
            rows = rows[similarities.argmax(axis=0)[columns] == rows]
        indices = np.stack([rows, columns[rows]], axis=1).astype(np.uint32)
        return Matches(indices, similarities[rows, columns[rows]])

    return match(similarities), match(similarities.T)


def correct_matches(points: Points, matched: Points, homography: Transform, threshold: float = 3.0) -> Mask:
    """Which matches (M,) agree with the true homography.

    It leads from the points (M, 2) to the points (M, 2) of the other image that they were matched with.
    """
    return np.linalg.norm(transform_points(homography, points) - matched, axis=1) <= threshold


def corner_error(estimate: Transform | None, homography: Transform, size: tuple[int, int]) -> float:
    """Eq. 15: the mean distance between where two homographies put the corners of image 0 of this (width, height).

    In pixels of image 1; inf if there is no estimate.
    """
    if estimate is None:
        return math.inf
    corners = np.array(UNIT_SQUARE) * np.subtract(size, 1)
    offsets = transform_points(estimate, corners) - transform_points(homography, corners)
    error = float(np.mean(np.linalg.norm(offsets, axis=1)))
    return error if math.isfinite(error) else math.inf


def accuracy(errors: Values | float, threshold: float) -> float:
    """The share of errors up to the threshold: Eq. 15 for corner errors."""
    return float(np.mean(np.asarray(errors) <= threshold))


def accuracy_curve(errors: Values, most: float) -> tuple[Values, Values]:
    """Thresholds from 0 to `most`, and the accuracy at each."""
    thresholds = np.linspace(0, most, 201)
    return thresholds, np.array([accuracy(errors, threshold) for threshold in thresholds])


def auc(errors: Values | float, threshold: float) -> float:
    """The area under the curve of `accuracy` from 0 to the threshold, divided by the threshold.

    The exact area under the step curve is the mean of max(0, 1 − error / threshold). SuperGlue (Sarlin et al., arXiv
    1911.11763) and LightGlue join the steps by straight lines, which gives slightly more.
    """
    return float(np.mean(np.clip(1 - np.asarray(errors) / threshold, 0, 1)))
