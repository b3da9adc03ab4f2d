"""Relative camera poses from the matches of real image pairs whose cameras are known.

Pair lists have the layout of SuperGlue (Sarlin et al., arXiv 1911.11763), in which ScanNet-1500, YFCC and MegaDepth are
published: one pair a line, `name0 name1 rot0 rot1 K0 K1 T_0to1`, matrices row by row. K0 and K1 are (3, 3) camera
matrices of the image files as stored, without lens distortion; T_0to1 is the (4, 4) transform from the coordinates of
camera 0 to those of camera 1; rot0 and rot1 are the counterclockwise quarter turns that bring the images upright.
Features are extracted and matched upright; their keypoints are then turned back, so cameras and poses stay as listed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from superpoint_ros import image_files
from superpoint_ros.evaluation import metrics
from superpoint_ros.evaluation.baselines import Extract
from superpoint_ros.features import Features, Matches
from superpoint_ros.geometry import resize_transform
from superpoint_ros.matching import GEOMETRIES, MatchConfig, Verified, match, verify

Doubles = npt.NDArray[np.float64]
Matcher = Callable[[Features, Features], Matches]
Estimator = Literal['magsac', 'ransac', 'magsac-normalized']

THRESHOLDS = (5.0, 10.0, 20.0)
"""Pose errors, in degrees, up to which the area under the recall curve is taken."""
RANSAC_THRESHOLD = 1.0
"""How far from its epipolar line an inlier of the estimated pose may be, in pixels."""
RIGHT = 1.5
"""How far from its true epipolar line a right match may be, in pixels."""
ORACLE = 3.0
"""How far from its true epipolar line a match may be that the oracle keeps, in pixels."""
ORDERS = 7
"""Orders of the matches that each pose is estimated from: one estimate wavers with the order of its input."""
RATIOS = (0.85, 0.9, 0.95)
"""Ratio tests of which each method's best is reported."""
NEAREST, ORACLE_MATCHER = 'nearest', 'oracle'
CACHED = 64
"""For each method, the features of so many images are kept."""


@dataclass(frozen=True, eq=False)
class PosePair:
    """Two images of one scene.

    Args:
        names: of the image files, relative to their folder.
        turns: counterclockwise quarter turns, 0 to 3, that bring each image upright.
        cameras: two (3, 3) camera matrices of the images as stored.
        pose: (4, 4), from the coordinates of camera 0 to those of camera 1.
    """

    names: tuple[str, str]
    turns: tuple[int, int]
    cameras: tuple[Doubles, Doubles]
    pose: Doubles

    @property
    def gap(self) -> int | None:
        """How far apart the images are in their sequence; None if their names do not tell."""
        found = [re.fullmatch(r'(.*?)(\d+)', str(Path(name).with_suffix(''))) for name in self.names]
        if found[0] is None or found[1] is None or found[0][1] != found[1][1]:
            return None
        return abs(int(found[0][2]) - int(found[1][2]))


