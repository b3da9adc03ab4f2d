"""Corner detection on Synthetic Shapes, where every corner is known: the paper's appendix B and table 5."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation import metrics, report
from superpoint_ros.evaluation.baselines import Image
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.noise import EVERYTHING, photometric
from superpoint_ros.evaluation.protocols import SYNTHETIC, Setting
from superpoint_ros.features import Floats
from superpoint_ros.training.synthetic_shapes import SHAPES, render

THRESHOLDS = (2.0, 4.0)
"""Correctness distances in pixels: the paper does not state its own; rpautrat/SuperPoint uses 4."""
VARIANTS = ('clean', 'noisy')
NOISE = 0.4
"""Strength of noise.EVERYTHING: FAST, Harris and Shi-Tomasi then lose about as much as in the paper's table 5."""


@dataclass
class Detections:
    """What one method found on all images of one shape, clean or noisy.

    Args:
        scores: of the detections.
        nearest: distance in pixels from each to the nearest true corner.
        correct: by correctness distance, whether each detection is a corner that was not found yet.
        corners: how many true corners there are.
    """

    scores: list[Floats] = field(default_factory=list)
    nearest: list[npt.NDArray[np.floating]] = field(default_factory=list)
    correct: dict[float, list[npt.NDArray[np.bool_]]] = field(default_factory=dict)
    corners: int = 0


Results = dict[tuple[str, str, str], Detections]
"""By method, variant and shape."""


def images(shape: str, index: int, seed: int, size: tuple[int, int]) -> tuple[dict[str, Image], Floats]:
    """One test image, clean and noisy (noise.EVERYTHING), and its corners; it depends on the arguments alone.

    Args:
        shape: one of synthetic_shapes.SHAPES.
        index: the number of the image.
        seed: of the whole set.
        size: (width, height).

    Returns:
        variant → (H, W) uint8, and the (N, 2) corners.
    """
    rng = np.random.default_rng([seed, zlib.crc32(shape.encode()), index])
    image, corners = render(shape, rng, size)
    return {'clean': image, 'noisy': photometric(image, rng, EVERYTHING, NOISE)}, corners


def evaluate(methods: Sequence[Method], setting: Setting, count: int, seed: int) -> Results:
    """Run every method on the same images, clean and noisy.

    Args:
        methods: the detectors.
        setting: image size and how points are taken.
        count: images of each shape.
        seed: of the images.
    """
    extractors = {method.name: method.at(setting) for method in methods}
    results: Results = {}
    jobs = [(shape, index) for shape in SHAPES for index in range(count)]
    for shape, index in track(jobs, 'images', console=Console(stderr=True)):
        variants, corners = images(shape, index, seed, setting.size)
        for variant, image in variants.items():
            for name, extract in extractors.items():
                features = extract(image)[: setting.keypoints]
                found = results.setdefault((name, variant, shape), Detections())
                found.scores.append(features.scores)
                found.nearest.append(metrics.distances(features.keypoints, corners))
                found.corners += len(corners)
                for threshold in THRESHOLDS:
                    correct = metrics.assign(features.keypoints, corners, threshold)
                    found.correct.setdefault(threshold, []).append(correct)
    return results


def merged(results: Results, method: str, variant: str) -> Detections:
    """What a method found on all the shapes together, those without corners as well."""
    whole = Detections()
    for (name, kind, _), found in results.items():
        if (name, kind) == (method, variant):
            whole.scores += found.scores
            whole.nearest += found.nearest
            whole.corners += found.corners
            for threshold, correct in found.correct.items():
                whole.correct.setdefault(threshold, []).extend(correct)
    return whole


def score(found: Detections, threshold: float) -> dict[str, float]:
    """Average precision and localization error; both NaN where there are no corners to find.

    Args:
        found: what was found.
        threshold: one of THRESHOLDS.
    """
    if not found.corners:
        return {'average_precision': float('nan'), 'localization_error': float('nan')}
    correct, scores = np.concatenate(found.correct[threshold]), np.concatenate(found.scores)
    return {
        'average_precision': metrics.average_precision(correct, scores, found.corners),
        'localization_error': metrics.localization_error(np.concatenate(found.nearest), threshold),
    }


