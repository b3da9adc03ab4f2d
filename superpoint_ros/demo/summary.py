"""The figures of a demo, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from superpoint_ros.demo.monitor import TOLERANCE, Counts, Frame
from superpoint_ros.matching import verify

EPIPOLAR_TOLERANCE = 2.0
"""How far in pixels a match may be from its epipolar line, where the motion is not known."""


def summarize(counts: Counts, facts: Mapping[str, str], frames: Sequence[Frame]) -> dict[str, Any]:
    """The figures, ready for JSON; what there is none of is None.

    Args:
        counts: what arrived.
        facts: what the detector says of itself on /diagnostics.
        frames: of late, on which matches are verified where the motion is not known.
    """
    latencies = 1000 * np.array(counts.latencies)
    return {
        **{name: facts.get(name) for name in ('model', 'back end', 'device', 'precision')},
        'camera_rate_hz': round(counts.rate(counts.images), 1),
        'rate_hz': round(counts.rate(counts.frames), 1),
        'frames': len(counts.frames),
        'latency_median_ms': round(float(np.median(latencies)), 1),
        'latency_p95_ms': round(float(np.percentile(latencies, 95)), 1),
        'keypoints_median': int(np.median(counts.keypoints)),
        'matches_median': int(np.median(counts.matches)),
        'matches_judged': counts.judged,
        'matches_right': round(counts.right / counts.judged, 4) if counts.judged else None,
        'matches_agreeing': None if counts.judged else _agreeing(frames),
        'longest_track_frames': max(counts.ages, default=0),
    }


def text(result: Mapping[str, Any]) -> str:
    """The figures in lines."""
    return '\n'.join(
        [
            f'model      {result["model"]}, {result["back end"]} {result["precision"]} on {result["device"]}',
            f"frames     {result['rate_hz']} a second of the camera's {result['camera_rate_hz']}",
            f'latency    {result["latency_median_ms"]} ms median, {result["latency_p95_ms"]} ms at most for 95 %',
            f'keypoints  {result["keypoints_median"]} median',
            f'matches    {result["matches_median"]} median{quality(result)}',
            f'tracks     up to {result["longest_track_frames"]} frames long',
        ]
    )


def caption(result: Mapping[str, Any]) -> str:
    """The figures in one line."""
    return (
        f'{result["rate_hz"]} frames/s | {result["latency_median_ms"]} ms | {result["keypoints_median"]} keypoints | '
        f'{result["matches_median"]} matches{quality(result)}'
    )


def quality(result: Mapping[str, Any]) -> str:
    """How good the matches are, to be put behind their number."""
    if result['matches_right'] is not None:
        return f', {result["matches_right"]:.1%} right to {TOLERANCE:.0f} px'
    if result['matches_agreeing'] is not None:
        return f', {result["matches_agreeing"]:.1%} agree with one geometry to {EPIPOLAR_TOLERANCE:.0f} px'
    return ''


def _agreeing(frames: Sequence[Frame]) -> float | None:
    """The share of the matches of some frames that agree with one fundamental matrix each."""
    agreeing = total = 0
    for frame in frames:
        if frame.matches is not None and len(frame.matches):
            points = [np.stack([frame.matches[f'x{i}'], frame.matches[f'y{i}']], axis=1) for i in (0, 1)]
            agreeing += int(verify(points[0], points[1], 'fundamental', EPIPOLAR_TOLERANCE).inliers.sum())
            total += len(frame.matches)
    return round(agreeing / total, 4) if total else None
