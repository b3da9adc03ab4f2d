"""The report of detectors and descriptors on pairs of images with a known homography."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from superpoint_ros import drawing
from superpoint_ros.evaluation import homography, metrics, turns
from superpoint_ros.evaluation.datasets import PairLoader
from superpoint_ros.evaluation.methods import ALL_NEAREST
from superpoint_ros.evaluation.protocols import VIEWS, Protocol
from superpoint_ros.evaluation.report import Curve, Panel, Report, Row, means, table
from superpoint_ros.learned_matching import NEAREST
from superpoint_ros.matching import Matcher

REPEATABILITY = {'repeatability': 'repeatability', 'localization_error': 'localization error (px)'}
DETECTION = {**REPEATABILITY, 'keypoints': 'points#'}
DESCRIPTION = {
    **{f'accuracy_{t:g}': f'H ε={t:g}' for t in homography.THRESHOLDS},
    **{f'auc_{t:g}': f'AUC {t:g}' for t in homography.THRESHOLDS},
    **{f'accuracy_magsac_{t:g}': f'MAGSAC++ ε={t:g}' for t in homography.THRESHOLDS},
    'nn_map': 'NN mAP',
    'matching_score': 'matching score',
    **DETECTION,
    'matches': 'matches#',
    'inliers': 'RANSAC inliers#',
}


def measure(
    loaders: Sequence[PairLoader],
    protocol: Protocol,
    report: Report,
    photographs: Sequence[Path] = (),
    matchers: Mapping[str, Matcher] | None = None,
) -> str:
    """Measure every method on every pair and on turned and shrunk photographs, and finish the report.

    Learned matchers are measured besides nearest neighbors.
    """
    results = homography.evaluate(loaders, report.methods, protocol, matchers)
    summary = means(homography.by_split(results.rows), ('stage', 'method', 'split'))
    split = {'split': 'split'} if any(row['split'] != 'all' for row in summary) else {}
    sections = [f'Protocol: {protocol.name} ({protocol.source}).']
    stages = [(homography.stage(setting), setting.pair(matching=False), DETECTION) for setting in protocol.detection]
    for stage, how, columns in (
        *stages,
        (homography.DESCRIPTION, protocol.description.pair(matching=True), DESCRIPTION),
    ):
        if rows := [row for row in summary if row['stage'] == stage]:
            text = table({'method': 'method', **split, 'pairs': 'pairs#', **columns}, rows)
            sections += [f'## {stage[0].upper()}{stage[1:]}', text, f'Protocol {protocol.name}: {how}.']
    views: list[Row] = []
    unread: list[str] = []
    if photographs:
        describing = [method for method in report.methods if method.describes]
        views, unread = turns.evaluate(photographs, describing, VIEWS, {NEAREST: ALL_NEAREST, **(matchers or {})})
    if views:
        sections += turns.sections(views, VIEWS)
        report.plot(f'{report.name}_views', 'share of points matched right', turns.panels(views), marker='o')
    sections += results.refused
    if results.answers:
        _plot(results, report)
    data = {'protocol': dataclasses.asdict(protocol), 'summary': summary, 'pairs': results.rows, 'views': views}
    title = 'Detectors and descriptors on pairs with a known homography'
    return report.finish(title, sections, data, [*results.failed, *unread])


def _plot(results: homography.Results, report: Report) -> None:
    panels = []
    described = [row for row in homography.by_split(results.rows) if row['stage'] == homography.DESCRIPTION]
    for split in dict.fromkeys(row['split'] for row in described):
        for error, estimator in {'corner_error': 'RANSAC', 'corner_error_magsac': 'MAGSAC++'}.items():
            curves: dict[str, Curve] = {}
            for method in results.answers:
                errors = np.array([row[error] for row in described if (row['method'], row['split']) == (method, split)])
                curves[method] = metrics.accuracy_curve(errors, 10)
            title = f'Homography estimation by {estimator}, {split} pairs'
            panels.append(Panel(title, 'mean corner error allowed, ε (px)', (0, 10), curves))
    report.plot(f'{report.name}_accuracy', 'share of pairs', panels)
    curves = {method: homography.curve(answers) for method, answers in results.answers.items()}
    panel = Panel('Matches of all pairs', 'recall of the right matches', (0, 1), curves)
    report.plot(f'{report.name}_precision_recall', 'precision', [panel])
    for pair, picture in results.pictures.items():
        drawing.write(report.output / f'{report.name}_matches' / f'{pair}.png', picture)
