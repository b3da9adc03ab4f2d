"""Pairs of views of random scenes, as the keypoints that an extractor finds in them: what a matcher trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from superpoint_ros import image_files, models
from superpoint_ros.learned_matching import pair_inputs
from superpoint_ros.models import checksum
from superpoint_ros.networks import checkpoint
from superpoint_ros.training import scene_features
from superpoint_ros.training.datasets import TRAINING, VALIDATION, Draw, EndlessData, Sample, split
from superpoint_ros.training.scene_features import NONE, ScenesConfig


def draw_pair(rng: np.random.Generator, files: Sequence[Path], keypoints: int, unrelated: float) -> Sample:
    """A pair of views of a scene or, with probability `unrelated`, of two scenes, where no keypoint has a partner.

    Files are from scene_features.obtain. Each view has its best keypoints; fewer are padded.

    Returns:
        The inputs of the network, and `partners` (2, K): rows in the other image, or NONE or UNSURE.
    """
    first, second = (int(number) for number in rng.integers(len(files), size=2))
    scenes = [scene_features.read(files[first])] * 2
    if rng.random() < unrelated and first != second:
        scenes[1] = scene_features.read(files[second])
    views = [int(number) for number in rng.choice(len(scenes[0].features), 2, replace=False)]
    features = [scene.features[view][:keypoints] for scene, view in zip(scenes, views, strict=True)]
    partners = np.full((2, keypoints), NONE, np.int64)
    if scenes[0] is scenes[1]:
        for image, (own, other) in enumerate((views, views[::-1])):
            known = scenes[0].partners[own, other][:keypoints]
            partners[image, : len(known)] = np.where(known < keypoints, known, NONE)
    return {**pair_inputs(features[0], features[1], keypoints), 'partners': partners}


class MatcherData(EndlessData):
    """Batches of pairs of views; before the first batch, features are extracted once and kept.

    Args:
        images: folders of photographs; one photograph in 32 is for validation.
        extractor: name of a shipped model, or path of one; the matcher serves its features alone.
        cache: folder for the features.
        scenes: what views are made of the photographs.
        keypoints: of each image, at most as many as `scenes` keeps.
        unrelated: share of the pairs whose views are of two scenes.
        batch_size: pairs per batch and process.
        validation_pairs: number of pairs in a validation, always the same.
        batches: as in EndlessData: seed, workers.

    Raises:
        FileNotFoundError: a folder has no photographs, or there is no such model.
    """

    def __init__(
        self,
        images: list[Path],
        extractor: str,
        cache: Path,
        scenes: ScenesConfig,
        keypoints: int = 256,
        unrelated: float = 0.05,
        batch_size: int = 16,
        validation_pairs: int = 256,
        **batches: Any,
    ) -> None:
        super().__init__(validation_pairs, batch_size, **batches)
        self.extractor, self.model = extractor, models.resolve(extractor)
        self.checksum = checksum(self.model.file('weights'))
        self.cache, self.scenes, self.keypoints, self.unrelated = cache, scenes, keypoints, unrelated
        # Folders may contain each other; a photograph is for training or for validation.
        every = list(dict.fromkeys(path for folder in images for path in image_files.files_in(folder, recursive=True)))
        self.photographs = {stream: split(every, stream) for stream in (TRAINING, VALIDATION)}

    def prepare_data(self) -> None:
        """Extract the features that are not there yet.

        Raises:
            ValueError: the network is not for descriptors of this size, or a photograph cannot be read.
        """
        training: Any = self.trainer and self.trainer.lightning_module
        expected = checkpoint.load(self.model.file('weights')).config.descriptor_size
        if (found := training.network.config.descriptor_size) != expected:
            raise ValueError(f'network.descriptor_size is {found}, but descriptors of {self.extractor} have {expected}')
        self._files(TRAINING)
        self._files(VALIDATION)

    def draws(self, stream: int) -> Draw:
        return partial(draw_pair, files=self._files(stream), keypoints=self.keypoints, unrelated=self.unrelated)

    def _files(self, stream: int) -> list[Path]:
        photographs, config = self.photographs[stream], self.scenes
        if stream == VALIDATION:
            config = dataclasses.replace(config, count=min(config.count, len(photographs)))
        return scene_features.obtain(photographs, self.extractor, config, self.cache, self.workers)
