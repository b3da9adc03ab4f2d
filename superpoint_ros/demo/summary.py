"""The figures of the demo, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from superpoint_ros.demo.monitor import TOLERANCE, Counts, Frame
from superpoint_ros.matching import verify

EPIPOLAR_TOLERANCE = 2.0
"""Largest distance in pixels of a right match from its epipolar line, if the motion is unknown."""


def summarize(counts: Counts, facts: Mapping[str, str], frames: Sequence[Frame]) -> dict[str, Any]:
    """The figures, ready for JSON; None for those that do not exist.

    The facts are what the detector reports on diagnostics, the frames the last ones, verified.
    """
    latencies = 1000 * np.array(counts.latencies)
    right = [] if counts.judged else [frame.right for frame in frames if frame.right is not None and len(frame.right)]
    return {
        **{name: facts.get(name) for name in ('model', 'back end', 'device', 'precision')},
        'camera_rate_hz': round(counts.rate(counts.images), 1),
        'rate_hz': round(counts.rate(counts.frames), 1),
        'frames': len(counts.frames),
        'latency_median_ms': round(float(np.median(latencies)), 1) if latencies.size else None,
        'latency_p95_ms': round(float(np.percentile(latencies, 95)), 1) if latencies.size else None,
        'keypoints_median': int(np.median(counts.keypoints)),
        'matches_median': int(np.median(counts.matches)),
        'matches_judged': counts.judged,
        'matches_right': round(counts.right / counts.judged, 4) if counts.judged else None,
        'matches_agreeing': round(float(np.concatenate(right).mean()), 4) if right else None,
        'longest_track_frames': max(counts.ages, default=0),
    }


def text(result: Mapping[str, Any]) -> str:
    """The figures in lines."""
    median, most = result['latency_median_ms'], result['latency_p95_ms']
    latency = 'unknown: stamps of another clock' if median is None else f'{median} ms median, 95 % within {most} ms'
    return '\n'.join(
        [
            f'model      {result["model"]}, {result["back end"]} {result["precision"]} on {result["device"]}',
            f'frames     {result["rate_hz"]} a second, of {result["camera_rate_hz"]} from the camera',
            f'latency    {latency}',
            f'keypoints  {result["keypoints_median"]} median',
            f'matches    {result["matches_median"]} median{quality(result)}',
            f'tracks     up to {result["longest_track_frames"]} frames long',
        ]
    )


def caption(result: Mapping[str, Any]) -> str:
    """The figures in one line."""
    latency = '' if result['latency_median_ms'] is None else f'{result["latency_median_ms"]} ms | '
    return (
        f'{result["rate_hz"]} frames/s | {latency}{result["keypoints_median"]} keypoints | '
        f'{result["matches_median"]} matches{quality(result)}'
    )


def quality(result: Mapping[str, Any]) -> str:
    """The quality of the matches, which text and caption append to their number."""
    if result['matches_right'] is not None:
        return f', {result["matches_right"]:.1%} right to {TOLERANCE:.0f} px'
    if result['matches_agreeing'] is not None:
        return f', {result["matches_agreeing"]:.1%} agree with one geometry to {EPIPOLAR_TOLERANCE:.0f} px'
    return ''


def verified(frame: Frame) -> Frame:
    """The frame with `right` filled: without known motion, by the fundamental matrix that most matches agree on."""
    if frame.right is not None or frame.matches is None:
        return frame
    points = [np.stack([frame.matches[f'x{i}'], frame.matches[f'y{i}']], axis=1) for i in (0, 1)]
    return replace(frame, right=verify(points[0], points[1], 'fundamental', EPIPOLAR_TOLERANCE).inliers)
