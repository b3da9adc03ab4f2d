"""The picture of the demo: the keypoints of one image, and the tracks that lead to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.demo.monitor import Frame
from superpoint_ros.drawing import RIGHT, WRONG, Canvas, draw_dot, draw_keypoints, draw_path, to_color, with_caption
from superpoint_ros.geometry import resize_transform, transform_points
from superpoint_ros.image_files import eight_bits

PANEL = 960
"""Width of each half in pixels."""

TAIL = 70
"""Longest tail in pixels of the picture; the last step is always drawn."""

LEGEND = 'tracks with their last positions; red: the last match is wrong'

FOLLOWED = 6
"""Age in frames from which a track counts for the choice of the image."""


def best(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames up to the one with the most long tracks.

    Raises:
        ValueError: no frame has image, features and tracks.
    """
    complete = [i for i, frame in enumerate(frames) if frame.complete]
    if not complete:
        raise ValueError('no frame has image, features and tracks')
    return frames[: max(reversed(complete), key=lambda i: _followed(frames[i])) + 1]


def compose(frames: Sequence[Frame], caption: str) -> Canvas:
    """Draw the last of consecutive frames, which is complete: captioned keypoints on the left, tracks on the right."""
    last = frames[-1]
    assert last.image is not None
    assert last.features is not None
    height, width = last.image.shape
    size = (PANEL, round(PANEL * height / width))
    interpolation = cv2.INTER_CUBIC if width < PANEL else cv2.INTER_AREA
    enlarged = np.asarray(cv2.resize(eight_bits(last.image), size, interpolation=interpolation), np.uint8)
    transform = resize_transform(size[0] / width, size[1] / height)
    keypoints = transform_points(transform, last.features.keypoints)
    left = draw_keypoints(enlarged, replace(last.features, keypoints=keypoints))
    right = to_color(enlarged)
    draw_tails(right, frames, transform)
    panels = with_caption(left, caption), with_caption(right, LEGEND)
    return np.hstack([panels[0], np.full((len(panels[0]), 4, 3), 255, np.uint8), panels[1]])


def draw_tails(canvas: Canvas, frames: Sequence[Frame], transform: npt.NDArray[np.float64]) -> None:
    """Draw the past positions of the last frame's tracks on its image; red if the last match of a track is wrong.

    The transform (3, 3) leads from the pixels of the frames to those of the canvas.
    """
    newest, matches, right = frames[-1].tracks, frames[-1].matches, frames[-1].right
    if newest is None:
        return
    tails: dict[int, list[tuple[float, float]]] = {int(i): [] for i in newest['id'][newest['age'] > 1]}
    for frame in frames:
        for track in () if frame.tracks is None else frame.tracks:
            if int(track['id']) in tails:
                tails[int(track['id'])].append((float(track['x']), float(track['y'])))
    wrong: set[tuple[float, float]] = set()
    if matches is not None and right is not None:
        wrong = set(zip(matches['x1'][~right].tolist(), matches['y1'][~right].tolist(), strict=True))
    for tail in tails.values():
        color = WRONG if tail[-1] in wrong else RIGHT
        points = transform_points(transform, np.asarray(tail, np.float64))
        lengths = np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)[::-1])
        shortened = points[-1 - max(int((lengths <= TAIL).sum()), 1) :]
        draw_path(canvas, shortened.tolist(), color)
        draw_dot(canvas, points[-1].tolist(), color, 3)


def _followed(frame: Frame) -> int:
    return 0 if frame.tracks is None else int((frame.tracks['age'] >= FOLLOWED).sum())
