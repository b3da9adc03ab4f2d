"""Detectors and descriptors on pairs of images with a known homography."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation import metrics
from superpoint_ros.evaluation.baselines import Extract
from superpoint_ros.evaluation.datasets import Pair, PairLoader
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.protocols import Protocol, Setting
from superpoint_ros.features import Features
from superpoint_ros.geometry import Transform, transform_points
from superpoint_ros.matching import verify

THRESHOLDS = (1.0, 3.0, 5.0)
"""Corner errors in pixels up to which a homography is called right, in the paper's table 4."""
RANSAC_THRESHOLD = 3.0
"""Pixels within which a match agrees with a homography; OpenCV's default."""
DESCRIPTION = 'description'
EXAMPLES = 4
"""How many pairs are kept to be drawn."""


@dataclass(frozen=True, eq=False)
class Matched:
    """The matches of one method on one pair.

    Args:
        points0: (M, 2) pixels of image 0.
        points1: (M, 2) pixels of image 1.
        correct: (M,) bool, by the true homography.
        similarities: (M,) cosine similarity.
    """

    points0: npt.NDArray[np.float32]
    points1: npt.NDArray[np.float32]
    correct: npt.NDArray[np.bool_]
    similarities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measurement:
    """What one method did on one pair at one setting.

    Args:
        stage: what stage(setting) gives, or DESCRIPTION.
        method: its name.
        pair: its name.
        split: 'illumination', 'viewpoint' or ''.
        values: the metrics by name; NaN where one is not defined.
    """

    stage: str
    method: str
    pair: str
    split: str
    values: dict[str, float]


