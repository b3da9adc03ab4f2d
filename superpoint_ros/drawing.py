"""Pictures of keypoints and matches, for people."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Features, Matches
from superpoint_ros.files import written_whole

Canvas = npt.NDArray[np.uint8]

FRACTION = 4
"""Bits of sub-pixel precision that OpenCV's drawing takes."""

LINES = 120
"""At most so many matches get a line, spread evenly; more would hide the images."""

RIGHT, WRONG = (90, 200, 60), (60, 60, 230)
"""BGR of a match that agrees with the geometry, and of one that does not."""


def draw_keypoints(image: npt.NDArray[np.uint8], features: Features) -> Canvas:
    """A copy of an image with a ring at each keypoint: the best are yellow, the weakest violet.

    Args:
        image: (H, W) gray or (H, W, 3) BGR.
        features: of the image.

    Returns:
        (H, W, 3) BGR.
    """
    canvas = _as_color(image)
    # By rank and not by score: a few keypoints are far better than all the rest, which would all look alike.
    palette = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_PLASMA).reshape(256, 3)
    colors = palette[np.linspace(255, 0, len(features)).astype(int)].tolist()
    radius = max(2, round(max(features.image_size) / 250))
    for point, color in list(zip(_fixed(features.keypoints), colors, strict=True))[::-1]:
        cv2.circle(canvas, point, radius << FRACTION, color, 1, cv2.LINE_AA, FRACTION)
    return canvas


def draw_matches(
    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    features: tuple[Features, Features],
    matches: Matches,
    right: npt.NDArray[np.bool_],
) -> Canvas:
    """Two images side by side, with the matched keypoints, and lines from some of the first to their second ones.

    Args:
        images: (H, W) gray or (H, W, 3) BGR.
        features: of the two.
        matches: between them.
        right: (M,), which of them are drawn green; the others are red, and lie below.

    Returns:
        (max H, W0 + W1, 3) BGR.
    """
    canvases = [_as_color(image) for image in images]
    height, shift = max(len(canvas) for canvas in canvases), canvases[0].shape[1]
    canvas = np.hstack([np.pad(c, ((0, height - len(c)), (0, 0), (0, 0))) for c in canvases])
    starts = _fixed(features[0].keypoints[matches.indices[:, 0]])
    ends = _fixed(features[1].keypoints[matches.indices[:, 1]] + np.array([shift, 0], np.float32))
    order = np.argsort(right, kind='stable')
    for row in order:
        for point in (starts[row], ends[row]):
            cv2.circle(canvas, point, 2 << FRACTION, RIGHT if right[row] else WRONG, -1, cv2.LINE_AA, FRACTION)
    for row in order[:: max(1, -(-len(order) // LINES))]:
        cv2.line(canvas, starts[row], ends[row], RIGHT if right[row] else WRONG, 1, cv2.LINE_AA, FRACTION)
    return np.asarray(canvas, np.uint8)


def draw_motion(image: npt.NDArray[np.uint8], features: tuple[Features, Features], matches: Matches) -> Canvas:
    """An image with a dot at each matched keypoint, and a line to where it was in an earlier image of the same camera.

    Args:
        image: the later image, (H, W) gray or (H, W, 3) BGR.
        features: of the earlier image and of this one.
        matches: between them; the more similar, the greener.

    Returns:
        (H, W, 3) BGR.
    """
    canvas = _as_color(image)
    starts = _fixed(features[0].keypoints[matches.indices[:, 0]])
    ends = _fixed(features[1].keypoints[matches.indices[:, 1]])
    share = np.clip(2 * matches.similarities - 1, 0, 1)[:, None]
    colors = (share * np.array(RIGHT) + (1 - share) * np.array(WRONG)).tolist()
    for start, end, color in zip(starts, ends, colors, strict=True):
        cv2.line(canvas, start, end, color, 1, cv2.LINE_AA, FRACTION)
        cv2.circle(canvas, end, 2 << FRACTION, color, -1, cv2.LINE_AA, FRACTION)
    return canvas


def _as_color(image: npt.NDArray[np.uint8]) -> Canvas:
    color = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image[..., :3].copy()
    return np.asarray(color, np.uint8)


def _fixed(points: npt.NDArray[np.float32]) -> list[tuple[int, int]]:
    """Points (N, 2) in OpenCV's fixed-point pixels."""
    return [(x, y) for x, y in np.rint(points * 2**FRACTION).astype(int).tolist()]


def write(path: Path | str, picture: npt.NDArray[np.uint8]) -> None:
    """Write a picture; the suffix of the path decides the format.

    Raises:
        OSError: the picture cannot be written.
    """
    with written_whole(path) as partial:
        encoded, data = cv2.imencode(partial.suffix, picture)
        assert encoded
        partial.write_bytes(data.tobytes())
