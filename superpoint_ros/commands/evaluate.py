"""`superpoint evaluate`. To add a step, write a function and list it at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from superpoint_ros import image_files
from superpoint_ros.evaluation import datasets, pose_pairs
from superpoint_ros.evaluation.methods import ModelsConfig, matchers, methods
from superpoint_ros.evaluation.protocols import PROTOCOLS
from superpoint_ros.extractor import Extractor
from superpoint_ros.learned_matching import MIN_PROBABILITY, NEAREST
from superpoint_ros.matching import MatchConfig, match
from superpoint_ros.tracking import TrackerConfig

Preset = Literal['paper', 'rpautrat']
OUTPUT = Path('evaluation')


def homography(
    folder: Path,
    output: Path = OUTPUT,
    preset: Preset = 'paper',
    count: int = 0,
    baselines: bool = True,
    models: ModelsConfig = ModelsConfig(),
) -> str:
    """Measure detectors and descriptors on a folder in HPatches layout.

    Args:
        folder: scenes with 1.ppm … 6.ppm and H_1_2 …, or img1.ppm … and H1to2p …; any image format.
        output: folder for homography.md, homography.json and the plots.
        preset: protocol to follow, see docs/evaluation.md.
        count: number of pairs to measure, evenly spaced; 0 for all.
        baselines: also compare OpenCV's methods and random points.
    """
    from superpoint_ros.evaluation import homography_report
    from superpoint_ros.evaluation.report import Report

    loaders = datasets.spread(datasets.hpatches(folder), count)
    images = f'{folder}, HPatches layout, {len(loaders)} pairs'
    report = Report('homography', images, methods(models, baselines), output)
    return homography_report.measure(loaders, PROTOCOLS[preset], report)


def pairs(
    folder: Path,
    output: Path = OUTPUT,
    preset: Preset = 'paper',
    count: int = 0,
    seed: int = 0,
    matcher: Sequence[str] = (NEAREST,),
    min_similarity: float = MIN_PROBABILITY,
    baselines: bool = True,
    models: ModelsConfig = ModelsConfig(),
) -> str:
    """Measure detectors and descriptors on random, turned and shrunk views of photographs.

    Args:
        folder: folder with photographs.
        output: folder for pairs.md, pairs.json and the plots.
        preset: protocol to follow, see docs/evaluation.md.
        count: number of photographs to measure, evenly spaced; 0 for all.
        seed: seed of the homographies and image changes; the same seed and file names give the same pairs.
        matcher: matchers to measure: nearest, learned, or names or paths of learned matchers; nearest is always
            measured.
        min_similarity: smallest probability of a match of learned matchers.
        baselines: also compare OpenCV's methods and random points.
    """
    from superpoint_ros.evaluation import homography_report, turns
    from superpoint_ros.evaluation.report import Report

    protocol = PROTOCOLS[preset]
    loaders = datasets.spread(datasets.random_pairs(folder, seed, protocol.description.size), count)
    photographs = datasets.spread(image_files.files_in(folder), turns.COUNT)
    images = f'{folder}, {len(loaders)} random pairs, seed {seed}'
    report = Report('pairs', images, methods(models, baselines), output)
    learned = matchers([name for name in matcher if name != NEAREST], models, min_similarity)
    return homography_report.measure(loaders, protocol, report, photographs, learned)


def shapes(
    output: Path = OUTPUT,
    count: int = 1000,
    seed: int = 0,
    baselines: bool = True,
    models: ModelsConfig = ModelsConfig(),
) -> str:
    """Measure corner detection on Synthetic Shapes (the paper's table 5).

    Args:
        output: folder for shapes.md, shapes.json and the plot.
        count: images of each shape; the paper has 1000.
        seed: seed of the images.
        baselines: also compare OpenCV's methods and random points.
    """
    from superpoint_ros.evaluation import shapes as feature
    from superpoint_ros.evaluation.report import Report

    if count < 1:
        raise ValueError(f'count: {count} is out of range, expected at least 1')
    images = f'Synthetic Shapes, {count} of each shape, seed {seed}'
    compared = [method for method in methods(models, baselines) if method.detects]
    return feature.measure(count, seed, Report('shapes', images, compared, output))


def sequence(folder: Path, output: Path = OUTPUT, baselines: bool = True, models: ModelsConfig = ModelsConfig()) -> str:
    """Count the matches of consecutive frames that agree on a fundamental matrix.

    Args:
        folder: frames, in the order of the numbers in their names.
        output: folder for sequence.md and sequence.json.
        baselines: also compare OpenCV's methods and random points.
    """
    from superpoint_ros.evaluation import sequence as feature
    from superpoint_ros.evaluation.report import Report

    frames = image_files.frames_in(folder)
    compared = [method for method in methods(models, baselines) if method.describes]
    return feature.measure(frames, Report('sequence', f'{folder}, {len(frames)} consecutive frames', compared, output))


def poses(
    pairs: Path,
    folder: Path,
    output: Path = OUTPUT,
    matcher: Sequence[str] = (NEAREST,),
    min_similarity: float = MIN_PROBABILITY,
    estimator: Literal['magsac', 'magsac-normalized', 'ransac-normalized'] = 'magsac',
    side: int = 640,
    baselines: bool = True,
    models: ModelsConfig = ModelsConfig(),
) -> str:
    """Measure relative camera poses of real image pairs.

    Args:
        pairs: list of pairs in SuperGlue's layout: name0 name1 rot0 rot1 K0 K1 T_0to1 on each line.
        folder: folder with the images.
        output: folder for poses.md, poses.json and the plot.
        matcher: matchers to measure: nearest, learned, or names or paths of learned matchers.
        min_similarity: smallest probability of a match of learned matchers; nearest neighbors have no limit.
        estimator: estimator in pixels as in the matcher node (magsac), or in normalized coordinates as in other
            projects.
        side: longest side in pixels to which images are shrunk.
        baselines: also compare OpenCV's methods.
    """
    from superpoint_ros.evaluation import poses_report
    from superpoint_ros.evaluation.report import Report

    listed = pose_pairs.read_pairs(pairs)
    # RootSIFT is better than SIFT on such pairs.
    compared = [method for method in methods(models, baselines) if method.describes and method.name != 'SIFT']
    report = Report('poses', f'{pairs}, {len(listed)} pairs', compared, output)
    return poses_report.measure(listed, folder, matchers(matcher, models, min_similarity), report, estimator, side)


def tracking(
    photographs: Path,
    frames: Path | None = None,
    output: Path = OUTPUT,
    count: int = 6,
    seed: int = 0,
    matching: MatchConfig = MatchConfig(),
    tracker: TrackerConfig = TrackerConfig(),
    models: ModelsConfig = ModelsConfig(),
) -> str:
    """Measure tracks of a moving camera, with Lucas–Kanade for comparison.

    Args:
        photographs: folder with photographs; a rendered camera moves in front of each.
        frames: folder with frames of a real camera, in the order of the numbers in their names.
        output: folder for tracking.md, tracking.json and the plot.
        count: number of photographs to use, evenly spaced; 0 for all.
        seed: seed of the camera's motion; the same seed and photographs give the same frames.
        matching: which features match; other values of min_similarity are also measured.
        models: which models are compared; Lucas–Kanade tracks the keypoints of each.
    """
    from superpoint_ros.evaluation import tracking as feature
    from superpoint_ros.evaluation.report import Report

    size = PROTOCOLS['paper'].description.size
    compared = [method for method in methods(models, baselines=False) if method.describes]
    pictures, failed = datasets.read_images(datasets.spread(image_files.files_in(photographs), count))
    if not pictures:
        raise ValueError('no photograph can be read:\n' + '\n'.join(failed))
    clips = {
        f'camera in front of photographs, {rate} Hz': [
            feature.moving_camera(picture, np.random.default_rng([seed, number]), 26, rate, size)
            for number, picture in enumerate(pictures)
        ]
        for rate in (30, 6)
    }
    if frames:
        real, unread = datasets.read_images(image_files.frames_in(frames))
        failed += unread
        clips[frames.name] = [feature.Clip(real)]
    images = f'{photographs}, {len(pictures)} photographs, seed {seed}' + (f'; {frames}' if frames else '')
    return feature.measure(clips, matching, tracker, Report('tracking', images, compared, output), failed)


def reconstruction(
    pairs: Path,
    folder: Path,
    output: Path = OUTPUT,
    models: ModelsConfig = ModelsConfig(),
    resize: int = 1600,
    max_keypoints: int = 3072,
    matching: MatchConfig = MatchConfig(max_ratio=0.9),
) -> str:
    """Measure reconstructions of `superpoint map`, with COLMAP's SIFT for comparison.

    Args:
        pairs: list of pairs in SuperGlue's layout: name0 name1 rot0 rot1 K0 K1 T_0to1 on each line.
        folder: folder with the images.
        output: folder for reconstruction.md and reconstruction.json.
        resize: longest side of the image for the network; smaller images are enlarged up to twice their size.
        max_keypoints: largest number of keypoints of an image.
    """
    from superpoint_ros.evaluation import reconstruction as feature

    extractors = {
        model: Extractor(model, resize=resize, max_keypoints=max_keypoints, **models.options) for model in models.models
    }
    return feature.measure(pose_pairs.read_pairs(pairs), folder, extractors, partial(match, config=matching), output)


evaluate: dict[str, Callable[..., str]] = {
    function.__name__: function for function in (homography, pairs, poses, shapes, sequence, tracking, reconstruction)
}
