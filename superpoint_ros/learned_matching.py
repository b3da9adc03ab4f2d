"""Matches features with a learned matcher, LightGlue (arXiv 2306.13643), on any back end."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from superpoint_ros import models, runtimes
from superpoint_ros.features import Features, Floats, Matches
from superpoint_ros.matching import MatchConfig, Matcher, check_comparable, match
from superpoint_ros.runtimes import Runtime, RuntimeConfig, Watch

Indices = npt.NDArray[np.intp]

STEPS = (256, 512, 1024, 2048)
"""Numbers of keypoints in each image for which the network is compiled; fewer are padded."""

NEAREST, LEARNED = 'nearest', 'learned'
"""Names of matchers: nearest neighbors, and the shipped learned matcher of the default model. Others are names of
models.MATCHERS, or paths."""

MIN_PROBABILITY = 0.4
"""Smallest probability of a match by default. On real pairs, MAGSAC++ in pixels finds the best poses from 0.2 to 0.4,
estimators that wrong matches disturb more from 0.4 to 0.8."""

FARTHEST = 100.0
"""Keypoints farther than this from the image's center, in half its longest side, are moved to this distance."""


def make_matcher(name: str, config: MatchConfig, runtime: RuntimeConfig) -> Matcher:
    """The matcher of this name.

    Args:
        name: NEAREST, or what LearnedMatcher takes, whose errors this raises.
        config: of nearest neighbors; of learned matchers, min_similarity is the smallest probability.
        runtime: of learned matchers. An extractor's precision int8 is not for them: they then choose their own.
    """
    if name == NEAREST:
        return partial(match, config=config)
    precision = 'auto' if runtime.precision == 'int8' else runtime.precision
    return LearnedMatcher(name, config.min_similarity, **vars(runtime) | {'precision': precision})


class LearnedMatcher:
    """Matches the features of two images by their descriptors and positions; a superpoint_ros.matching.Matcher.

    The best 2048 keypoints of each image take part; those with a position, score or descriptor that is not finite do
    not. Matches are mutual: each keypoint is the other's likeliest match.

    Args:
        model: LEARNED, name of a shipped matcher, or path of a .safetensors or .onnx file.
        min_similarity: smallest probability of a match; may be changed between calls.
        watch: reports the building of a TensorRT engine, and can cancel it.
        options: any field of runtimes.RuntimeConfig.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option is out of range, or the model's file is broken or not of a matcher.
        FileNotFoundError: no such model.
        ImportError: the back end is not installed.

    Example:
        >>> matcher = LearnedMatcher('matcher.safetensors')
        >>> matches = matcher(extractor(image0), extractor(image1))
    """

    def __init__(
        self, model: str, min_similarity: float = MIN_PROBABILITY, watch: Watch | None = None, **options: Any
    ) -> None:
        self.min_similarity = min_similarity
        self.model = resolve_matcher(model)
        self.runtime = runtimes.load_matcher(self.model, RuntimeConfig(**options), watch)

    def __call__(self, features0: Features, features1: Features, /) -> Matches:
        """Match the features of two images.

        Returns:
            Matches in the order of features0; their similarities are probabilities in [0, 1].

        Raises:
            ValueError: the features come from a model that the matcher was not trained for, or the size of an image is
                unknown.
        """
        self.check(features0)
        self.check(features1)
        check_comparable(features0, features1)
        rows0, rows1 = usable(features0, STEPS[-1]), usable(features1, STEPS[-1])
        if not len(rows0) or not len(rows1):
            return Matches(np.empty((0, 2), np.uint32), np.empty(0, np.float32))
        count = next(step for step in STEPS if step >= max(len(rows0), len(rows1)))
        inputs = pair_inputs(features0[rows0], features1[rows1], count)
        if not self.runtime.config.use_scores:
            del inputs['scores']
        (outputs,) = self.runtime.network([inputs])
        index0, index1, probabilities = mutual_best(outputs['log_assignment'][: len(rows0), : len(rows1)])
        accepted = probabilities >= self.min_similarity
        indices = np.stack([rows0[index0[accepted]], rows1[index1[accepted]]], axis=1).astype(np.uint32)
        order = np.argsort(indices[:, 0], kind='stable')
        return Matches(indices[order], probabilities[accepted][order])

    def check(self, features: Features) -> None:
        """Check that the matcher was trained for features of this kind.

        Raises:
            ValueError: one sentence that says why it was not.
        """
        config, checksum, size = self.runtime.config, features.checksum, features.descriptors.shape[1]
        if checksum and config.extractor_checksum and checksum != config.extractor_checksum:
            raise ValueError(
                f'matcher {self.model.name} was trained for features of {config.extractor} (checksum '
                f'{config.extractor_checksum[:12]}), not for those of checksum {checksum[:12]}; shipped matchers: '
                f'{", ".join(models.MATCHERS)}'
            )
        if size != config.descriptor_size:
            raise ValueError(
                f'matcher {self.model.name} was trained for descriptors of size {config.descriptor_size}, got {size}'
            )
        if min(features.image_size) < 1:
            raise ValueError(f'matcher {self.model.name} needs the size of the image, which is unknown')


