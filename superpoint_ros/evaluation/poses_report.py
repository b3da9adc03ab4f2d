"""The report of relative camera poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from superpoint_ros.evaluation import metrics, poses
from superpoint_ros.evaluation.methods import ALL_NEAREST
from superpoint_ros.evaluation.pose_pairs import PosePair
from superpoint_ros.evaluation.report import Curve, Panel, Report, Row, means, table
from superpoint_ros.learned_matching import NEAREST
from superpoint_ros.matching import MatchConfig, Matcher, match

RATIOS = (0.95, 0.9, 0.85)
"""Thresholds of the ratio test of nearest neighbors; of these and none, each method's best is reported."""
MOST_GAPS = 5
"""Greatest number of different gaps at which right matches are reported for each."""


def ratio_tests() -> dict[str, Matcher]:
    """Mutual nearest neighbors without and with each ratio test."""
    tests = {f'ratio {r:g}': partial(match, config=MatchConfig(min_similarity=-1.0, max_ratio=r)) for r in RATIOS}
    return {NEAREST: ALL_NEAREST, **tests}


def measure(
    pairs: Sequence[PosePair],
    folder: Path,
    matchers: Mapping[str, Matcher],
    report: Report,
    estimator: poses.Estimator = 'magsac',
    side: int = 640,
) -> str:
    """Estimate the pose of every pair as poses.evaluate does, and finish the report; nearest is all ratio_tests."""
    tests = ratio_tests() if NEAREST in matchers else {}
    every = {**tests, **{name: matcher for name, matcher in matchers.items() if name != NEAREST}}
    results = poses.evaluate(pairs, folder, report.methods, every, estimator, side)
    summary = means(results.rows, ('method', 'matcher'))
    best = at_best_ratio(summary, tests)
    gaps = sorted({gap for pair in pairs if (gap := pair.gap) is not None})
    gaps = gaps if len(gaps) <= MOST_GAPS else []
    columns = {
        'method': 'method',
        'matcher': 'matcher',
        'pairs': 'pairs#',
        **{f'auc_{t:g}': f'AUC {t:g}°' for t in poses.THRESHOLDS},
        'right': 'right',
        **{f'right_{gap}': f'right, gap {gap}' for gap in gaps},
        'matches': 'matches#',
        'right_matches': 'right matches#',
        **{f'right_matches_{gap}': f'right matches, gap {gap}#' for gap in gaps},
    }
    protocol = (
        f'Protocol: images of at most {side} px; {poses.SETTING.points()}; essential matrix by {estimator}, '
        f'{poses.RANSAC_THRESHOLD:g} px. AUC of the larger of rotation and translation angle, mean over {poses.ORDERS} '
        f'orders of the matches; right: share of matches within {poses.RIGHT:g} px of the true epipolar line; gap: '
        f'difference of the numbers in the names of a pair; oracle: only the matches of the first matcher that are '
        f'within {poses.KEPT:g} px of it.'
    )
    sections = ['## Each method at its best ratio test', table(columns, best), protocol]
    sections += ['## All', table(columns, summary), *results.refused]
    if best:
        report.plot('poses', 'share of pairs', _panels(results.rows, best))
    data = {'protocol': protocol, 'summary': summary, 'pairs': results.rows}
    return report.finish('Relative camera poses', sections, data, results.failed)


def at_best_ratio(summary: Sequence[Row], tests: Mapping[str, Matcher]) -> list[Row]:
    """The rows of the summary, but of those with a ratio test or none only the one with the best AUC at 10°."""
    best: dict[str, Row] = {}
    for row in summary:
        if row['matcher'] in tests:
            best[row['method']] = max(row, best.get(row['method'], row), key=lambda row: row['auc_10'])
    return [row for row in summary if row['matcher'] not in tests or row is best[row['method']]]


def _panels(rows: Sequence[Row], best: Sequence[Row]) -> list[Panel]:
    """The share of pairs over the pose error that is allowed, for each matcher."""
    curves: dict[str, dict[str, Curve]] = {}
    for method, matcher in ((row['method'], row['matcher']) for row in best):
        errors = np.array([row['errors'] for row in rows if (row['method'], row['matcher']) == (method, matcher)])
        title = 'nearest neighbors, best ratio' if matcher == NEAREST or matcher.startswith('ratio') else matcher
        curves.setdefault(title, {})[method] = metrics.accuracy_curve(errors, 20)
    return [Panel(title, 'pose error allowed (degrees)', (0, 20), drawn) for title, drawn in curves.items()]
