"""The steps of `superpoint evaluate`: each measures, and writes NAME.md, NAME.json and plots to a folder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from superpoint_ros.evaluation import datasets, homography, metrics, report, sequence, shapes, tracking
from superpoint_ros.evaluation.datasets import PairLoader
from superpoint_ros.evaluation.methods import Method, methods
from superpoint_ros.evaluation.protocols import PROTOCOLS, SYNTHETIC, Protocol
from superpoint_ros.matching import MatchConfig
from superpoint_ros.tracking import TrackerConfig
from superpoint_ros.training.synthetic_shapes import SHAPES

Preset = Literal['paper', 'rpautrat']
OUTPUT = Path('evaluation')
SIMILARITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds at which tracking is measured."""
_MEANS = (
    'mAP and localization error are means over the shapes that have corners; pooled AP is of all images together, '
    'those of ellipses and noise, which have none, included.'
)
REPEATABILITY = {'repeatability': 'repeatability', 'localization_error': 'localization error (px)'}


def evaluate_homography(
    folder: Path, output: Path = OUTPUT, preset: Preset = 'paper', count: int = 0, **compared: Any
) -> str:
    """Measure detectors and descriptors on a folder in HPatches layout.

    Args:
        folder: scenes with 1.ppm … 6.ppm and H_1_2 …, or img1.ppm … and H1to2p …; any image format.
        output: folder for homography.md, homography.json and the plots.
        preset: whose protocol; docs/evaluation.md says how they differ.
        count: measure only so many pairs, spread evenly; 0 for all.
        compared: what is compared, see methods.methods.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: the folder has no scenes, or some pair could not be read (the others are measured all the same).
    """
    loaders = datasets.spread(datasets.hpatches(folder), count)
    images = f'{folder}, HPatches layout, {len(loaders)} pairs'
    return _measure_pairs('homography', images, loaders, methods(**compared), PROTOCOLS[preset], output)


def evaluate_pairs(
    folder: Path, output: Path = OUTPUT, preset: Preset = 'paper', count: int = 0, seed: int = 0, **compared: Any
) -> str:
    """Measure detectors and descriptors on pairs made from photographs by random homographies and photometric changes.

    Args:
        folder: photographs.
        output: folder for pairs.md, pairs.json and the plots.
        preset: whose protocol; docs/evaluation.md says how they differ.
        count: measure only so many photographs, spread evenly; 0 for all.
        seed: of the homographies and changes; the same seed and file names give the same pairs.
        compared: what is compared, see methods.methods.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: the folder has no images, or some could not be read (the others are measured all the same).
    """
    protocol = PROTOCOLS[preset]
    loaders = datasets.spread(datasets.random_pairs(folder, seed, protocol.description.size), count)
    images = f'{folder}, {len(loaders)} random pairs, seed {seed}'
    return _measure_pairs('pairs', images, loaders, methods(**compared), protocol, output)


def evaluate_shapes(output: Path = OUTPUT, count: int = 1000, seed: int = 0, **compared: Any) -> str:
    """Measure corner detection on Synthetic Shapes, with and without noise (the paper's table 5).

    Args:
        output: folder for shapes.md, shapes.json and the plot.
        count: images of each shape; the paper has 1000.
        seed: of the images.
        compared: what is compared, see methods.methods.

    Returns:
        The report in Markdown.
    """
    detectors = [method for method in methods(**compared) if method.detects]
    results = shapes.evaluate(detectors, SYNTHETIC, count, seed)
    summary, by_shape = shapes.summarize(results), shapes.by_shape(results)
    images = f'Synthetic Shapes, {count} of each of {len(SHAPES)} shapes, seed {seed}'
    columns = {
        'method': 'method',
        'variant': 'images',
        'epsilon': 'ε (px)#',
        'mean_average_precision': 'mAP',
        'localization_error': 'localization error (px)',
        'pooled_average_precision': 'pooled AP',
    }
    protocol = (
        f'Protocol: images {SYNTHETIC.size[0]}×{SYNTHETIC.size[1]}; {SYNTHETIC.points()}; FAST at its default '
        f'threshold, Harris and Shi-Tomasi down to {SYNTHETIC.quality:.0%} of the strongest response.'
    )
    sections = [
        '# Corner detection on Synthetic Shapes',
        _preamble(images, detectors),
        report.table(columns, summary),
        _MEANS,
        protocol,
        f'Average precision by shape, ε = {shapes.THRESHOLDS[0]:g} px:',
        report.table({name: 'images' if name == 'variant' else name for name in by_shape[0]}, by_shape),
    ]
    curves = {
        f'Synthetic Shapes, {variant}, ε = {shapes.THRESHOLDS[0]:g} px': {
            method.name: shapes.curve(shapes.merged(results, method.name, variant)) for method in detectors
        }
        for variant in shapes.VARIANTS
    }
    report.plot(output / 'shapes_precision_recall.png', curves, 'recall', 'precision', (0, 1))
    data = {
        'images': images,
        'methods': _about(detectors),
        'protocol': dataclasses.asdict(SYNTHETIC),
        'summary': summary,
        'by_shape': by_shape,
    }
    return _finish('shapes', sections, data, output)


