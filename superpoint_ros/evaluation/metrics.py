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

from superpoint_ros.geometry import Transform, transform_points

Points = npt.NDArray[np.floating]
Values = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Frame = Literal['each', 'second']


def inverse(homography: Transform) -> Transform:
    """The homography in the other direction."""
    return np.asarray(np.linalg.inv(homography), np.float64)


def shared(points: Points, homography: Transform, size: tuple[int, int]) -> Mask:
    """Which points of one image are visible in the other ("the shared viewpoint region").

    Args:
        points: (N, 2).
        homography: (3, 3), from the image of the points to the other one.
        size: (width, height) of the other image.

    Returns:
        (N,) bool: the mapped point is between the centers of the other image's outermost pixels.
    """
    mapped = transform_points(homography, points)
    return np.all((mapped >= 0) & (mapped <= np.subtract(size, 1)), axis=1)


def distances(points: Points, others: Points) -> Values:
    """The distance from each point to the nearest of the others: min_j ‖x − x̂_j‖ of Eq. 11 and 13.

    Returns:
        (N,), inf where there are no others.
    """
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
    """Eq. 14: the share of both images' points with a point of the other image within the threshold.

    Args:
        correspondences: (N0 + N1,) result of correspondence_distances.
        threshold: ε in pixels.
    """
    return float(np.mean(correspondences <= threshold)) if len(correspondences) else 0.0


def localization_error(nearest: Values, threshold: float = 3.0) -> float:
    """Eq. 12: the mean distance of the correct points, between 0 and the threshold; NaN if none is correct.

    Args:
        nearest: (N,) distances to the nearest true point: result of distances or correspondence_distances.
        threshold: ε in pixels.
    """
    correct = nearest <= threshold
    return float(np.mean(nearest[correct])) if correct.any() else math.nan


def assign(points: Points, truth: Points, threshold: float) -> Mask:
    """Which detections are correct if each true corner may be detected only once.

    Eq. 11 accepts every detection within ε of a corner, so recall could exceed 1. As usual for average precision, each
    detection, best first, takes the nearest free corner within ε. The two agree where detections are more than 2ε
    apart.

    Args:
        points: (N, 2) detections, best first.
        truth: (K, 2) true corners.
        threshold: ε in pixels.

    Returns:
        (N,) bool.
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
        precision (M,) and recall (M,) for the M distinct scores, from the highest down; empty if there are no answers
        or nothing to find.
    """
    if len(scores) == 0 or positives == 0:
        return np.empty(0), np.empty(0)
    order = np.argsort(-scores, kind='stable')
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(correct[order])[ends]
    return found / (ends + 1), found / positives


def average_precision(correct: Mask, scores: Values, positives: int | None = None) -> float:
    """The area under the precision–recall curve, Σ (R_n − R_{n−1}) P_n, without interpolation.

    Args:
        correct: (N,) bool, whether each answer is right.
        scores: (N,) confidence of each answer.
        positives: how many right answers there were to find; by default those that were found, which measures the
            ranking alone. So does nearest-neighbor mAP here: the paper does not say what its recall is relative to,
            scikit-learn's average_precision_score uses the right neighbors. Relative to all points with a counterpart,
            it could not exceed matching score / repeatability, but the paper's ORB does (.735 with .266 / .641).
    """
    precision, recall = precision_recall(correct, scores, int(correct.sum()) if positives is None else positives)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def nearest_neighbors(
    descriptors0: npt.NDArray[np.float32], descriptors1: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The nearest neighbor of every descriptor in both directions, by cosine similarity; ties go to the first.

    Args:
        descriptors0: (N0, D) with unit rows.
        descriptors1: (N1, D) with unit rows.

    Returns:
        For image 0 the (N0,) indices into image 1 and the (N0,) similarities, then the same for image 1. All four are
        empty if either image has no descriptors.
    """
    if len(descriptors0) == 0 or len(descriptors1) == 0:
        none, nothing = np.empty(0, np.intp), np.empty(0, np.float32)
        return none, nothing, none, nothing
    similarities = descriptors0 @ descriptors1.T
    index0, index1 = similarities.argmax(axis=1), similarities.argmax(axis=0)
    return index0, similarities.max(axis=1), index1, similarities.max(axis=0)


def correct_matches(points: Points, matched: Points, homography: Transform, threshold: float = 3.0) -> Mask:
    """Which matches agree with the true homography.

    Args:
        points: (M, 2) points of one image.
        matched: (M, 2) the points of the other image that they were matched with.
        homography: (3, 3) from the image of the points to the other one.
        threshold: ε in pixels of the other image.

    Returns:
        (M,) bool.
    """
    return np.linalg.norm(transform_points(homography, points) - matched, axis=1) <= threshold


def corner_error(estimate: Transform | None, homography: Transform, size: tuple[int, int]) -> float:
    """Eq. 15: the mean distance, over the four corners of image 0, between where two homographies put them.

    Args:
        estimate: (3, 3), or None if none was found.
        homography: (3, 3), the true one.
        size: (width, height) of image 0.

    Returns:
        Pixels of image 1; inf if there is no estimate.
    """
    if estimate is None:
        return math.inf
    right, bottom = size[0] - 1, size[1] - 1
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)
    offsets = transform_points(estimate, corners) - transform_points(homography, corners)
    error = float(np.mean(np.linalg.norm(offsets, axis=1)))
    return error if math.isfinite(error) else math.inf


def accuracy(errors: Values | float, threshold: float) -> float:
    """The share of errors up to the threshold: Eq. 15 for corner errors."""
    return float(np.mean(np.asarray(errors) <= threshold))


def auc(errors: Values | float, threshold: float) -> float:
    """The area under the curve of `accuracy` from 0 to the threshold, divided by the threshold.

    The exact area under the step curve is the mean of max(0, 1 − error / threshold). SuperGlue (Sarlin et al., arXiv
    1911.11763) and LightGlue join the steps by straight lines, which gives slightly more.
    """
    return float(np.mean(np.clip(1 - np.asarray(errors) / threshold, 0, 1)))
