"""Counts matches between consecutive frames of a moving camera, and those that agree with one geometry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation.methods import ALL_NEAREST, Method
from superpoint_ros.evaluation.protocols import PROTOCOLS, Setting
from superpoint_ros.evaluation.report import Report, Row, means, table
from superpoint_ros.extractor import from_file
from superpoint_ros.features import Features, Image
from superpoint_ros.matching import verify

THRESHOLD = 2.0
"""Largest distance of an inlier from its epipolar line, in pixels."""

COLUMNS = {
    'method': 'method',
    'pairs': 'pairs#',
    'keypoints': 'keypoints#',
    'matches': 'mutual matches#',
    'inliers': 'inliers#',
    'inlier_ratio': 'inlier share',
    'fewest_inliers': 'fewest inliers#',
}


def evaluate(frames: Sequence[Path], methods: Sequence[Method], setting: Setting) -> tuple[list[Row], list[str]]:
    """Match consecutive frames by mutual nearest neighbors and fit one fundamental matrix to the matches.

    There is no ground truth: an inlier only agrees with the epipolar geometry that most matches agree on
    (matching.verify, MAGSAC++), and about one wrong match in a hundred does so by chance. Images are not resized. Two
    frames with an unreadable one between them are not matched.

    Returns:
        One row for each method and pair of frames, and a sentence for each frame that cannot be read.
    """
    rows, failed = [], []
    extractors = {method.name: method.at(setting) for method in methods}

    def extract_all(image: Image) -> dict[str, Features]:
        return {name: extract(image)[: setting.keypoints] for name, extract in extractors.items()}

    previous: dict[str, Features] = {}
    for path in track(frames, 'frames', console=Console(stderr=True)):
        try:
            _, found = from_file(path, extract_all)
        except ValueError as error:
            failed.append(str(error))
            previous = {}
            continue
        for name, features in previous.items():
            rows.append({'method': name, 'frame': path.name, **match_frames(features, found[name])})
        previous = found
    return rows, failed


def match_frames(features0: Features, features1: Features) -> dict[str, float]:
    """Mutual nearest neighbors of two frames, and those that agree with one fundamental matrix."""
    matches = ALL_NEAREST(features0, features1).indices
    points0, points1 = features0.keypoints[matches[:, 0]], features1.keypoints[matches[:, 1]]
    inliers = float(verify(points0, points1, 'fundamental', THRESHOLD).inliers.sum())
    return {
        'keypoints': (len(features0) + len(features1)) / 2,
        'matches': float(len(matches)),
        'inliers': inliers,
        'inlier_ratio': inliers / max(len(matches), 1),
    }


def summarize(rows: Sequence[Row]) -> list[Row]:
    """The means over all pairs of frames, one row for each method; `fewest_inliers` is the worst pair's."""
    summary = means(rows, ('method',))
    for mean in summary:
        mean['fewest_inliers'] = min(row['inliers'] for row in rows if row['method'] == mean['method'])
    return summary


def measure(frames: Sequence[Path], report: Report) -> str:
    """Evaluate the frames, and finish the report; raises what Report.finish raises.

    Raises:
        ValueError: there are fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError(f'{report.images}: expected at least 2 frames')
    setting = PROTOCOLS['paper'].description
    rows, failed = evaluate(frames, report.methods, setting)
    summary = summarize(rows)
    protocol = (
        f'Protocol: images at their own size; {setting.points()}; mutual nearest neighbors; inliers of one '
        f'fundamental matrix (MAGSAC++, {THRESHOLD:g} px).'
    )
    data = {'protocol': dataclasses.asdict(setting), 'summary': summary, 'pairs': rows}
    return report.finish('Matches of consecutive frames', [table(COLUMNS, summary), protocol], data, failed)
