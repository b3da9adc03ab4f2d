"""Fits the first layer of a matcher to the features of another extractor.

The descriptors of one extractor are nearly a linear function of those of another at the same places: descriptors of
`unsuperpoint_lite` and their prediction from those of `superpoint` have a mean cosine of 0.78. So a matcher that was
trained for hours on the features of one matches those of the other after seconds; training goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from superpoint_ros import image_files
from superpoint_ros.decode import decode, sample_descriptors
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Floats
from superpoint_ros.networks.lightglue import LightGlue

COUNT = 250
"""Photographs that the layer is fitted on; more do not fit it better."""
SIZE = (480, 360)
"""Width and height to which they are resized: networks are compiled for one size."""
RIDGE = 1e-3
"""Of the mean variance of an element; without it, directions in which descriptors hardly vary get huge weights."""


class Places(NamedTuple):
    """Features of two extractors at the same N places, the keypoints of the second."""

    given: Floats
    """(N, D0) descriptors of the first extractor."""
    wanted: Floats
    """(N, D1) descriptors of the second extractor."""
    given_scores: Floats
    """Scores of the first extractor's own keypoints."""
    wanted_scores: Floats
    """(N,) scores of the second extractor."""


def describe_places(photographs: Sequence[Path], given: Extractor, wanted: Extractor) -> Places:
    """Describe the keypoints of `wanted` in some photographs with both extractors.

    Raises:
        ValueError: a photograph cannot be read.
    """
    chosen = photographs[:: -(-len(photographs) // COUNT)]
    parts = []
    for path in track(chosen, 'first layer', console=Console(stderr=True)):
        image = np.asarray(cv2.resize(image_files.read(path), SIZE, interpolation=cv2.INTER_AREA), np.uint8)
        features = wanted(image)
        (heads,) = given.runtime([image])
        descriptors = sample_descriptors(heads['descriptors'], features.keypoints)
        scores = decode(heads, SIZE, given.decode_config).scores
        parts.append(Places(descriptors, features.descriptors, scores, features.scores))
    return Places(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def fit_first_layer(matcher: LightGlue, given: LightGlue, places: Places) -> None:
    """Set the first layer of a matcher so that it makes of `wanted` about what the given one makes of `given`.

    Descriptors are mapped by ridge regression and scaled to a mean length of one. Scores are mapped to the same mean
    and standard deviation.

    Args:
        matcher: its configuration has the size of the wanted descriptors, and otherwise the shape of the given one.
        given: trained on the features of the first extractor.
        places: described by both.
    """
    wanted = places.wanted.astype(np.float64)
    covariance = wanted.T @ wanted
    ridge = RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    solution = np.linalg.solve(covariance + ridge, wanted.T @ places.given)
    solution /= np.linalg.norm(places.wanted @ solution, axis=1).mean()
    size = given.config.descriptor_size
    weight, bias = given.input.weight.detach(), given.input.bias.detach()
    columns = [weight[:, :size] @ torch.from_numpy(solution.T.astype(np.float32))]
    if given.config.use_scores:
        scale = float(places.given_scores.std() / max(places.wanted_scores.std(), 1e-6))
        shift = float(places.given_scores.mean()) - scale * float(places.wanted_scores.mean())
        columns.append(weight[:, size:] * scale)
        bias = bias + weight[:, size] * shift
    with torch.no_grad():
        matcher.input.weight.copy_(torch.cat(columns, dim=1))
        matcher.input.bias.copy_(bias)
