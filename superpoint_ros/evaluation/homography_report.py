"""The report of detectors and descriptors on pairs of images with a known homography."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from superpoint_ros.evaluation import homography, metrics, report
from superpoint_ros.evaluation.datasets import PairLoader
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.protocols import Protocol

REPEATABILITY = {'repeatability': 'repeatability', 'localization_error': 'localization error (px)'}


def measure(
    name: str, images: str, loaders: Sequence[PairLoader], methods: Sequence[Method], protocol: Protocol, output: Path
) -> str:
    """Measure every method on every pair, and write the report.

    Args:
        name: of the report's files.
        images: what the pairs are, for people.
        loaders: the pairs.
        methods: what is compared.
        protocol: how.
        output: folder for NAME.md, NAME.json and the plots.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: a pair could not be read; the report of the others has been written.
    """
    results = homography.evaluate(loaders, methods, protocol)
    summary = homography.summarize(results.measurements)
    split = {'split': 'split'} if any(row['split'] != 'all' for row in summary) else {}
    first = {'method': 'method', **split, 'pairs': 'pairs#'}
    matching = {
        **{f'accuracy_{t:g}': f'H ε={t:g}' for t in homography.THRESHOLDS},
        **{f'auc_{t:g}': f'AUC {t:g}' for t in homography.THRESHOLDS},
        **{f'accuracy_magsac_{t:g}': f'MAGSAC++ ε={t:g}' for t in homography.THRESHOLDS},
        'nn_map': 'NN mAP',
        'matching_score': 'matching score',
        **REPEATABILITY,
        'keypoints': 'points#',
        'matches': 'matches#',
        'inliers': 'RANSAC inliers#',
    }
    sections = [f'Protocol: {protocol.name} ({protocol.source}).']
    detecting = {**REPEATABILITY, 'keypoints': 'points#'}
    stages = [(homography.stage(setting), setting.pair(matching=False), detecting) for setting in protocol.detection]
    stages.append((homography.DESCRIPTION, protocol.description.pair(matching=True), matching))
    for stage, how, columns in stages:
        rows = [row for row in summary if row['stage'] == stage]
        if rows:
            sections += [f'## {stage[0].upper()}{stage[1:]}', report.table({**first, **columns}, rows)]
            sections.append(f'Protocol {protocol.name}: {how}.')
    if results.matched:
        _plot(name, results, output)
    data = {
        'protocol': dataclasses.asdict(protocol),
        'summary': summary,
        'pairs': [dataclasses.asdict(measurement) for measurement in results.measurements],
    }
    title = 'Detectors and descriptors on pairs with a known homography'
    return report.finish(output, name, title, images, methods, sections, data, results.failed)


def _plot(name: str, results: homography.Results, output: Path) -> None:
    splits = {'all': '', **{split: split for split in sorted({m.split for m in results.measurements} - {''})}}
    thresholds = np.linspace(0, 10, 201)
    accuracy: dict[str, dict[str, report.Curve]] = {
        f'Homography estimation by {way}, {title} pairs': {
            method: (thresholds, np.array([metrics.homography_accuracy(errors, t) for t in thresholds]))
            for method in results.matched
            for errors in [homography.corner_errors(results.measurements, method, split, error)]
        }
        for title, split in splits.items()
        for error, way in {'corner_error': 'RANSAC', 'corner_error_magsac': 'MAGSAC++'}.items()
    }
    horizontal = 'mean corner error allowed, ε (px)'
    report.plot(output / f'{name}_accuracy.png', accuracy, horizontal, 'share of pairs', (0, 10))
    matches = {'Matches of all pairs': {method: homography.curve(m) for method, m in results.matched.items()}}
    report.plot(output / f'{name}_precision_recall.png', matches, 'recall of the right matches', 'precision', (0, 1))
    for pair, drawn in results.examples:
        report.draw_matches(output / f'{name}_matches' / f'{pair.name}.png', pair, drawn)
