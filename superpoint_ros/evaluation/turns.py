"""Matches between a photograph and turned or shrunk views of it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from superpoint_ros.evaluation.datasets import read_images, shrink
from superpoint_ros.evaluation.homography import select
from superpoint_ros.evaluation.methods import ALL_NEAREST, Method, combined
from superpoint_ros.evaluation.metrics import correct_matches, inverse
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.evaluation.report import Curve, Panel, Row, means, table
from superpoint_ros.extractor import SMALLEST
from superpoint_ros.features import Features, Image
from superpoint_ros.geometry import Transform, crop_transform
from superpoint_ros.matching import Matcher

TURNS = (0.0, 15.0, 30.0, 45.0, 60.0, 90.0, 135.0, 180.0)
"""Counterclockwise, in degrees."""
SCALES = (0.75, 0.6, 0.5, 0.4)
LABELS = (*(f'{angle:g}°' for angle in TURNS), *(f'×{scale:g}' for scale in SCALES))
SIDE = 640
"""Longest side of the photographs, in pixels; larger ones are shrunk."""
COUNT = 16
"""Number of photographs that give steady figures."""


def evaluate(
    paths: Sequence[Path], methods: Sequence[Method], setting: Setting, matchers: Mapping[str, Matcher]
) -> tuple[list[Row], list[str]]:
    """Match photographs with their views.

    Photographs keep their size up to SIDE pixels. A matcher that does not match the features of a method is left out.

    Returns:
        One row for each method, matcher and photograph, with the share of right matches in each view under its label;
        and a sentence for each file that cannot be read.
    """
    images, failed = read_images(paths)
    shrunk = [shrink(image, SIDE)[0] for image in images]
    photographs = [image for image in shrunk if int(min(image.shape) * min(SCALES)) >= SMALLEST]
    if small := len(shrunk) - len(photographs):
        failed.append(f'photographs too small to be shrunk to {min(SCALES):g} of their size: {small}')
    # Images of one size in a row: a network is compiled for each size.
    jobs = sorted(
        itertools.product(range(len(photographs)), range(len(LABELS))),
        key=lambda job: (photographs[job[0]].shape, job[1]),
    )
    rows = []
    for method in methods:
        extract, seen = method.at(setting), {}
        for number, index in track(jobs, method.name, console=Console(stderr=True)):
            photograph = photographs[number]
            image, transform = view(photograph, index)
            within = dataclasses.replace(setting, size=photograph.shape[::-1])
            seen[number, index] = select(extract(image), inverse(transform), within), transform
        for number, (name, matcher) in itertools.product(range(len(photographs)), matchers.items()):
            original, others = seen[number, 0][0], [seen[number, index] for index in range(len(LABELS))]
            try:
                shares = [right_share(original, *other, setting.epsilon, matcher) for other in others]
            except ValueError:
                continue
            rows.append({'method': combined(method.name, name), **dict(zip(LABELS, shares, strict=True))})
    return rows, failed


def right_share(
    features0: Features, features1: Features, transform: Transform, epsilon: float, matcher: Matcher = ALL_NEAREST
) -> float:
    """Right matches as a share of the points of the image that has fewer.

    A match from the photograph to the view is right if the transform puts it within epsilon, in pixels of the view.
    """
    rows = matcher(features0, features1).indices
    right = correct_matches(features0.keypoints[rows[:, 0]], features1.keypoints[rows[:, 1]], transform, epsilon)
    return float(right.sum()) / max(min(len(features0), len(features1)), 1)


def view(image: Image, index: int) -> tuple[Image, Transform]:
    """The view of a photograph that LABELS[index] names, and the transform of points to it; the first is itself."""
    if index < len(TURNS):
        return turn(image, TURNS[index])
    return shrink(image, max(image.shape) * SCALES[index - len(TURNS)])


def turn(image: Image, angle: float) -> tuple[Image, Transform]:
    """Turn an image about its center, counterclockwise by degrees.

    Returns:
        The view, which holds the whole image and its mirror image beyond the edges, and the (3, 3) transform of points.
    """
    height, width = image.shape
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    # Rounded first: cos 90° is not exactly 0.
    extent = np.round([width * abs(cos) + height * abs(sin), width * abs(sin) + height * abs(cos)], 6)
    size = int(np.ceil(extent[0])), int(np.ceil(extent[1]))
    rotation = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    to_origin = crop_transform((width - 1) / 2, (height - 1) / 2)
    transform = crop_transform((1 - size[0]) / 2, (1 - size[1]) / 2) @ rotation @ to_origin
    view = cv2.warpPerspective(image, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(view, np.uint8), transform


def sections(rows: Sequence[Row], setting: Setting) -> list[str]:
    """The sections of a report: a table of the mean shares, and how they were measured."""
    protocol = (
        f'Share of the points that are matched right, within {setting.epsilon:g} px, between a photograph and the same '
        f'one turned or shrunk: images of at most {SIDE} px; {setting.points()}; mutual nearest neighbors, or the '
        'named matcher. A turned view holds the whole photograph and, beyond its edges, its mirror image, whose points '
        'do not count.'
    )
    columns = {'method': 'method', 'photographs': 'photographs#', **{label: label for label in LABELS}}
    return ['## Turns and scales', table(columns, means(rows, ('method',), 'photographs')), protocol]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The share of right matches over the turn and over the scale."""
    summary = means(rows, ('method',))

    def curves(labels: Mapping[float, str]) -> dict[str, Curve]:
        return {row['method']: (np.array(list(labels)), np.array([row[x] for x in labels.values()])) for row in summary}

    angles, scales = dict(zip(TURNS, LABELS, strict=False)), dict(zip(SCALES, LABELS[len(TURNS) :], strict=True))
    return [
        Panel('Turned photographs', 'turn (degrees)', (0, 180), curves(angles)),
        Panel('Shrunk photographs', 'scale', (1, SCALES[-1]), curves({1.0: LABELS[0], **scales})),
    ]
