"""Corner detection on Synthetic Shapes, where every corner is known: the paper's appendix B and table 5."""

from __future__ import annotations

import dataclasses
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation import metrics
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.noise import EVERYTHING, photometric
from superpoint_ros.evaluation.protocols import SYNTHETIC, Setting
from superpoint_ros.evaluation.report import Panel, Report, Row, means, table
from superpoint_ros.features import Floats, Image
from superpoint_ros.training.synthetic_shapes import SHAPES, render

THRESHOLDS = (2.0, 4.0)
"""Correctness distances in pixels: the paper does not state its own; rpautrat/SuperPoint uses 4."""
VARIANTS = ('clean', 'noisy')
NOISE = 0.4
"""Strength of noise.EVERYTHING with which FAST, Harris and Shi-Tomasi lose about as much as in the paper's table 5."""

COLUMNS = {
    'method': 'method',
    'variant': 'images',
    'epsilon': 'ε (px)#',
    'mean_average_precision': 'mAP',
    'localization_error': 'localization error (px)',
    'pooled_average_precision': 'pooled AP',
}


class Detections(NamedTuple):
    """The N detections of one method in one image."""

    scores: Floats
    nearest: metrics.Values
    """(N,) distances in pixels to the nearest true corner."""
    correct: dict[float, metrics.Mask]
    """For each of THRESHOLDS, (N,): whether the detection is a corner that was not detected yet."""
    corners: int
    """Number of true corners."""


Results = dict[tuple[str, str, str], list[Detections]]
"""By method, variant and shape, the detections in each image."""


def images(shape: str, index: int, seed: int, size: tuple[int, int]) -> tuple[dict[str, Image], Floats]:
    """A test image by variant, clean and noisy (noise.EVERYTHING), and its corners (N, 2).

    It depends only on its shape and number, the seed of the set, and the (width, height).
    """
    rng = np.random.default_rng([seed, zlib.crc32(shape.encode()), index])
    image, corners = render(shape, rng, size)
    return {'clean': image, 'noisy': photometric(image, rng, EVERYTHING, NOISE)}, corners


def evaluate(methods: Sequence[Method], setting: Setting, count: int, seed: int) -> Results:
    """Run every method on the same images, `count` of each shape, clean and noisy."""
    extractors = {method.name: method.at(setting) for method in methods}
    results: Results = defaultdict(list)
    jobs = [(shape, index) for shape in SHAPES for index in range(count)]
    for shape, index in track(jobs, 'images', console=Console(stderr=True)):
        variants, corners = images(shape, index, seed, setting.size)
        for variant, image in variants.items():
            for name, extract in extractors.items():
                features = extract(image)[: setting.keypoints]
                nearest = metrics.distances(features.keypoints, corners)
                correct = {t: metrics.assign(features.keypoints, corners, t) for t in THRESHOLDS}
                results[name, variant, shape].append(Detections(features.scores, nearest, correct, len(corners)))
    return results


def pooled(results: Results, method: str, variant: str) -> list[Detections]:
    """The detections of a method in the images of all shapes."""
    return [image for key, found in results.items() if key[:2] == (method, variant) for image in found]


def ranked(found: Sequence[Detections], threshold: float) -> tuple[metrics.Mask, Floats, int]:
    """Whether each detection in some images is correct, its score, and the number of corners."""
    correct = np.concatenate([image.correct[threshold] for image in found])
    return correct, np.concatenate([image.scores for image in found]), sum(image.corners for image in found)


def summarize(results: Results) -> list[Row]:
    """One row for each method, variant and correctness distance.

    `mean_average_precision` and `localization_error` are means over the shapes that have corners, as in the paper;
    `pooled_average_precision` is of all images together, so that false corners on ellipses and noise count, too.
    """
    rows = []
    for (method, variant, _), found in results.items():
        if any(image.corners for image in found):
            nearest = np.concatenate([image.nearest for image in found])
            rows += [
                {
                    'method': method,
                    'variant': variant,
                    'epsilon': threshold,
                    'mean_average_precision': metrics.average_precision(*ranked(found, threshold)),
                    'localization_error': metrics.localization_error(nearest, threshold),
                }
                for threshold in THRESHOLDS
            ]
    summary = means(rows, ('method', 'variant', 'epsilon'), 'shapes')
    for row in summary:
        everything = pooled(results, row['method'], row['variant'])
        row['pooled_average_precision'] = metrics.average_precision(*ranked(everything, row['epsilon']))
    return summary


def by_shape(results: Results) -> list[Row]:
    """Average precision at the first of THRESHOLDS: one row for each method and variant, one column for each shape."""
    rows: dict[tuple[str, str], Row] = {}
    for (method, variant, shape), found in results.items():
        row = rows.setdefault((method, variant), {'method': method, 'variant': variant})
        if any(image.corners for image in found):
            row[shape] = metrics.average_precision(*ranked(found, THRESHOLDS[0]))
    return list(rows.values())


def measure(count: int, seed: int, report: Report) -> str:
    """Evaluate `count` images of each shape, and finish the report."""
    results = evaluate(report.methods, SYNTHETIC, count, seed)
    summary, shapes = summarize(results), by_shape(results)
    epsilon = THRESHOLDS[0]
    explanation = (
        'mAP and localization error are means over the shapes that have corners; pooled AP is of all images together, '
        'including those of ellipses and noise, which have none.'
    )
    protocol = (
        f'Protocol: images {SYNTHETIC.size[0]}×{SYNTHETIC.size[1]}; {SYNTHETIC.points()}; FAST at its default '
        f'threshold, Harris and Shi-Tomasi down to {SYNTHETIC.quality:.0%} of the strongest response.'
    )
    sections = [table(COLUMNS, summary), explanation, protocol]
    sections.append(f'Average precision by shape, ε = {epsilon:g} px:')
    sections.append(table({name: 'images' if name == 'variant' else name for name in shapes[0]}, shapes))
    panels = []
    for variant in VARIANTS:
        curves = {
            method.name: metrics.precision_recall(*ranked(pooled(results, method.name, variant), epsilon))[::-1]
            for method in report.methods
        }
        panels.append(Panel(f'Synthetic Shapes, {variant}, ε = {epsilon:g} px', 'recall', (0, 1), curves))
    report.plot('shapes_precision_recall', 'precision', panels)
    data = {'protocol': dataclasses.asdict(SYNTHETIC), 'summary': summary, 'by_shape': shapes}
    return report.finish('Corner detection on Synthetic Shapes', sections, data)