def check_model(matcher: Matcher, model: Runtime) -> None:
    """Check that a matcher takes the features of a model, before any are extracted.

    Raises:
        ValueError: one sentence that says why it does not.
    """
    keypoints, scores, descriptors = (np.empty((0, *size), np.float32) for size in ((2,), (), (model.descriptor_size,)))
    nothing = Features(keypoints, scores, descriptors, (1, 1), model.checksum)
    matcher(nothing, nothing)


def resolve_matcher(model: str) -> models.Model:
    """Find the files of a learned matcher: LEARNED, name of a shipped matcher, or path.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such name.
    """
    try:
        return models.resolve(models.MATCHERS[0] if model == LEARNED else model, models.MATCHERS)
    except ValueError:
        expected = f'{NEAREST}, {LEARNED}, {", ".join(models.MATCHERS)}'
        raise ValueError(
            f'matcher {model!r} is neither one of {expected} nor the path of a .safetensors or .onnx file'
        ) from None


def usable(features: Features, most: int) -> Indices:
    """The rows of the best features, by descending score, without those that are not finite."""
    finite = np.isfinite(features.scores) & np.isfinite(features.keypoints).all(axis=1)
    rows = np.flatnonzero(finite & np.isfinite(features.descriptors).all(axis=1))
    return rows[np.argsort(-features.scores[rows], kind='stable')][:most]


def pair_inputs(features0: Features, features1: Features, count: int) -> dict[str, Floats]:
    """The inputs of the network for two images, padded to `count` keypoints in each.

    Returns:
        keypoints (2, count, 2), descriptors (2, count, D), valid (2, count) and scores (2, count) as in
        superpoint_ros.networks.lightglue.LightGlue.
    """
    size = features0.descriptors.shape[1]
    shapes = {'keypoints': (2, count, 2), 'descriptors': (2, count, size), 'valid': (2, count), 'scores': (2, count)}
    inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for image, features in enumerate((features0, features1)):
        rows = slice(0, len(features))
        sides = np.array(features.image_size, np.float32)
        positions = (features.keypoints - (sides - 1) / 2) / (sides.max() / 2)
        inputs['keypoints'][image, rows] = positions.clip(-FARTHEST, FARTHEST)
        inputs['descriptors'][image, rows] = features.descriptors
        inputs['valid'][image, rows] = 1
        inputs['scores'][image, rows] = features.scores
    return inputs


def mutual_best(log_assignment: Floats) -> tuple[Indices, Indices, Floats]:
    """The pairs of rows and columns that are each other's likeliest, and their probabilities.

    These are given as logarithms (N0, N1), N0 and N1 at least 1; NaN matches nothing.
    """
    best = log_assignment.argmax(axis=1)
    values = log_assignment[np.arange(len(best)), best]
    index0 = np.flatnonzero(values == log_assignment.max(axis=0)[best])
    # Of several equal rows the first gets the column.
    index0 = index0[np.unique(best[index0], return_index=True)[1]]
    return index0, best[index0], np.exp(values[index0])
