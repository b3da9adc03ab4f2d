"""Draws keypoints and matches on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Features, Floats, Matches
from superpoint_ros.files import written_whole

Canvas = npt.NDArray[np.uint8]
"""(H, W, 3), BGR."""
Color = Sequence[float]

RIGHT, WRONG = (90, 220, 70), (60, 60, 240)
"""BGR of points and matches that agree with the geometry, and of those that do not."""

LINES = 120
"""Maximum number of matches with a line, spread evenly; more would hide the images."""

BAR = 46
"""Height of a caption in pixels."""

_SHIFT = 4
"""Fractional bits of OpenCV's drawing coordinates."""


def draw_keypoints(image: npt.NDArray[np.uint8], features: Features) -> Canvas:
    """Draw a dot at each keypoint on a copy of the image, (H, W) gray or BGR: yellow for the strongest, to pink."""
    canvas = to_color(image)
    # By rank and not by score: a few keypoints score far higher than the rest, which would all look alike.
    # The lower part of the color map is too dark on a dark background.
    ranks = np.linspace(255, 110, len(features)).astype(np.uint8)
    colors = cv2.applyColorMap(ranks, cv2.COLORMAP_PLASMA).reshape(-1, 3).tolist() if len(ranks) else []
    radius = max(2.0, max(canvas.shape) / 320)
    for point, color in list(zip(features.keypoints.tolist(), colors, strict=True))[::-1]:
        draw_dot(canvas, point, color, radius)
    return canvas


def draw_matches(
    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    points0: Floats,
    points1: Floats,
    right: npt.NDArray[np.bool_],
) -> Canvas:
    """Draw two images side by side with their matched points, and lines between some of them.

    Args:
        images: (H, W) gray or (H, W, 3) BGR.
        points0: (M, 2) pixels of the first image.
        points1: (M, 2) pixels of the second image.
        right: (M,), which matches are green; the others are red, and drawn first.

    Returns:
        (max H, W0 + W1, 3) BGR.
    """
    canvases = [to_color(image) for image in images]
    height, shift = max(len(canvas) for canvas in canvases), canvases[0].shape[1]
    canvas = np.hstack([np.pad(c, ((0, height - len(c)), (0, 0), (0, 0))) for c in canvases])
    starts, ends = points0.tolist(), (points1 + np.array([shift, 0], np.float32)).tolist()
    order = np.argsort(right, kind='stable')
    for row in order:
        for point in (starts[row], ends[row]):
            draw_dot(canvas, point, RIGHT if right[row] else WRONG, 2)
    for row in order[:: max(1, -(-len(order) // LINES))]:
        draw_path(canvas, [starts[row], ends[row]], RIGHT if right[row] else WRONG)
    return np.asarray(canvas, np.uint8)


def draw_motion(image: npt.NDArray[np.uint8], features: tuple[Features, Features], matches: Matches) -> Canvas:
    """Draw a dot at each matched keypoint, and a line to its position in an earlier image of the same camera.

    Draws on a copy of the later image, (H, W) gray or BGR. `features` are those of the earlier and of the later image.
    The more similar two features, the greener their line.
    """
    canvas = to_color(image)
    starts, ends = (side.keypoints[matches.indices[:, i]].tolist() for i, side in enumerate(features))
    share = np.clip(2 * matches.similarities - 1, 0, 1)[:, None]
    colors = (share * np.array(RIGHT) + (1 - share) * np.array(WRONG)).tolist()
    for start, end, color in zip(starts, ends, colors, strict=True):
        draw_path(canvas, [start, end], color)
        draw_dot(canvas, end, color, 2)
    return canvas


def draw_dot(canvas: Canvas, point: Sequence[float], color: Color, radius: float) -> None:
    """Draw a dot with a dark rim at (x, y)."""
    x, y = (round(value * 2**_SHIFT) for value in point)
    for r, fill in ((radius + 1, (0, 0, 0)), (radius, color)):
        cv2.circle(canvas, (x, y), round(r * 2**_SHIFT), fill, -1, cv2.LINE_AA, _SHIFT)


def draw_path(canvas: Canvas, points: Sequence[Sequence[float]], color: Color) -> None:
    """Draw lines from each point (x, y) to the next."""
    fixed = np.rint(np.asarray(points) * 2**_SHIFT).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, color, 1, cv2.LINE_AA, _SHIFT)


def with_caption(canvas: Canvas, text: str) -> Canvas:
    """Append a dark bar with a line of text below a picture."""
    bar = np.full((BAR, canvas.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, text, (16, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([canvas, bar])


def to_color(image: npt.NDArray[np.uint8]) -> Canvas:
    """A BGR copy of a gray (H, W) or BGR (H, W, 3) image."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy(), np.uint8)


def check_name(path: Path) -> None:
    """Check that a color picture can be written to a file of this name.

    Raises:
        ValueError: the suffix is not that of a picture.
    """
    try:
        # OpenCV crashes on a suffix that is not UTF-8.
        good = path.suffix.isascii() and cv2.imencode(path.suffix, np.zeros((1, 1, 3), np.uint8))[0]
    except cv2.error:
        good = False
    if not good:
        raise ValueError(f'{path}: expected a picture to write, such as matches.png')


def write(path: Path | str, picture: npt.NDArray[np.uint8]) -> None:
    """Write a picture whole or not at all; the suffix of the path decides the format."""
    with written_whole(path) as partial:
        encoded, data = cv2.imencode(partial.suffix, picture)
        assert encoded, f'{path}: no encoder'
        partial.write_bytes(data.tobytes())
