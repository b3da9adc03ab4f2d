"""Detectors and descriptors on pairs of images with a known homography."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from superpoint_ros import drawing
from superpoint_ros.evaluation import metrics
from superpoint_ros.evaluation.baselines import Extract
from superpoint_ros.evaluation.datasets import Pair, PairLoader
from superpoint_ros.evaluation.methods import Method, combined
from superpoint_ros.evaluation.protocols import Protocol, Setting
from superpoint_ros.evaluation.report import Row
from superpoint_ros.features import Features, Matches
from superpoint_ros.geometry import Transform
from superpoint_ros.learned_matching import NEAREST
from superpoint_ros.matching import Matcher, verify

THRESHOLDS = (1.0, 3.0, 5.0)
"""Corner errors in pixels up to which a homography counts as right in the paper's table 4."""
RANSAC_THRESHOLD = 3.0
"""Largest distance in pixels of a match that agrees with a homography; OpenCV's default."""
DESCRIPTION = 'description'
EXAMPLES = 4
"""How many pairs are drawn."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The matches of one method on one pair, from image 0 to image 1."""

    matches: Matches
    correct: metrics.Mask
    """(M,), by the true homography."""


@dataclass(frozen=True)
class Results:
    """All measurements."""

    rows: list[Row] = field(default_factory=list)
    """One for each stage, method and pair, with its metrics; an undefined metric is NaN."""
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    """For each method, the matches of every pair."""
    pictures: dict[str, drawing.Canvas] = field(default_factory=dict)
    """By name of a pair, a picture of the matches of every method."""
    failed: list[str] = field(default_factory=list)
    """A sentence for each pair that could not be read."""
    refused: dict[str, None] = field(default_factory=dict)
    """A sentence for each matcher that does not match the features of a method."""


def stage(setting: Setting) -> str:
    """The name of a detection stage."""
    return f'detection, NMS {setting.nms_radius} px'


def evaluate(
    loaders: Sequence[PairLoader],
    methods: Sequence[Method],
    protocol: Protocol,
    matchers: Mapping[str, Matcher] | None = None,
) -> Results:
    """Measure every method, and its features with every matcher; pairs that cannot be read are listed and skipped."""
    results = Results()
    detecting = [
        (setting, method.name, method.at(setting))
        for setting in protocol.detection
        for method in methods
        if method.detects
    ]
    describing = {method.name: method.at(protocol.description) for method in methods if method.describes}
    drawn = set(np.linspace(0, len(loaders) - 1, min(EXAMPLES, len(loaders)), dtype=int).tolist())
    for index, load in enumerate(track(loaders, 'pairs', console=Console(stderr=True))):
        try:
            pair = load()
        except (OSError, ValueError) as error:
            results.failed.append(str(error))
            continue
        about = {'pair': pair.name, 'split': pair.split}
        for setting, name, extract in detecting:
            values = detection(*_extract(pair, setting, extract), setting)
            results.rows.append({'stage': stage(setting), 'method': name, **about, **values})
        pictures = []
        for name, extract in describing.items():
            fitted, features = _extract(pair, protocol.description, extract)
            for matcher, find_matches in {NEAREST: None, **(matchers or {})}.items():
                try:
                    values, answer = description(fitted, features, protocol.description, find_matches)
                except ValueError as error:
                    results.refused[str(error)] = None
                    continue
                method = combined(name, matcher)
                results.rows.append({'stage': DESCRIPTION, 'method': method, **about, **values})
                results.answers[method].append(answer)
                if index in drawn:
                    pictures.append(_draw(fitted, features, answer, method))
        if pictures:
            results.pictures[pair.name] = np.vstack(pictures)
    return results


def _extract(pair: Pair, setting: Setting, extract: Extract) -> tuple[Pair, tuple[Features, Features]]:
    fitted = pair.fitted(setting.size)
    backward = metrics.inverse(fitted.homography)
    return fitted, (
        select(extract(fitted.image0), fitted.homography, setting),
        select(extract(fitted.image1), backward, setting),
    )


def select(features: Features, homography: Transform, setting: Setting) -> Features:
    """The features of one image that a setting measures; the homography leads to the other image."""
    if setting.in_common:
        features = features[metrics.shared(features.keypoints, homography, setting.size)]
    features = features[: setting.keypoints]
    return dataclasses.replace(features, keypoints=np.rint(features.keypoints)) if setting.whole_pixels else features


def detection(pair: Pair, features: tuple[Features, Features], setting: Setting) -> dict[str, float]:
    """Repeatability and localization error of one pair, among the points in the shared region."""
    points = [
        side.keypoints[metrics.shared(side.keypoints, homography, setting.size)]
        for side, homography in zip(features, (pair.homography, metrics.inverse(pair.homography)), strict=True)
    ]
    distances = metrics.correspondence_distances(points[0], points[1], pair.homography, setting.frame)
    return {
        'repeatability': metrics.repeatability(distances, setting.epsilon),
        'localization_error': metrics.localization_error(distances, setting.epsilon),
        'keypoints': (len(features[0]) + len(features[1])) / 2,
    }