def evaluate_sequence(folder: Path, output: Path = OUTPUT, **compared: Any) -> str:
    """Match the consecutive frames of a camera, and count the matches that agree with one fundamental matrix.

    Args:
        folder: frames, in the order of their names.
        output: folder for sequence.md and sequence.json.
        compared: what is compared, see methods.methods.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: the folder has no images, or some could not be read (the others are measured all the same).
    """
    frames, setting = datasets.images_in(folder), PROTOCOLS['paper'].description
    describing = [method for method in methods(**compared) if method.describes]
    results = sequence.evaluate(frames, describing, setting)
    images = f'{folder}, {len(frames)} consecutive frames'
    columns = {
        'method': 'method',
        'pairs': 'pairs#',
        'keypoints': 'keypoints#',
        'matches': 'mutual matches#',
        'inliers': 'inliers#',
        'inlier_ratio': 'inlier share',
        'fewest_inliers': 'fewest inliers#',
    }
    summary = sequence.summarize(results)
    protocol = (
        f'Protocol: images at their own size; {setting.points()}; mutual nearest neighbors; inliers of one '
        f'fundamental matrix (MAGSAC++, {sequence.THRESHOLD:g} px).'
    )
    sections = [
        '# Matches of consecutive frames',
        _preamble(images, describing),
        report.table(columns, summary),
        protocol,
    ]
    data = {
        'images': images,
        'methods': _about(describing),
        'protocol': dataclasses.asdict(setting),
        'summary': summary,
        'pairs': results.pairs,
    }
    return _finish('sequence', sections, data, output, results.failed)


def evaluate_tracking(
    photographs: Path,
    frames: Path | None = None,
    output: Path = OUTPUT,
    count: int = 6,
    seed: int = 0,
    matching: MatchConfig = MatchConfig(),
    tracker: TrackerConfig = TrackerConfig(),
    **compared: Any,
) -> str:
    """Follow keypoints through moving pictures with our tracker and with OpenCV's Lucas–Kanade.

    Args:
        photographs: a camera is moved before each of them, so that it is known where every point goes.
        frames: frames of a real camera too, in the order of their names.
        output: folder for tracking.md, tracking.json and the plot.
        count: use only so many photographs, spread evenly; 0 for all.
        seed: of the camera's motion; the same seed and photographs give the same frames.
        matching: what makes two features a match; thresholds beside its min_similarity are measured too.
        tracker: how points are followed.
        compared: the models, see methods.methods; Lucas–Kanade follows the keypoints of each.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: a folder has no images, or some could not be read (the others are measured all the same).
    """
    setting = PROTOCOLS['paper'].description
    models = [method for method in methods(baselines=False, **compared) if method.describes]
    pictures, failed = datasets.read_images(datasets.spread(datasets.images_in(photographs), count))
    clips = {
        f'moved before photographs, {rate} Hz': [
            tracking.moving_camera(picture, np.random.default_rng([seed, number]), 26, rate, setting.size)
            for number, picture in enumerate(pictures)
        ]
        for rate in (30, 6)
    }
    if frames:
        real, unread = datasets.read_images(datasets.images_in(frames))
        failed += unread
        clips[frames.name] = [tracking.Clip(real)]
    similarities = sorted({*SIMILARITIES, matching.min_similarity})
    rows: list[dict[str, float | str]] = []
    panels: dict[str, dict[str, report.Curve]] = {name: {} for name in clips}
    for (name, group), model in itertools.product(clips.items(), models):
        flow, *ours = tracking.compare(group, model.at(setting), similarities, matching, tracker)
        followers = [f'{model.name}, Lucas–Kanade', *(f'{model.name}, similarity ≥ {s:g}' for s in similarities)]
        rows += [{'variant': name, 'method': f, **r} for f, r in zip(followers, (flow, *ours), strict=True)]
        for key, what in (('right', 'right, of those found'), ('right_length', f'right, of {tracking.HORIZON} frames')):
            share = 1 if key == 'right' else tracking.HORIZON
            panels[name][f'{model.name}: {what}'] = (np.array(similarities), np.array([r[key] / share for r in ours]))
            panels[name][f'Lucas–Kanade: {what}'] = (np.array(similarities), np.full(len(ours), flow[key] / share))
    columns = {
        'variant': 'frames',
        'method': 'keypoints of, followed by',
        'points': 'points#',
        'length': 'track length (frames)',
        'right': 'right',
        'right_length': 'right length (frames)',
        'recall': 'right, of visible',
    }
    images = f'{photographs}, {len(pictures)} photographs, seed {seed}' + (f'; {frames}' if frames else '')
    protocol = (
        f'Protocol: {setting.points()}; the points of every {tracking.STEP}th frame are followed for '
        f'{tracking.HORIZON} frames; right is within {tracking.EPSILON:g} px of the truth, in real frames within '
        f'{tracking.EPIPOLAR:g} px of the fundamental matrix that most agree on. {matching}. {tracker}. Lucas–Kanade '
        f"with OpenCV's defaults; what does not come back to within {tracking.FORTH_AND_BACK:g} px is lost."
    )
    sections = ['# Tracks', _preamble(images, models), report.table(columns, rows), protocol]
    report.plot(output / 'tracking.png', panels, 'min_similarity', 'share', (similarities[0], similarities[-1]))
    data = {'images': images, 'methods': _about(models), 'protocol': protocol, 'summary': rows}
    return _finish('tracking', sections, data, output, failed)


