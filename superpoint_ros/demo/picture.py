"""The picture that the demo leaves: what was found in the last image, and the ways that its points have come."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.demo.monitor import Frame
from superpoint_ros.geometry import resize_transform, transform_points

Canvas = npt.NDArray[np.uint8]

FRACTION = 4
"""Bits of sub-pixel precision that OpenCV's drawing takes."""

PANEL = 960
"""Width of each of the two halves in pixels."""

GOOD, BAD = (110, 220, 90), (60, 60, 240)
BAR = 46

TAIL = 70
"""How long a tail is at most, in pixels of the picture; the last step is always shown."""

FOLLOWED = 6
"""Frames from which on a point counts as followed."""


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
    complete = [frame for frame in frames if frame.complete]
    if not complete:
        raise ValueError('of no frame have image, features and tracks all arrived')
    best = max(reversed(complete), key=_followed)
    end = next(i for i, frame in enumerate(frames) if frame is best) + 1
    left, right = _canvas(best), _canvas(best)
    draw_keypoints(left, best)
    draw_tails(right, frames[:end])
    return _with_caption(np.hstack([left, np.full((len(left), 4, 3), 255, np.uint8), right]), caption)


def draw_keypoints(canvas: Canvas, frame: Frame) -> None:
    """A dot for each keypoint, from violet (weak) to yellow (strong) by rank."""
    if frame.features is None:
        return
    ranks = np.linspace(255, 40, len(frame.features)).astype(np.uint8)
    colors = cv2.applyColorMap(ranks, cv2.COLORMAP_PLASMA).reshape(-1, 3).tolist()
    points = _on_canvas(canvas, frame, frame.features.keypoints)
    for point, color in reversed(list(zip(points, colors, strict=True))):
        _dot(canvas, point, color)


def draw_tails(canvas: Canvas, frames: Sequence[Frame]) -> None:
    """Where the points of the last frame's tracks have been; a point is red if its last match was wrong."""
    newest = frames[-1].tracks
    if newest is None:
        return
    tails: dict[int, list[tuple[float, float]]] = {int(i): [] for i in newest['id'][newest['age'] > 1]}
    for frame in frames:
        for track in () if frame.tracks is None else frame.tracks:
            if int(track['id']) in tails:
                tails[int(track['id'])].append((float(track['x']), float(track['y'])))
    wrong = _wrong_points(frames[-1])
    for tail in tails.values():
        color = BAD if tail[-1] in wrong else GOOD
        points = _on_canvas(canvas, frames[-1], np.asarray(tail, np.float32))
        cv2.polylines(canvas, [_shortened(np.asarray(points, np.int32))], False, color, 1, cv2.LINE_AA, FRACTION)
        _dot(canvas, points[-1], color)


def _shortened(points: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)[::-1]
    shown = int((np.cumsum(steps) <= TAIL << FRACTION).sum())
    return points[-1 - max(shown, 1) :]


def _followed(frame: Frame) -> int:
    return 0 if frame.tracks is None else int((frame.tracks['age'] >= FOLLOWED).sum())


def _wrong_points(frame: Frame) -> set[tuple[float, float]]:
    if frame.matches is None or frame.right is None:
        return set()
    wrong = frame.matches[~frame.right]
    return set(zip(wrong['x1'].tolist(), wrong['y1'].tolist(), strict=True))


def _canvas(frame: Frame) -> Canvas:
    assert frame.image is not None
    gray = frame.image if frame.image.dtype == np.uint8 else cv2.convertScaleAbs(frame.image, alpha=1 / 257)
    size = (PANEL, round(PANEL * gray.shape[0] / gray.shape[1]))
    resized = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC if gray.shape[1] < PANEL else cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_GRAY2BGR), np.uint8)


def _on_canvas(canvas: Canvas, frame: Frame, points: npt.NDArray[np.floating]) -> list[list[int]]:
    """Points of a frame's image as OpenCV draws them."""
    assert frame.image is not None
    (height, width), (old_height, old_width) = canvas.shape[:2], frame.image.shape
    transform = resize_transform(width / old_width, height / old_height)
    return np.rint(transform_points(transform, points) * (1 << FRACTION)).astype(int).tolist()


def _dot(canvas: Canvas, point: Sequence[int], color: Sequence[float]) -> None:
    for radius, fill in ((4.25, (0, 0, 0)), (3.0, color)):
        cv2.circle(canvas, point, round(radius * (1 << FRACTION)), fill, -1, cv2.LINE_AA, FRACTION)


def _with_caption(canvas: Canvas, caption: str) -> Canvas:
    bar = np.full((BAR, canvas.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, caption, (16, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([canvas, bar])