def description(
    pair: Pair, features: tuple[Features, Features], setting: Setting, matcher: Matcher | None = None
) -> tuple[dict[str, float], Answer]:
    """The metrics of the paper's table 4 for one pair, and the matches from image 0 to image 1.

    Matching score: right matches as a share of the points in the shared region. Nearest-neighbor mAP: average precision
    of the matches by similarity. Both are means of the two directions.

    The pair has the setting's size. A matcher replaces nearest neighbors; its matches count in both directions.

    Raises:
        ValueError: the matcher does not match such features.
    """
    answers, precisions, scores = [], [], []
    if matcher:
        found = matcher(*features)
        both = found, Matches(found.indices[:, ::-1], found.similarities)
    else:
        both = metrics.nearest_neighbors(features[0].descriptors, features[1].descriptors, setting.mutual)
    homographies = pair.homography, metrics.inverse(pair.homography)
    for (here, there), matches, homography in zip((features, features[::-1]), both, homographies, strict=True):
        rows, columns = matches.indices.T
        correct = metrics.correct_matches(here.keypoints[rows], there.keypoints[columns], homography, setting.epsilon)
        visible = metrics.shared(here.keypoints, homography, setting.size)
        answers.append(Answer(matches, correct))
        precisions.append(metrics.average_precision(correct, matches.similarities))
        scores.append(np.sum(correct & visible[rows]) / max(visible.sum(), 1))
    answer = answers[0]
    points0, points1 = (side.keypoints[answer.matches.indices[:, i]] for i, side in enumerate(features))
    ransac, inliers = estimate_homography(points0, points1)
    magsac = verify(points0, points1, 'homography', RANSAC_THRESHOLD).matrix
    return {
        **_accuracy('', metrics.corner_error(ransac, pair.homography, setting.size)),
        **_accuracy('_magsac', metrics.corner_error(magsac, pair.homography, setting.size)),
        **detection(pair, features, setting),
        'nn_map': float(np.mean(precisions)),
        'matching_score': float(np.mean(scores)),
        'matches': float(len(answer.matches)),
        'inliers': float(inliers),
    }, answer


def _accuracy(estimator: str, error: float) -> dict[str, float]:
    return {
        f'corner_error{estimator}': error,
        **{f'accuracy{estimator}_{t:g}': metrics.accuracy(error, t) for t in THRESHOLDS},
        **{f'auc{estimator}_{t:g}': metrics.auc(error, t) for t in THRESHOLDS},
    }


def estimate_homography(
    points0: npt.NDArray[np.floating], points1: npt.NDArray[np.floating]
) -> tuple[Transform | None, int]:
    """The homography that cv2.findHomography finds by RANSAC with its defaults, as in the paper, and its inliers.

    A sample of four decides which matches agree, and these are fitted once. So it punishes inexact points more than
    methods that refine every good sample and choose anew (LO-RANSAC, MAGSAC++).
    """
    if len(points0) < 4:
        return None, 0
    homography, _ = cv2.findHomography(points0, points1, cv2.RANSAC, RANSAC_THRESHOLD)
    if homography is None or not np.isfinite(homography).all():
        return None, 0
    found = np.asarray(homography, np.float64)
    return found, int(metrics.correct_matches(points0, points1, found, RANSAC_THRESHOLD).sum())


def _draw(pair: Pair, features: tuple[Features, Features], answer: Answer, method: str) -> drawing.Canvas:
    points = [side.keypoints[answer.matches.indices[:, i]] for i, side in enumerate(features)]
    picture = drawing.draw_matches((pair.image0, pair.image1), points[0], points[1], answer.correct)
    text = f'{method}: {answer.correct.sum()} of {len(answer.matches)} matches right'
    return drawing.with_caption(picture, text)


def curve(answers: Sequence[Answer]) -> tuple[metrics.Values, metrics.Values]:
    """Recall and precision of the matches of all pairs together, as the smallest accepted similarity falls."""
    correct = np.concatenate([answer.correct for answer in answers])
    similarities = np.concatenate([answer.matches.similarities for answer in answers])
    return metrics.precision_recall(correct, similarities, int(correct.sum()))[::-1]


def by_split(rows: Sequence[Mapping[str, object]]) -> list[Row]:
    """The rows, each once as split 'all' and once more as its own split if it has one."""
    return [{**row, 'split': split} for row in rows for split in dict.fromkeys(('all', row['split'])) if split]