@dataclass(frozen=True)
class Results:
    """All measurements, and what is needed to draw them.

    Args:
        measurements: one for each stage, method and pair.
        matched: by method, the matches of every pair.
        examples: some pairs, at the size they were matched at, with the matches of every method.
        failed: a sentence for each pair that could not be read.
    """

    measurements: list[Measurement] = field(default_factory=list)
    matched: dict[str, list[Matched]] = field(default_factory=dict)
    examples: list[tuple[Pair, dict[str, Matched]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def stage(setting: Setting) -> str:
    """The name of a detection stage."""
    return f'detection, NMS {setting.nms_radius} px'


def evaluate(loaders: Sequence[PairLoader], methods: Sequence[Method], protocol: Protocol) -> Results:
    """Measure every method on every pair; a pair is loaded once, and one that cannot be read is listed and skipped.

    Args:
        loaders: the pairs.
        methods: what is compared.
        protocol: how.
    """
    results = Results()
    detecting = [
        (stage(setting), setting, method.name, method.at(setting))
        for setting in protocol.detection
        for method in methods
        if method.detects
    ]
    describing = [(method.name, method.at(protocol.description)) for method in methods if method.describes]
    kept = set(np.linspace(0, len(loaders) - 1, min(EXAMPLES, len(loaders)), dtype=int).tolist())
    for index, load in enumerate(track(loaders, 'pairs', console=Console(stderr=True))):
        try:
            pair = load()
        except ValueError as error:
            results.failed.append(str(error))
            continue
        for what, setting, name, extract in detecting:
            values = detection(*_extract_both(pair, setting, extract), setting)
            results.measurements.append(Measurement(what, name, pair.name, pair.split, values))
        drawn: dict[str, Matched] = {}
        for name, extract in describing:
            fitted, features0, features1 = _extract_both(pair, protocol.description, extract)
            values, matched = description(fitted, features0, features1, protocol.description)
            results.measurements.append(Measurement(DESCRIPTION, name, pair.name, pair.split, values))
            results.matched.setdefault(name, []).append(matched)
            drawn[name] = matched
        if index in kept and drawn:
            results.examples.append((pair.fitted(protocol.description.size), drawn))
    return results


def _extract_both(pair: Pair, setting: Setting, extract: Extract) -> tuple[Pair, Features, Features]:
    fitted = pair.fitted(setting.size)
    backward = metrics.inverse(fitted.homography)
    return (
        fitted,
        select(extract(fitted.image0), fitted.homography, setting),
        select(extract(fitted.image1), backward, setting),
    )


def select(features: Features, homography: Transform, setting: Setting) -> Features:
    """The features that a setting measures.

    Args:
        features: of one image, best first.
        homography: (3, 3) to the other image.
        setting: how many, and whether only those that lie in the other image too.
    """
    if setting.in_common:
        features = features[metrics.shared(features.keypoints, homography, setting.size)]
    features = features[: setting.keypoints]
    return dataclasses.replace(features, keypoints=np.rint(features.keypoints)) if setting.whole_pixels else features


def detection(pair: Pair, features0: Features, features1: Features, setting: Setting) -> dict[str, float]:
    """Repeatability and localization error of one pair, among the points in the shared region."""
    points0 = features0.keypoints[metrics.shared(features0.keypoints, pair.homography, setting.size)]
    points1 = features1.keypoints[metrics.shared(features1.keypoints, metrics.inverse(pair.homography), setting.size)]
    distances = metrics.correspondence_distances(points0, points1, pair.homography, setting.frame)
    return {
        'repeatability': metrics.repeatability(distances, setting.epsilon),
        'localization_error': metrics.localization_error(distances, setting.epsilon),
        'keypoints': (len(features0) + len(features1)) / 2,
    }


def description(
    pair: Pair, features0: Features, features1: Features, setting: Setting
) -> tuple[dict[str, float], Matched]:
    """The metrics of the paper's table 4 for one pair, and the matches from image 0 to image 1 that gave them."""
    backward = metrics.inverse(pair.homography)
    index0, similarities0, index1, similarities1 = metrics.nearest_neighbors(
        features0.descriptors, features1.descriptors
    )
    ways = []
    for here, there, nearest, back, similarities, homography in (
        (features0, features1, index0, index1, similarities0, pair.homography),
        (features1, features0, index1, index0, similarities1, backward),
    ):
        rows = np.arange(len(nearest))
        if setting.mutual:
            rows = rows[back[nearest] == rows]
        points, matches = here.keypoints[rows], there.keypoints[nearest[rows]]
        correct = metrics.correct_matches(points, matches, homography, setting.epsilon)
        inside = metrics.shared(here.keypoints, homography, setting.size)
        recovered = int(np.sum(correct & inside[rows]))
        ways.append((Matched(points, matches, correct, similarities[rows]), recovered, int(inside.sum())))
    (matched, recovered0, shared0), (matched_back, recovered1, shared1) = ways
    estimate = estimate_homography(matched.points0, matched.points1)
    robust = verify(matched.points0, matched.points1, 'homography', RANSAC_THRESHOLD).matrix
    return {
        'corner_error': metrics.corner_error(estimate, pair.homography, setting.size),
        'corner_error_magsac': metrics.corner_error(robust, pair.homography, setting.size),
        **detection(pair, features0, features1, setting),
        'nn_map': metrics.nn_map(
            matched.correct, matched.similarities, matched_back.correct, matched_back.similarities
        ),
        'matching_score': metrics.matching_score(recovered0, shared0, recovered1, shared1),
        'matches': float(len(matched.correct)),
        'inliers': float(_inliers(estimate, matched)),
    }, matched


def estimate_homography(points0: npt.NDArray[np.floating], points1: npt.NDArray[np.floating]) -> Transform | None:
    """cv2.findHomography with RANSAC at OpenCV's defaults, as the paper has it; None if there is none.

    Which matches agree is decided by a sample of four, and those are fitted once; so it punishes inexact points more
    than methods that refine every good sample, and choose anew (LO-RANSAC, MAGSAC++).
    """
    if len(points0) < 4:
        return None
    homography, _ = cv2.findHomography(points0, points1, cv2.RANSAC, RANSAC_THRESHOLD)
    return None if homography is None or not np.isfinite(homography).all() else np.asarray(homography, np.float64)


def _inliers(estimate: Transform | None, matched: Matched) -> int:
    if estimate is None:
        return 0
    return int(
        np.sum(
            np.linalg.norm(transform_points(estimate, matched.points0) - matched.points1, axis=1) <= RANSAC_THRESHOLD
        )
    )


def corner_errors(
    measurements: Sequence[Measurement], method: str, split: str = '', name: str = 'corner_error'
) -> npt.NDArray[np.float64]:
    """The corner errors of a method on all pairs, or on those of one split, of one of the two ways of estimation."""
    chosen = [m for m in measurements if (m.stage, m.method) == (DESCRIPTION, method) and split in ('', m.split)]
    return np.array([m.values[name] for m in chosen])


def curve(matched: Sequence[Matched]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Recall and precision of the matches of all pairs together, as the least similarity falls."""
    correct = np.concatenate([m.correct for m in matched])
    similarities = np.concatenate([m.similarities for m in matched])
    precision, recall = metrics.precision_recall(correct, similarities, int(correct.sum()))
    return recall, precision


def summarize(measurements: Sequence[Measurement]) -> list[dict[str, float | str]]:
    """The means over pairs for each stage, method and split ('all' first), with homography accuracy and its AUC."""
    splits = ['all', *sorted({m.split for m in measurements} - {''})]
    rows: list[dict[str, float | str]] = []
    groups = dict.fromkeys((m.stage, m.method) for m in measurements)
    for what, method in groups:
        for split in splits:
            chosen = [
                m.values for m in measurements if (m.stage, m.method) == (what, method) and split in ('all', m.split)
            ]
            row: dict[str, float | str] = {'stage': what, 'method': method, 'split': split, 'pairs': len(chosen)}
            for name in chosen[0] if chosen else ():
                values = np.array([v[name] for v in chosen])
                if name.startswith('corner_error'):
                    way = name.removeprefix('corner_error')
                    for threshold in THRESHOLDS:
                        row[f'accuracy{way}_{threshold:g}'] = metrics.homography_accuracy(values, threshold)
                        row[f'auc{way}_{threshold:g}'] = metrics.accuracy_auc(values, threshold)
                else:
                    defined = values[~np.isnan(values)]
                    row[name] = float(np.mean(defined)) if len(defined) else float('nan')
            if chosen:
                rows.append(row)
    return rows