COMMANDS: dict[str, Callable[..., str]] = {
    'homography': evaluate_homography,
    'pairs': evaluate_pairs,
    'shapes': evaluate_shapes,
    'sequence': evaluate_sequence,
    'tracking': evaluate_tracking,
}


def _measure_pairs(
    name: str,
    images: str,
    loaders: Sequence[PairLoader],
    compared: Sequence[Method],
    protocol: Protocol,
    output: Path,
) -> str:
    results = homography.evaluate(loaders, compared, protocol)
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
    title = '# Detectors and descriptors on pairs with a known homography'
    sections = [title, _preamble(images, compared), f'Protocol: {protocol.name} ({protocol.source}).']
    detecting = {**REPEATABILITY, 'keypoints': 'points#'}
    stages = [(homography.stage(setting), setting.pair(matching=False), detecting) for setting in protocol.detection]
    stages.append((homography.DESCRIPTION, protocol.description.pair(matching=True), matching))
    for stage, how, columns in stages:
        rows = [row for row in summary if row['stage'] == stage]
        if rows:
            sections += [f'## {stage[0].upper()}{stage[1:]}', report.table({**first, **columns}, rows)]
            sections.append(f'Protocol {protocol.name}: {how}.')
    if results.matched:
        _plot_pairs(name, results, output)
    data = {
        'images': images,
        'methods': _about(compared),
        'protocol': dataclasses.asdict(protocol),
        'summary': summary,
        'pairs': [dataclasses.asdict(measurement) for measurement in results.measurements],
    }
    return _finish(name, sections, data, output, results.failed)


def _plot_pairs(name: str, results: homography.Results, output: Path) -> None:
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


def _about(compared: Sequence[Method]) -> dict[str, str]:
    return {method.name: method.about for method in compared}


def _preamble(images: str, compared: Sequence[Method]) -> str:
    by_about: dict[str, list[str]] = {}
    for method in compared:
        by_about.setdefault(method.about, []).append(method.name)
    return '\n'.join([f'- Images: {images}', *(f'- {", ".join(names)}: {about}' for about, names in by_about.items())])


def _finish(name: str, sections: Sequence[str], data: dict[str, Any], output: Path, failed: Sequence[str] = ()) -> str:
    if failed:
        sections = [*sections, 'Could not be read, and in none of the figures:', '\n'.join(f'- {f}' for f in failed)]
    markdown = '\n\n'.join(sections) + '\n'
    report.write(output, name, markdown, {**data, 'failed': list(failed)})
    if failed:
        where = output / f'{name}.md'
        raise ValueError(f'{len(failed)} could not be read, the others are in {where}:\n' + '\n'.join(failed))
    return markdown
