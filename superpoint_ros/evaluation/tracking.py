"""Tracks of our matcher beside OpenCV's pyramidal Lucas–Kanade, on the same keypoints of the same frames.

Both track the keypoints of every few frames for some frames. Where the homographies between the frames are known, a
point is right if it is near its true position; elsewhere, if it agrees with the fundamental matrix that most points of
the same method agree on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation.baselines import Extract
from superpoint_ros.evaluation.datasets import fit
from superpoint_ros.evaluation.metrics import shared
from superpoint_ros.evaluation.protocols import PROTOCOLS
from superpoint_ros.evaluation.report import Curve, Panel, Report, Row, table
from superpoint_ros.features import Features, Image
from superpoint_ros.geometry import Transform, crop_transform, transform_points
from superpoint_ros.matching import MatchConfig, verify
from superpoint_ros.tracking import Tracker, TrackerConfig

EPSILON = 3.0
"""Largest distance of a right point from its true position, in pixels."""
EPIPOLAR = 2.0
"""Largest distance of a right point from its epipolar line, where no true position is known, in pixels."""
HORIZON = 10
"""Number of frames for which points are tracked."""
STEP = 5
"""The keypoints of every STEP-th frame are tracked."""
ROUND_TRIP = 1.0
"""Lucas–Kanade drops a point that, tracked back, ends farther than this from where it started, in pixels."""
NOISE = 4.0
"""Standard deviation of the noise in the rendered frames, in gray levels."""
SIMILARITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Values of min_similarity that are measured."""

COLUMNS = {
    'variant': 'frames',
    'method': 'keypoints of, tracked by',
    'points': 'points#',
    'length': 'track length (frames)',
    'right': 'right',
    'right_length': 'right length (frames)',
    'recall': 'right, of visible',
}

Found = npt.NDArray[np.float32]
"""(N, T, 2) float32, the positions of N points in the next T frames; NaN where a point was not found."""


class Clip(NamedTuple):
    """Frames of a camera, of one size."""

    frames: Sequence[Image]
    homographies: Sequence[Transform] | None = None
    """From pixels of any one plane to each frame's pixels; None if unknown."""