def summarize(results: Results) -> list[dict[str, float | str]]:
    """One row for each method, variant and correctness distance.

    `mean_average_precision` and `localization_error` are means over the shapes that have corners, as in the paper;
    `pooled_average_precision` is of all images together, so that false corners on ellipses and noise count as well.
    """
    rows: list[dict[str, float | str]] = []
    for method, variant in dict.fromkeys((name, kind) for name, kind, _ in results):
        for threshold in THRESHOLDS:
            by_shape = {
                shape: score(found, threshold)
                for (name, kind, shape), found in results.items()
                if (name, kind) == (method, variant) and found.corners
            }
            errors = [values['localization_error'] for values in by_shape.values()]
            defined = [error for error in errors if np.isfinite(error)]
            rows.append(
                {
                    'method': method,
                    'variant': variant,
                    'epsilon': threshold,
                    'mean_average_precision': float(np.mean([v['average_precision'] for v in by_shape.values()])),
                    'pooled_average_precision': score(merged(results, method, variant), threshold)['average_precision'],
                    'localization_error': float(np.mean(defined)) if defined else float('nan'),
                }
            )
    return rows


def by_shape(results: Results) -> list[dict[str, float | str]]:
    """Average precision at the first of THRESHOLDS: one row for each method and variant, one column for each shape."""
    rows: dict[tuple[str, str], dict[str, float | str]] = {}
    for (method, variant, shape), found in results.items():
        row = rows.setdefault((method, variant), {'method': method, 'variant': variant})
        if found.corners:
            row[shape] = score(found, THRESHOLDS[0])['average_precision']
    return list(rows.values())


def curve(found: Detections) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Recall and precision at the first of THRESHOLDS, as the least score falls."""
    correct, scores = np.concatenate(found.correct[THRESHOLDS[0]]), np.concatenate(found.scores)
    precision, recall = metrics.precision_recall(correct, scores, found.corners)
    return recall, precision


def measure(methods: Sequence[Method], count: int, seed: int, output: Path) -> str:
    """Measure detectors on Synthetic Shapes, and write the report.

    Args:
        methods: the detectors.
        count: images of each shape.
        seed: of the images.
        output: folder for shapes.md, shapes.json and the plot.

    Returns:
        The report in Markdown.
    """
    results = evaluate(methods, SYNTHETIC, count, seed)
    summary, shapes = summarize(results), by_shape(results)
    columns = {
        'method': 'method',
        'variant': 'images',
        'epsilon': 'ε (px)#',
        'mean_average_precision': 'mAP',
        'localization_error': 'localization error (px)',
        'pooled_average_precision': 'pooled AP',
    }
    means = (
        'mAP and localization error are means over the shapes that have corners; pooled AP is of all images together, '
        'those of ellipses and noise, which have none, included.'
    )
    protocol = (
        f'Protocol: images {SYNTHETIC.size[0]}×{SYNTHETIC.size[1]}; {SYNTHETIC.points()}; FAST at its default '
        f'threshold, Harris and Shi-Tomasi down to {SYNTHETIC.quality:.0%} of the strongest response.'
    )
    sections = [
        report.table(columns, summary),
        means,
        protocol,
        f'Average precision by shape, ε = {THRESHOLDS[0]:g} px:',
        report.table({name: 'images' if name == 'variant' else name for name in shapes[0]}, shapes),
    ]
    curves = {
        f'Synthetic Shapes, {variant}, ε = {THRESHOLDS[0]:g} px': {
            method.name: curve(merged(results, method.name, variant)) for method in methods
        }
        for variant in VARIANTS
    }
    report.plot(output / 'shapes_precision_recall.png', curves, 'recall', 'precision', (0, 1))
    data = {'protocol': dataclasses.asdict(SYNTHETIC), 'summary': summary, 'by_shape': shapes}
    title, images = 'Corner detection on Synthetic Shapes', f'{count} of each of {len(SHAPES)} shapes, seed {seed}'
    return report.finish(output, 'shapes', title, f'Synthetic Shapes, {images}', methods, sections, data)
