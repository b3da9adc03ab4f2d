"""The picture that the demo leaves: what was found in the last image, and the ways that its points have come."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.demo.monitor import Frame

Canvas = npt.NDArray[np.uint8]

FRACTION = 4
"""Bits of sub-pixel precision that OpenCV's drawing takes."""

GOOD, BAD = (110, 220, 90), (60, 60, 240)
BAR = 34

TAIL = 12
"""Frames that a tail is long."""


def compose(frames: Sequence[Frame], caption: str) -> Canvas:
    """Draw the frame in which most points have been followed: at the left keypoints, at the right tracks with tails.

    Args:
        frames: one after the other.
        caption: line of text below.

    Returns:
        (H, W, 3) BGR.

    Raises:
        ValueError: of no frame have image, features and tracks arrived.
    """
    complete = [f for f in frames if f.image is not None and f.features is not None and f.tracks is not None]
    if not complete:
        raise ValueError('of no frame have image, features and tracks all arrived')
    best = max(complete, key=_followed)
    end = next(i for i, frame in enumerate(frames) if frame is best) + 1
    left, right = _canvas(best), _canvas(best)
    draw_keypoints(left, best)
    draw_tails(right, frames[max(0, end - TAIL) : end])
    return _with_caption(np.hstack([left, np.full((len(left), 4, 3), 255, np.uint8), right]), caption)


def draw_keypoints(canvas: Canvas, frame: Frame) -> None:
    """A dot for each keypoint, from violet (weak) to yellow (strong) by rank."""
    if frame.features is None:
        return
    ranks = np.linspace(255, 40, len(frame.features)).astype(np.uint8)
    colors = cv2.applyColorMap(ranks, cv2.COLORMAP_PLASMA).reshape(-1, 3).tolist()
    for point, color in reversed(list(zip(_fixed(frame.features.keypoints), colors, strict=True))):
        cv2.circle(canvas, point, 3 << FRACTION, (0, 0, 0), -1, cv2.LINE_AA, FRACTION)
        cv2.circle(canvas, point, 36, color, -1, cv2.LINE_AA, FRACTION)


def draw_tails(canvas: Canvas, frames: Sequence[Frame]) -> None:
    """Where the points of the last frame's tracks have been; a point is red if its last match was wrong."""
    newest = frames[-1].tracks
    if newest is None:
        return
    tails: dict[int, list[tuple[float, float]]] = {
        int(i): [] for i, age in zip(newest['id'], newest['age'], strict=True) if age > 1
    }
    for frame in frames:
        if frame.tracks is not None:
            for track in frame.tracks:
                if int(track['id']) in tails:
                    tails[int(track['id'])].append((track['x'], track['y']))
    wrong = _wrong_points(frames[-1])
    for tail in tails.values():
        color = BAD if (float(tail[-1][0]), float(tail[-1][1])) in wrong else GOOD
        points = np.asarray(_fixed(np.asarray(tail, np.float32)), np.int32)
        cv2.polylines(canvas, [points], False, color, 1, cv2.LINE_AA, FRACTION)
        cv2.circle(canvas, points[-1].tolist(), 36, color, -1, cv2.LINE_AA, FRACTION)


def _followed(frame: Frame) -> int:
    return 0 if frame.tracks is None else int((frame.tracks['age'] >= TAIL // 2).sum())


def _wrong_points(frame: Frame) -> set[tuple[float, float]]:
    if frame.matches is None or frame.right is None:
        return set()
    wrong = frame.matches[~frame.right]
    return set(zip(wrong['x1'].tolist(), wrong['y1'].tolist(), strict=True))


def _canvas(frame: Frame) -> Canvas:
    assert frame.image is not None
    grey = frame.image if frame.image.dtype == np.uint8 else cv2.convertScaleAbs(frame.image, alpha=1 / 257)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def _fixed(points: npt.NDArray[np.floating]) -> list[list[int]]:
    return np.rint(points * (1 << FRACTION)).astype(int).tolist()


def _with_caption(canvas: Canvas, caption: str) -> Canvas:
    bar = np.full((BAR, canvas.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, caption, (12, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([canvas, bar])
