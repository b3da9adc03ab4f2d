"""Pairs of views of random scenes, as the keypoints that an extractor finds in them: what a matcher trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
from torch.utils.data import DataLoader, Dataset

from superpoint_ros import image_files, models
from superpoint_ros.learned_matching import pair_inputs
from superpoint_ros.models import checksum
from superpoint_ros.training import scene_features
from superpoint_ros.training.datasets import TRAINING, VALIDATION, Sample, collate, training_loader
from superpoint_ros.training.scene_features import NONE, ScenesConfig


class PairsDataset(Dataset[Sample]):
    """Pairs of views without end.

    Args:
        files: of scenes, from scene_features.obtain.
        keypoints: of each image, the best; fewer are padded.
        unrelated: share of the pairs whose views are of two scenes, so that no keypoint has a partner.
        seed: picks the pairs.
        stream: TRAINING or VALIDATION.
    """

    def __init__(self, files: Sequence[Path], keypoints: int, unrelated: float, seed: int, stream: int) -> None:
        self.files, self.keypoints, self.unrelated = files, keypoints, unrelated
        self.seed, self.stream = seed, stream

    def __getitem__(self, index: int) -> Sample:
        """The inputs of the network for a pair, and `partners` (2, K): rows in the other image, or NONE or UNSURE."""
        rng = np.random.default_rng([self.seed, self.stream, index])
        first, second = (int(number) for number in rng.integers(len(self.files), size=2))
        scenes = [scene_features.read(self.files[first])] * 2
        if rng.random() < self.unrelated and first != second:
            scenes[1] = scene_features.read(self.files[second])
        views = [int(number) for number in rng.choice(len(scenes[0].features), 2, replace=False)]
        features = [scene.features[view][: self.keypoints] for scene, view in zip(scenes, views, strict=True)]
        partners = np.full((2, self.keypoints), NONE, np.int64)
        if scenes[0] is scenes[1]:
            for image, (own, other) in enumerate((views, views[::-1])):
                known = scenes[0].partners[own, other][: self.keypoints]
                partners[image, : len(known)] = np.where(known < self.keypoints, known, NONE)
        inputs = pair_inputs(features[0], features[1], self.keypoints)
        return {**inputs, 'partners': partners, 'seed': rng.integers(2**62), 'index': index}


class MatcherData(lightning.LightningDataModule):
    """Batches of pairs of views; before the first batch, features are extracted once and kept.

    Args:
        images: folders of photographs; one photograph in 32 is for validation.
        extractor: name of a shipped model, or path of one; the matcher serves its features alone.
        cache: folder for the features.
        scenes: what views are made of the photographs.
        keypoints: of each image, at most as many as `scenes` keeps.
        unrelated: share of the pairs whose views are of two scenes.
        batch_size: pairs in a batch of one process.
        seed: picks the pairs.
        validation_pairs: how many pairs a validation looks at, always the same.
        workers: processes that extract features, and then read them.

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
        seed: int = 0,
        validation_pairs: int = 256,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.extractor, self.model = extractor, models.resolve(extractor)
        self.checksum = checksum(self.model.file('weights'))
        self.cache, self.scenes, self.keypoints, self.unrelated = cache, scenes, keypoints, unrelated
        self.batch_size, self.seed, self.validation_pairs, self.workers = batch_size, seed, validation_pairs, workers
        every = [path for folder in images for path in image_files.files_in(folder, recursive=True)]
        kept = every[::32]
        self.photographs = {VALIDATION: kept, TRAINING: [path for path in every if path not in kept] or kept}

    def prepare_data(self) -> None:
        """Extract the features that are not there yet."""
        self._files(TRAINING)
        self._files(VALIDATION)

    def train_dataloader(self) -> DataLoader[Sample]:
        return training_loader(self._dataset(TRAINING), self.trainer, self.batch_size, self.workers)

    def val_dataloader(self) -> DataLoader[Sample]:
        sampler = range(self.validation_pairs)
        return DataLoader(self._dataset(VALIDATION), self.batch_size, sampler=sampler, collate_fn=collate)

    def _dataset(self, stream: int) -> PairsDataset:
        return PairsDataset(self._files(stream), self.keypoints, self.unrelated, self.seed, stream)

    def _files(self, stream: int) -> list[Path]:
        photographs, config = self.photographs[stream], self.scenes
        if stream == VALIDATION:
            config = dataclasses.replace(config, count=min(config.count, len(photographs)))
        return scene_features.obtain(photographs, self.extractor, config, self.cache, self.workers)
