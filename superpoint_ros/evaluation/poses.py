"""Relative camera poses from the matches of real image pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation import metrics
from superpoint_ros.evaluation.baselines import Extract
from superpoint_ros.evaluation.datasets import shrink
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.pose_pairs import Doubles, PosePair
from superpoint_ros.evaluation.protocols import PROTOCOLS
from superpoint_ros.evaluation.report import Row
from superpoint_ros.extractor import from_file
from superpoint_ros.features import Features, Image
from superpoint_ros.matching import GEOMETRIES, Matcher, Verified, verify

Estimator = Literal['magsac', 'magsac-normalized', 'ransac-normalized']

SETTING = PROTOCOLS['paper'].description
THRESHOLDS = (5.0, 10.0, 20.0)
"""Pose errors, in degrees, up to which the area under the recall curve is taken."""
RANSAC_THRESHOLD = 1.0
"""Largest distance of an inlier of the estimated pose from its epipolar line, in pixels."""
RIGHT = 1.5
"""Largest distance of a right match from its true epipolar line, in pixels."""
KEPT = 3.0
"""Largest distance from its true epipolar line of a match that the oracle keeps, in pixels."""
ORDERS = 7
"""Orders of the matches that each pose is estimated from: one estimate varies with the order of its input."""
ORACLE = 'oracle'
CACHED = 64
"""Number of images whose features are kept, for each method."""


class View(NamedTuple):
    """The features of one image, resized."""

    features: Features
    """Of the image turned upright."""
    points: Doubles
    """(N, 2), the keypoints in pixels of the image that is resized, but not turned."""
    resize: Doubles
    """(3, 3) transform of points from the stored image to the resized one."""


def view(path: Path, turns: int, extract: Extract, side: int) -> View:
    """Extract the features of an image file, shrunk to a longest `side` and brought upright by counterclockwise turns.

    Raises:
        ValueError: the file cannot be read, or the image is too small.
    """

    def extract_upright(stored: Image) -> tuple[Image, Doubles, Features]:
        image, resize = shrink(stored, side)
        return image, resize, extract(np.ascontiguousarray(np.rot90(image, turns)))

    _, (image, resize, features) = from_file(path, extract_upright)
    points, rows = features.keypoints.astype(np.float64), features.image_size[1]
    for _ in range(turns):  # each quarter turn back takes (x, y) to (rows - 1 - y, x)
        points, rows = np.stack([rows - 1 - points[:, 1], points[:, 0]], axis=1), sum(image.shape) - rows
    return View(features, points, resize)


def epipolar_distances(points0: Doubles, points1: Doubles, pair: PosePair) -> Doubles:
    """The distances (M,) in pixels of points (M, 2) of image 1 from the epipolar lines of their matches in image 0."""
    x, y, z = pair.pose[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pair.pose[:3, :3]
    fundamental = np.linalg.inv(pair.cameras[1]).T @ essential @ np.linalg.inv(pair.cameras[0])
    lines = np.column_stack([points0, np.ones(len(points0))]) @ fundamental.T
    residuals = np.sum(lines[:, :2] * points1, axis=1) + lines[:, 2]
    return np.asarray(np.abs(residuals) / np.linalg.norm(lines[:, :2], axis=1), np.float64)


def pose_error(points0: Doubles, points1: Doubles, pair: PosePair, estimator: Estimator = 'magsac') -> float:
    """The larger of the angles between estimated and true rotation, and between estimated and true translation.

    An essential matrix does not tell the sign of the translation, so that angle is at most 90°, as in SuperGlue's
    evaluation. In degrees; inf if matches (M, 2) give no estimate.
    """
    found = estimate(points0, points1, pair.cameras, estimator)
    if found.matrix is None or not found.inliers.any():
        return math.inf
    seen0, seen1 = _normalized(points0[found.inliers], points1[found.inliers], pair.cameras)
    count, rotation, translation, *_ = cv2.recoverPose(found.matrix, seen0, seen1, np.eye(3), 1e9)
    if not count:
        return math.inf
    direction = pair.pose[:3, 3] / np.linalg.norm(pair.pose[:3, 3])
    cosine = (np.trace(rotation.T @ pair.pose[:3, :3]) - 1) / 2
    angles = np.arccos(np.clip([cosine, abs(float(translation[:, 0] @ direction))], -1, 1))
    return float(np.degrees(angles.max()))


def estimate(points0: Doubles, points1: Doubles, cameras: tuple[Doubles, Doubles], estimator: Estimator) -> Verified:
    """The essential matrix of matches (M, 2) in pixels, and the matches that agree with it.

    The estimator 'magsac' is matching.verify, in pixels. The others are OpenCV's MAGSAC++ and RANSAC on normalized
    coordinates with a threshold of 1 px / focal length; RANSAC is what SuperGlue's evaluation has.
    """
    if estimator == 'magsac':
        return verify(points0, points1, 'essential', RANSAC_THRESHOLD, cameras)
    nothing = Verified(None, np.zeros(len(points0), bool))
    if len(points0) < GEOMETRIES['essential']:
        return nothing
    focal_length = float(np.mean([camera[i, i] for camera in cameras for i in (0, 1)]))
    method = {'ransac-normalized': cv2.RANSAC, 'magsac-normalized': cv2.USAC_MAGSAC}[estimator]
    seen0, seen1 = _normalized(points0, points1, cameras)
    try:
        matrix, mask = cv2.findEssentialMat(seen0, seen1, np.eye(3), method, 0.99999, RANSAC_THRESHOLD / focal_length)
    except cv2.error:  # some degenerate points end in a failed assertion of USAC
        return nothing
    return nothing if matrix is None else Verified(np.asarray(matrix[:3], np.float64), mask.ravel().astype(bool))


def _normalized(points0: Doubles, points1: Doubles, cameras: tuple[Doubles, Doubles]) -> list[Doubles]:
    return [
        np.asarray(cv2.undistortPoints(points, camera, None), np.float64).reshape(-1, 2)
        for points, camera in zip((points0, points1), cameras, strict=True)
    ]


@dataclass(frozen=True)
class Results:
    """All measurements."""

    rows: list[Row] = field(default_factory=list)
    """One for each method, matcher and pair: auc_T for each of THRESHOLDS, right (the share of right matches), matches
    and right_matches (their numbers), and the pose errors of all orders in degrees. right_G and right_matches_G are the
    same for pairs with gap G."""
    failed: dict[str, None] = field(default_factory=dict)
    """A sentence for each image that could not be read."""
    refused: dict[str, None] = field(default_factory=dict)
    """A sentence for each matcher that does not match the features of a method."""


def evaluate(
    pairs: Sequence[PosePair],
    folder: Path,
    methods: Sequence[Method],
    matchers: Mapping[str, Matcher],
    estimator: Estimator = 'magsac',
    side: int = 640,
    orders: int = ORDERS,
) -> Results:
    """Estimate the pose of every pair from the matches of every method and matcher, and from the oracle's.

    The oracle keeps the matches of the first matcher that are near their true epipolar line: what a perfect choice
    among the same matches gives. Larger images are shrunk to a longest `side`, in whose pixels all distances are. Each
    pose is estimated from several random orders of the matches. Pairs with an image that cannot be read are skipped.
    """
    results = Results()
    # One cache for each method, which the images of a scene share.
    loaders = {
        method.name: lru_cache(CACHED)(partial(view, extract=method.at(SETTING), side=side)) for method in methods
    }
    with ThreadPoolExecutor() as pool:
        for pair in track(pairs, 'pairs', console=Console(stderr=True)):
            for method, load in loaders.items():
                try:
                    view0, view1 = (load(folder / pair.names[i], pair.turns[i]) for i in (0, 1))
                except ValueError as error:
                    results.failed[str(error)] = None
                    break
                cameras = view0.resize @ pair.cameras[0], view1.resize @ pair.cameras[1]
                resized = replace(pair, cameras=cameras)
                for matcher, points0, points1 in _matches(view0, view1, resized, matchers, results):
                    row = _measure(points0, points1, resized, estimator, orders, pool)
                    results.rows.append({'method': method, 'matcher': matcher, 'pair': pair.names, **row})
    return results


def _matches(
    view0: View, view1: View, pair: PosePair, matchers: Mapping[str, Matcher], results: Results
) -> Iterator[tuple[str, Doubles, Doubles]]:
    """For each matcher, then the oracle: its name, and the (M, 2) matched points of both images."""
    matched: list[tuple[Doubles, Doubles]] = []
    for name, matcher in matchers.items():
        try:
            rows = matcher(view0.features, view1.features).indices
        except ValueError as error:
            results.refused[str(error)] = None
            continue
        matched.append((view0.points[rows[:, 0]], view1.points[rows[:, 1]]))
        yield name, *matched[-1]
    if matched:
        points0, points1 = matched[0]
        kept = epipolar_distances(points0, points1, pair) <= KEPT
        yield ORACLE, points0[kept], points1[kept]


def _measure(
    points0: Doubles, points1: Doubles, pair: PosePair, estimator: Estimator, orders: int, pool: Executor
) -> Row:
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(len(points0)) for _ in range(orders)]
    find_error = partial(pose_error, pair=pair, estimator=estimator)
    errors = list(pool.map(find_error, (points0[order] for order in shuffled), (points1[order] for order in shuffled)))
    right = epipolar_distances(points0, points1, pair) <= RIGHT
    counts = {'right': float(right.mean()) if len(right) else math.nan, 'right_matches': int(right.sum())}
    return {
        **{f'auc_{t:g}': metrics.auc(np.array(errors), t) for t in THRESHOLDS},
        **counts,
        **({} if pair.gap is None else {f'{name}_{pair.gap}': count for name, count in counts.items()}),
        'matches': len(right),
        'errors': errors,
    }
