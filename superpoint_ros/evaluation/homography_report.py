"""The report of detectors and descriptors on pairs of images with a known homography."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from superpoint_ros import drawing
from superpoint_ros.evaluation import homography, metrics, report, turns
from superpoint_ros.evaluation.datasets import PairLoader
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.protocols import VIEWS, Protocol
from superpoint_ros.evaluation.report import Panel

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
    name: str,
    images: str,
    loaders: Sequence[PairLoader],
    methods: Sequence[Method],
    protocol: Protocol,
    output: Path,
    photographs: Sequence[Path] = (),
) -> str:
    """Measure every method on every pair, and on turned and shrunk photographs, and write the report.

    Args:
        name: of the report's files.
        images: what the pairs are, for people.
        loaders: the pairs.
        methods: what is compared.
        protocol: how pairs are measured.
        output: folder for NAME.md, NAME.json and the plots.
        photographs: image files to turn and shrink, if any.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: an image could not be read; the report of the others has been written.
    """
    results = homography.evaluate(loaders, methods, protocol)
    summary = report.means(homography.by_split(results.rows), ('stage', 'method', 'split'))
    split = {'split': 'split'} if any(row['split'] != 'all' for row in summary) else {}
    sections = [f'Protocol: {protocol.name} ({protocol.source}).']
    stages = [(homography.stage(setting), setting.pair(matching=False), DETECTION) for setting in protocol.detection]
    for stage, how, columns in (
        *stages,
        (homography.DESCRIPTION, protocol.description.pair(matching=True), DESCRIPTION),
    ):
        if rows := [row for row in summary if row['stage'] == stage]:
            table = report.table({'method': 'method', **split, 'pairs': 'pairs#', **columns}, rows)
            sections += [f'## {stage[0].upper()}{stage[1:]}', table, f'Protocol {protocol.name}: {how}.']
    views, unread = turns.evaluate(photographs, methods, VIEWS)
    if views:
        means = report.means(views, ('method',), 'photographs')
        sections += turns.sections(means, VIEWS)
        turns.plot(output / f'{name}_views.png', means)
    _plot(name, results, output)
    data = {'protocol': dataclasses.asdict(protocol), 'summary': summary, 'pairs': results.rows, 'views': views}
    title = 'Detectors and descriptors on pairs with a known homography'
    return report.finish(output, name, title, images, methods, sections, data, [*results.failed, *unread])


def _plot(name: str, results: homography.Results, output: Path) -> None:
    if not results.answers:
        return
    thresholds = np.linspace(0, 10, 201)
    panels = []
    described = [row for row in homography.by_split(results.rows) if row['stage'] == homography.DESCRIPTION]
    for split in dict.fromkeys(row['split'] for row in described):
        for error, estimator in {'corner_error': 'RANSAC', 'corner_error_magsac': 'MAGSAC++'}.items():
            curves: dict[str, report.Curve] = {}
            for method in results.answers:
                errors = np.array([row[error] for row in described if (row['method'], row['split']) == (method, split)])
                curves[method] = thresholds, np.array([metrics.accuracy(errors, t) for t in thresholds])
            title = f'Homography estimation by {estimator}, {split} pairs'
            panels.append(Panel(title, 'mean corner error allowed, ε (px)', (0, 10), curves))
    report.plot(output / f'{name}_accuracy.png', 'share of pairs', panels)
    curves = {method: homography.curve(answers) for method, answers in results.answers.items()}
    panel = Panel('Matches of all pairs', 'recall of the right matches', (0, 1), curves)
    report.plot(output / f'{name}_precision_recall.png', 'precision', [panel])
    for pair, picture in results.pictures.items():
        drawing.write(output / f'{name}_matches' / f'{pair}.png', picture)