def moving_camera(photograph: Image, rng: np.random.Generator, frames: int, rate: float, size: tuple[int, int]) -> Clip:
    """Render a camera that moves in front of a photograph: it rolls, approaches, shifts and tilts.

    Rotation goes up to ±10°, scale to ±15 %, shift to ±12 % of width and height, in sines of 2 to 4 s; exposure varies
    by ±15 %, and every frame has its own noise. Beyond the photograph the camera sees its mirror image. Frames have
    this (width, height), and come at a rate in Hz.
    """
    plane, _ = fit(photograph, size)
    width, height = size
    centered = crop_transform((width - 1) / 2, (height - 1) / 2)
    phases, periods = rng.uniform(0, 2 * np.pi, 7), rate * rng.uniform(2, 4, 7)
    images, homographies = [], []
    for frame in range(frames):
        angle, zoom, right, down, tilt_x, tilt_y, light = np.sin(2 * np.pi * frame / periods + phases)
        turn, scale = np.deg2rad(10 * angle), 1.15**zoom
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        moved = np.array([[cos, -sin, 0.12 * width * right], [sin, cos, 0.12 * height * down], [0, 0, 1]])
        tilted = np.array([[1, 0, 0], [0, 1, 0], [0.15 * tilt_x / width, 0.15 * tilt_y / height, 1]])
        homography = np.linalg.inv(centered) @ tilted @ moved @ centered
        view = cv2.warpPerspective(plane, homography, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        seen = view * (1 + 0.15 * light) + NOISE * rng.standard_normal((height, width), np.float32)
        images.append(np.clip(np.rint(seen), 0, 255).astype(np.uint8))
        homographies.append(homography)
    return Clip(images, homographies)


def track_descriptors(features: Sequence[Features], starts: Sequence[int], tracker: Tracker) -> list[Found]:
    """Track the keypoints of the frames `starts` with our tracker, which runs over all frames once.

    Returns:
        For each start, the positions of its keypoints in the next frames.
    """
    tracks = [tracker.update(frame) for frame in features]
    every = []
    for start in starts:
        later = tracks[start + 1 : start + 1 + HORIZON]
        found = np.full((len(features[start]), len(later), 2), np.nan, np.float32)
        for column, seen in enumerate(later):
            _, before, now = np.intersect1d(tracks[start].ids, seen.ids, assume_unique=True, return_indices=True)
            found[before, column] = seen.keypoints[now]
        every.append(found)
    return every


def track_flow(frames: Sequence[Image], features: Sequence[Features], starts: Sequence[int]) -> list[Found]:
    """Track the same keypoints with OpenCV's pyramidal Lucas–Kanade and its defaults, checked by tracking back."""
    every = []
    for start in starts:
        later = frames[start + 1 : start + 1 + HORIZON]
        found = np.full((len(features[start]), len(later), 2), np.nan, np.float32)
        points, alive = features[start].keypoints, np.arange(len(features[start]))
        for column, (before, now) in enumerate(zip(frames[start:], later, strict=False)):
            if not len(alive):
                break
            moved, forth = _flow(before, now, points)
            returned, back = _flow(now, before, moved)
            kept = forth & back & shared(moved, np.eye(3), now.shape[::-1])
            kept &= np.linalg.norm(returned - points, axis=1) <= ROUND_TRIP
            points, alive = moved[kept], alive[kept]
            found[alive, column] = points
        every.append(found)
    return every


def _flow(before: Image, now: Image, points: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    moved, status, _ = cv2.calcOpticalFlowPyrLK(before, now, points[:, None], np.empty_like(points[:, None]))
    return np.asarray(moved)[:, 0], np.asarray(status)[:, 0] > 0


def score(clip: Clip, start: int, keypoints: npt.NDArray[np.float32], found: Found) -> dict[str, float]:
    """Count the keypoints (N, 2) of a start frame that were found in the next frames, and those that are right.

    Returns:
        points; found and right: number of frames, summed over the points; visible: the same for those inside the image
        by the true homography (NaN if it is unknown).
    """
    seen = np.isfinite(found[..., 0])
    right = np.zeros(seen.shape, bool)
    visible = 0.0 if clip.homographies else float('nan')
    for column in range(found.shape[1]):
        here = seen[:, column]
        if clip.homographies:
            motion = clip.homographies[start + 1 + column] @ np.linalg.inv(clip.homographies[start])
            truth = transform_points(motion, keypoints.astype(np.float64))
            visible += float(shared(truth, np.eye(3), clip.frames[start].shape[::-1]).sum())
            right[here, column] = np.linalg.norm(found[here, column] - truth[here], axis=1) <= EPSILON
        else:
            right[here, column] = verify(keypoints[here], found[here, column], 'fundamental', EPIPOLAR).inliers
    return {
        'points': float(len(keypoints)),
        'found': float(seen.sum()),
        'right': float(right.sum()),
        'visible': visible,
    }


def compare(
    clips: Sequence[Clip], extract: Extract, trackers: Sequence[Callable[[], Tracker]]
) -> list[dict[str, float]]:
    """Track the keypoints of clips, of at least two frames each.

    Returns:
        The summary of Lucas–Kanade, then of each of our trackers.
    """
    counts: list[list[dict[str, float]]] = [[] for _ in range(1 + len(trackers))]
    for clip in track(clips, 'clips', console=Console(stderr=True)):
        features = [extract(frame) for frame in clip.frames]
        starts = range(0, max(1, len(clip.frames) - HORIZON), STEP)
        tracked = [track_flow(clip.frames, features, starts)]
        tracked += [track_descriptors(features, starts, tracker()) for tracker in trackers]
        for each, found in zip(counts, tracked, strict=True):
            each += [score(clip, s, features[s].keypoints, f) for s, f in zip(starts, found, strict=True)]
    return [summarize(each) for each in counts]


def summarize(counts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over all tracked points.

    Returns:
        points: of a start; length: number of the HORIZON frames in which a point was found, and right_length in which
        it is right; right: share of right ones among those found; recall: among those visible.
    """
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    return {
        'points': total['points'] / len(counts),
        'length': total['found'] / max(total['points'], 1),
        'right': total['right'] / max(total['found'], 1),
        'right_length': total['right'] / max(total['points'], 1),
        'recall': total['right'] / total['visible'] if total['visible'] else float('nan'),
    }


def measure(
    clips: Mapping[str, Sequence[Clip]],
    match_config: MatchConfig,
    tracker_config: TrackerConfig,
    report: Report,
    failed: Sequence[str] = (),
) -> str:
    """Track the keypoints of models through clips, which are named by what they show, and finish the report.

    SIMILARITIES are measured besides the configured min_similarity.

    Raises:
        ValueError: a clip has fewer than two frames, or frames of several sizes. Also what Report.finish raises.
    """
    for name, group in clips.items():
        if any(len(clip.frames) < 2 or len({frame.shape for frame in clip.frames}) > 1 for clip in group):
            raise ValueError(f'{name}: expected at least 2 frames, all of one size')
    setting = PROTOCOLS['paper'].description
    similarities = sorted({*SIMILARITIES, match_config.min_similarity})
    configs = [replace(match_config, min_similarity=similarity) for similarity in similarities]
    trackers = [partial(Tracker, tracker_config, config) for config in configs]
    rows: list[Row] = []
    curves: dict[str, dict[str, Curve]] = {name: {} for name in clips}
    for (name, group), model in itertools.product(clips.items(), report.methods):
        flow, *ours = compare(group, model.at(setting), trackers)
        labels = [f'{model.name}, Lucas–Kanade', *(f'{model.name}, similarity ≥ {s:g}' for s in similarities)]
        rows += [{'variant': name, 'method': t, **r} for t, r in zip(labels, (flow, *ours), strict=True)]
        for tracker, results in ((model.name, ours), (f'{model.name}, Lucas–Kanade', [flow] * len(ours))):
            for what, key, most in (('found', 'right', 1), (f'{HORIZON} frames', 'right_length', HORIZON)):
                shares = np.array([result[key] for result in results]) / most
                curves[name][f'{tracker}: right, of {what}'] = np.array(similarities), shares
    limits = similarities[0], similarities[-1]
    report.plot('tracking', 'share', [Panel(name, 'min_similarity', limits, drawn) for name, drawn in curves.items()])
    protocol = (
        f'Protocol: {setting.points()}; the points of every {STEP}th frame are tracked for {HORIZON} frames; right is '
        f'within {EPSILON:g} px of the truth, in real frames within {EPIPOLAR:g} px of the fundamental matrix that '
        f"most agree on. {match_config}. {tracker_config}. Lucas–Kanade with OpenCV's defaults; a point that, tracked "
        f'back, ends more than {ROUND_TRIP:g} px from its start is dropped.'
    )
    data = {'protocol': protocol, 'summary': rows}
    return report.finish('Tracks', [table(COLUMNS, rows), protocol], data, failed)