def read_pairs(path: Path) -> list[PosePair]:
    """Read a pair list in SuperGlue's layout; empty lines are skipped.

    Raises:
        ValueError: the file is missing, has no pairs, or a line is not in that layout.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: cannot be read as a list of pairs ({error})') from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                pairs.append(_parse(line.split()))
            except ValueError as error:
                raise ValueError(f'{path}, line {number}: {error}') from error
    if not pairs:
        raise ValueError(f'{path}: no pairs; expected lines of name0 name1 rot0 rot1 K0 K1 T_0to1')
    return pairs


def _parse(fields: Sequence[str]) -> PosePair:
    if len(fields) != 38:
        raise ValueError(f'expected name0 name1 rot0 rot1 K0 K1 T_0to1, 38 fields, got {len(fields)}')
    if not {fields[2], fields[3]} <= set('0123'):
        raise ValueError(f'rot0 and rot1: expected 0, 1, 2 or 3 quarter turns, got {fields[2]} and {fields[3]}')
    numbers = np.array([float(number) for number in fields[4:]])
    cameras, pose = (numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)), numbers[18:].reshape(4, 4)
    if not np.isfinite(numbers).all():
        raise ValueError('K0, K1 and T_0to1: expected finite numbers')
    if any(np.any(camera.diagonal() <= 0) or np.any(camera[2] != (0, 0, 1)) for camera in cameras):
        raise ValueError('K0 and K1: expected camera matrices with positive focal lengths and a last row of 0 0 1')
    rotation, translation = pose[:3, :3], pose[:3, 3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2) or np.linalg.det(rotation) < 0:
        raise ValueError('T_0to1: expected a rotation in the upper left 3×3 numbers')
    if not translation.any():
        raise ValueError('T_0to1: expected cameras at two places, got a translation of 0')
    return PosePair((fields[0], fields[1]), (int(fields[2]), int(fields[3])), cameras, pose)


@dataclass(frozen=True, eq=False)
class View:
    """The features of one image at the size that it is measured at.

    Args:
        features: of the upright image.
        points: (N, 2) their keypoints in pixels of the image as it is stored, but resized.
        resize: (3, 3) transform of points from the stored image to the resized one.
    """

    features: Features
    points: Doubles
    resize: Doubles


def view(path: Path, turns: int, extract: Extract, resize: int = 640) -> View:
    """Extract the features of an image file, shrunk so that its longest side is `resize`, and turned upright.

    Raises:
        ValueError: the file is missing or not an image.
    """
    image = image_files.read(path)
    height, width = image.shape
    scale = resize / max(height, width)
    transform = np.eye(3)
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        transform = resize_transform(size[0] / width, size[1] / height)
    features = extract(np.ascontiguousarray(np.rot90(image, turns)))
    points, size = features.keypoints.astype(np.float64), features.image_size
    for _ in range(turns):  # each quarter turn back takes (x, y) to (height - 1 - y, x)
        points, size = np.stack([size[1] - 1 - points[:, 1], points[:, 0]], axis=1), (size[1], size[0])
    return View(features, points, transform)


def epipolar_distances(
    points0: Doubles, points1: Doubles, cameras: tuple[Doubles, Doubles], pose: Doubles
) -> npt.NDArray[np.float64]:
    """How far each point of image 1 is from the epipolar line of its match in image 0.

    Args:
        points0: (M, 2) pixels.
        points1: (M, 2) pixels.
        cameras: the (3, 3) camera matrices of both images.
        pose: (4, 4), from camera 0 to camera 1.

    Returns:
        (M,) pixels.
    """
    x, y, z = pose[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose[:3, :3]
    fundamental = np.linalg.inv(cameras[1]).T @ essential @ np.linalg.inv(cameras[0])
    lines = np.column_stack([points0, np.ones(len(points0))]) @ fundamental.T
    residuals = np.sum(lines[:, :2] * points1, axis=1) + lines[:, 2]
    return np.asarray(np.abs(residuals) / np.linalg.norm(lines[:, :2], axis=1), np.float64)


def estimate(points0: Doubles, points1: Doubles, cameras: tuple[Doubles, Doubles], estimator: Estimator) -> Verified:
    """The essential matrix of matches, and the matches that agree with it.

    Args:
        points0: (M, 2) pixels.
        points1: (M, 2) pixels.
        cameras: the (3, 3) camera matrices of both images.
        estimator: 'magsac' is matching.verify, in pixels. The other two are OpenCV's RANSAC and MAGSAC++ on normalized
            coordinates with a threshold of 1 px / focal length, as SuperGlue's evaluation has it.
    """
    if estimator == 'magsac':
        return verify(points0, points1, 'essential', RANSAC_THRESHOLD, cameras)
    nothing = Verified(None, np.zeros(len(points0), bool))
    if len(points0) < GEOMETRIES['essential']:
        return nothing
    focal_length = float(np.mean([camera[i, i] for camera in cameras for i in (0, 1)]))
    method = {'ransac': cv2.RANSAC, 'magsac-normalized': cv2.USAC_MAGSAC}[estimator]
    seen0, seen1 = _normalized(points0, points1, cameras)
    try:
        matrix, mask = cv2.findEssentialMat(seen0, seen1, np.eye(3), method, 0.99999, RANSAC_THRESHOLD / focal_length)
    except cv2.error:  # some degenerate points end in a failed assertion of USAC
        return nothing
    return nothing if matrix is None else Verified(np.asarray(matrix[:3], np.float64), mask.ravel().astype(bool))


def pose_error(
    points0: Doubles,
    points1: Doubles,
    cameras: tuple[Doubles, Doubles],
    pose: Doubles,
    estimator: Estimator = 'magsac',
) -> float:
    """The larger of the angles between estimated and true rotation, and between estimated and true translation.

    An essential matrix does not tell the sign of the translation, so that angle is at most 90°, as in SuperGlue's
    evaluation.

    Args:
        points0: (M, 2) pixels of the matches.
        points1: (M, 2) pixels of the matches.
        cameras: the (3, 3) camera matrices of both images.
        pose: (4, 4), the true one, from camera 0 to camera 1.
        estimator: see estimate.

    Returns:
        degrees; inf if there is no estimate.
    """
    found = estimate(points0, points1, cameras, estimator)
    if found.matrix is None or not found.inliers.any():
        return float('inf')
    seen0, seen1 = _normalized(points0[found.inliers], points1[found.inliers], cameras)
    count, rotation, translation, *_ = cv2.recoverPose(found.matrix, seen0, seen1, np.eye(3), 1e9)
    if not count:
        return float('inf')
    direction = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    cosine = (np.trace(rotation.T @ pose[:3, :3]) - 1) / 2
    angles = np.arccos(np.clip([cosine, abs(float(translation[:, 0] @ direction))], -1, 1))
    return float(np.degrees(angles.max()))


def _normalized(points0: Doubles, points1: Doubles, cameras: tuple[Doubles, Doubles]) -> list[Doubles]:
    return [
        np.asarray(cv2.undistortPoints(points, camera, None), np.float64).reshape(-1, 2)
        for points, camera in zip((points0, points1), cameras, strict=True)
    ]


@dataclass(frozen=True)
class Measurement:
    """One method and matcher on one pair.

    Args:
        method: its name.
        matcher: its name, or ORACLE_MATCHER.
        pair: the names of the two images.
        gap: PosePair.gap.
        matches: how many.
        right: the share of them within RIGHT of their true epipolar line; NaN without matches.
        errors: pose errors in degrees, one for each order of the matches.
    """

    method: str
    matcher: str
    pair: tuple[str, str]
    gap: int | None
    matches: int
    right: float
    errors: list[float]


@dataclass(frozen=True)
class Results:
    """All measurements, and a sentence for each image that could not be read."""

    measurements: list[Measurement] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def nearest_neighbors(ratios: Sequence[float] = RATIOS) -> dict[str, Matcher]:
    """Mutual nearest neighbors alone, and with each ratio test."""
    return {
        NEAREST if ratio == 1 else f'ratio {ratio:g}': partial(
            match, config=MatchConfig(min_similarity=-1.0, max_ratio=ratio)
        )
        for ratio in (1.0, *ratios)
    }


def evaluate(
    pairs: Sequence[PosePair],
    folder: Path,
    methods: Mapping[str, Extract],
    matchers: Mapping[str, Matcher],
    resize: int = 640,
    estimator: Estimator = 'magsac',
    orders: int = ORDERS,
) -> Results:
    """Estimate the pose of every pair from the matches of every method and matcher, and from the oracle's.

    The oracle keeps, of the first matcher's matches, those within ORACLE of their true epipolar line: what a perfect
    choice among the same matches gives.

    Args:
        pairs: what read_pairs gives; those with an image that cannot be read are skipped.
        folder: of the images.
        methods: by name, from a gray image to its features.
        matchers: by name.
        resize: larger images are shrunk so that their longest side has so many pixels; all distances are in these.
        estimator: see estimate.
        orders: random orders of the matches that each pose is estimated from.
    """
    results = Results()
    views = {
        name: lru_cache(CACHED)(partial(view, extract=extract, resize=resize)) for name, extract in methods.items()
    }
    with ThreadPoolExecutor() as pool:
        for pair in track(pairs, 'pairs', console=Console(stderr=True)):
            try:
                for method, load in views.items():
                    results.measurements.extend(_measure(pair, folder, method, load, matchers, estimator, orders, pool))
            except ValueError as error:
                results.failed.append(str(error))
    return dataclasses.replace(results, failed=list(dict.fromkeys(results.failed)))


def _measure(
    pair: PosePair,
    folder: Path,
    method: str,
    load: Callable[[Path, int], View],
    matchers: Mapping[str, Matcher],
    estimator: Estimator,
    orders: int,
    pool: Executor,
) -> Iterator[Measurement]:
    view0, view1 = (load(folder / name, turns) for name, turns in zip(pair.names, pair.turns, strict=True))
    cameras = (view0.resize @ pair.cameras[0], view1.resize @ pair.cameras[1])
    matched = {}
    for name, matcher in matchers.items():
        rows = matcher(view0.features, view1.features).indices
        points0, points1 = view0.points[rows[:, 0]], view1.points[rows[:, 1]]
        matched[name] = points0, points1, epipolar_distances(points0, points1, cameras, pair.pose)
    points0, points1, distances = next(iter(matched.values()))
    kept = distances <= ORACLE
    matched[ORACLE_MATCHER] = points0[kept], points1[kept], distances[kept]
    for name, (points0, points1, distances) in matched.items():
        rng = np.random.default_rng(0)
        shuffled = [rng.permutation(len(points0)) for _ in range(orders)]
        errors = pool.map(
            partial(pose_error, cameras=cameras, pose=pair.pose, estimator=estimator),
            [points0[order] for order in shuffled],
            [points1[order] for order in shuffled],
        )
        right = float(np.mean(distances <= RIGHT)) if len(distances) else float('nan')
        yield Measurement(method, name, pair.names, pair.gap, len(distances), right, list(errors))


def summarize(measurements: Sequence[Measurement]) -> list[dict[str, float | str]]:
    """One row for each method and matcher: the AUCs, the share of right matches, also by gap, and their number."""
    rows: list[dict[str, float | str]] = []
    for method, matcher in dict.fromkeys((m.method, m.matcher) for m in measurements):
        chosen = [m for m in measurements if (m.method, m.matcher) == (method, matcher)]
        errors = np.array([m.errors for m in chosen])
        row: dict[str, float | str] = {'method': method, 'matcher': matcher, 'pairs': len(chosen)}
        row |= {f'auc_{t:g}': metrics.accuracy_auc(errors, t) for t in THRESHOLDS}
        row['right'] = _mean([m.right for m in chosen])
        for gap in sorted({m.gap for m in chosen if m.gap is not None}):
            row[f'right_{gap}'] = _mean([m.right for m in chosen if m.gap == gap])
        row['matches'] = float(np.mean([m.matches for m in chosen]))
        rows.append(row)
    return rows


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float('nan')
