"""Matches between consecutive frames of a moving camera: how many there are, and how many agree with one geometry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from superpoint_ros import image_files
from superpoint_ros.evaluation import metrics, report
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.protocols import PROTOCOLS, Setting
from superpoint_ros.features import Features
from superpoint_ros.matching import verify

THRESHOLD = 2.0
"""How far from its epipolar line an inlier may be, in pixels."""


@dataclass(frozen=True)
class Results:
    """What was found between consecutive frames.

    Args:
        pairs: one row for each method and pair of frames: keypoints, matches, inliers, inlier_ratio.
        failed: a sentence for each frame that could not be read.
    """

    pairs: list[dict[str, float | str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def evaluate(frames: Sequence[Path], methods: Sequence[Method], setting: Setting) -> Results:
    """Match consecutive frames by mutual nearest neighbors and fit one fundamental matrix to the matches.

    There is no ground truth: an inlier only agrees with the epipolar geometry that most matches agree on
    (matching.verify, MAGSAC++), and about one wrong match in a hundred does so by chance.

    Args:
        frames: image files in their order; after one that cannot be read, the next pair starts anew.
        methods: what is compared.
        setting: how many points; images are not resized.
    """
    results = Results()
    extractors = {method.name: method.at(setting) for method in methods if method.describes}
    previous: dict[str, Features] = {}
    for path in track(frames, 'frames', console=Console(stderr=True)):
        try:
            image = image_files.read(path)
        except ValueError as error:
            results.failed.append(str(error))
            previous = {}
            continue
        for name, extract in extractors.items():
            features = extract(image)[: setting.keypoints]
            if name in previous:
                row = match_frames(previous[name], features)
                results.pairs.append({'method': name, 'frame': path.name, **row})
            previous[name] = features
    return results


def match_frames(features0: Features, features1: Features) -> dict[str, float]:
    """Mutual nearest neighbors of two frames, and those of them that agree with one fundamental matrix."""
    nearest0, _, nearest1, _ = metrics.nearest_neighbors(features0.descriptors, features1.descriptors)
    rows = np.flatnonzero(nearest1[nearest0] == np.arange(len(nearest0)))
    verified = verify(features0.keypoints[rows], features1.keypoints[nearest0[rows]], 'fundamental', THRESHOLD)
    inliers = float(verified.inliers.sum())
    return {
        'keypoints': (len(features0) + len(features1)) / 2,
        'matches': float(len(rows)),
        'inliers': inliers,
        'inlier_ratio': inliers / max(len(rows), 1),
    }


def summarize(results: Results) -> list[dict[str, float | str]]:
    """The means over all pairs of frames, one row for each method; `fewest_inliers` is the worst pair's."""
    rows: list[dict[str, float | str]] = []
    for method in dict.fromkeys(str(row['method']) for row in results.pairs):
        chosen = [row for row in results.pairs if row['method'] == method]
        means = {name: float(np.mean([float(row[name]) for row in chosen])) for name in
                 ('keypoints', 'matches', 'inliers', 'inlier_ratio')}  # fmt: skip
        fewest = min(float(row['inliers']) for row in chosen)
        rows.append({'method': method, 'pairs': len(chosen), **means, 'fewest_inliers': fewest})
    return rows


def measure(frames: Sequence[Path], images: str, methods: Sequence[Method], output: Path) -> str:
    """Match the consecutive frames of a camera, and write the report.

    Args:
        frames: image files in their order.
        images: what they are, for people.
        methods: what is compared.
        output: folder for sequence.md and sequence.json.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: a frame could not be read; the report of the others has been written.
    """
    setting = PROTOCOLS['paper'].description
    results = evaluate(frames, methods, setting)
    columns = {
        'method': 'method',
        'pairs': 'pairs#',
        'keypoints': 'keypoints#',
        'matches': 'mutual matches#',
        'inliers': 'inliers#',
        'inlier_ratio': 'inlier share',
        'fewest_inliers': 'fewest inliers#',
    }
    summary = summarize(results)
    protocol = (
        f'Protocol: images at their own size; {setting.points()}; mutual nearest neighbors; inliers of one '
        f'fundamental matrix (MAGSAC++, {THRESHOLD:g} px).'
    )
    sections = [report.table(columns, summary), protocol]
    data = {'protocol': dataclasses.asdict(setting), 'summary': summary, 'pairs': results.pairs}
    title = 'Matches of consecutive frames'
    return report.finish(output, 'sequence', title, images, methods, sections, data, results.failed)
