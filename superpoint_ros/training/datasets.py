"""What the stages train on. Sample i of a run is a function of the seed and of i alone, never of a worker or a device.

So a run resumes by going on with the next i, several processes share the samples out between them, and a sample that
made a loss go wrong can be looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from superpoint_ros.geometry import Transform, crop_transform, resize_transform, transform_points
from superpoint_ros.training.adaptation import label_path, photographs
from superpoint_ros.training.homography import HomographyConfig, sample_homography
from superpoint_ros.training.synthetic_shapes import SHAPES, render

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers, so that no validation sample is also a training sample."""

Sample = dict[str, Any]


class ShapesDataset(Dataset[Sample]):
    """Synthetic Shapes without end, rendered when asked for.

    Args:
        size: (width, height) of the pictures.
        seed: picks the pictures.
        stream: TRAINING or VALIDATION.
        homography: the random homographies that come with them.
        warped: share of the pictures that are to be warped; the others' homography is the identity.
    """

    def __init__(
        self, size: tuple[int, int], seed: int, stream: int, homography: HomographyConfig, warped: float
    ) -> None:
        self.size, self.seed, self.stream, self.homography, self.warped = size, seed, stream, homography, warped

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, self.stream, index])
        image, points = render(SHAPES[rng.integers(len(SHAPES))], rng, self.size)
        warp = sample_homography(rng, self.size, self.homography) if rng.random() < self.warped else np.eye(3)
        return {
            'image': image,
            'points': rng.permutation(points),
            'homography': warp,
            'seed': rng.integers(2**62),
            'index': index,
        }


class PhotosDataset(Dataset[Sample]):
    """Crops of photographs without end, at random scales, half of them mirrored.

    Args:
        images: folder of the photographs.
        labels: folder of their labels, from `superpoint label`; photographs without labels are passed over. None for
            photographs without points.
        size: (width, height) of the crops.
        scale: least and greatest length of a photograph's longest side, in pixels, before it is cropped.
        seed: picks the crops.
        stream: TRAINING or VALIDATION.
        homography: the random homographies that come with them.

    Raises:
        FileNotFoundError: there are no photographs, or none with labels.
    """

    def __init__(
        self,
        images: Path,
        labels: Path | None,
        size: tuple[int, int],
        scale: tuple[int, int],
        seed: int,
        stream: int,
        homography: HomographyConfig,
    ) -> None:
        self.size, self.scale, self.seed, self.stream, self.homography = size, scale, seed, stream, homography
        every = [(path, labels and label_path(path, images, labels)) for path in photographs(images)]
        every = [(path, label_file) for path, label_file in every if label_file is None or label_file.is_file()]
        if not every:
            raise FileNotFoundError(f'{labels}: no labels of photographs in {images}; make them with: superpoint label')
        # One photograph in 32 is kept back for validation.
        self.files = [files for i, files in enumerate(every) if (i % 32 == 0) == (stream == VALIDATION)] or every

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, self.stream, index])
        image_path, label_file = self.files[rng.integers(len(self.files))]
        photograph = cv2.imread(str(image_path), cv2.IMREAD_GRAYSCALE)
        if photograph is None:
            raise ValueError(f'{image_path}: not an image that OpenCV can read')
        points = np.empty((0, 2), np.float32)
        if label_file is not None:
            with np.load(label_file, allow_pickle=False) as file:
                points = file['keypoints']
        transform = self._view(rng, photograph.shape[1], photograph.shape[0])
        shrinks = abs(np.linalg.det(transform)) < 1
        if shrinks:  # warping reads single pixels, which aliases
            photograph = cv2.GaussianBlur(photograph, (0, 0), 0.4 / np.sqrt(abs(np.linalg.det(transform))))
        image = cv2.warpAffine(photograph, transform[:2], self.size, borderMode=cv2.BORDER_REFLECT)
        points = transform_points(transform, points.astype(np.float32))
        points = points[((points >= 0) & (points <= np.array(self.size) - 1)).all(axis=1)]
        return {
            'image': image,
            'points': rng.permutation(points),
            'homography': sample_homography(rng, self.size, self.homography),
            'seed': rng.integers(2**62),
            'index': index,
        }

    def _view(self, rng: np.random.Generator, width: int, height: int) -> Transform:
        """From the photograph to a crop of it."""
        scale = rng.uniform(*self.scale) / max(width, height)
        scale = max(scale, self.size[0] / width, self.size[1] / height)
        room = np.array([width, height]) * scale - self.size
        left, top = np.floor(rng.uniform(0, np.maximum(room, 0)))
        transform = crop_transform(left, top) @ resize_transform(scale, scale)
        if rng.random() < 0.5:
            mirror = np.array([[-1, 0, self.size[0] - 1], [0, 1, 0], [0, 0, 1]], np.float64)
            transform = mirror @ transform
        return transform


class EndlessBatches(Sampler[list[int]]):
    """Batches of sample numbers without end: 0, 1, 2, … shared out between the processes of a training run.

    Args:
        first: the number of the first sample of all.
        size: samples in a batch of one process.
        rank: number of this process.
        processes: how many there are.
    """

    def __init__(self, first: int, size: int, rank: int, processes: int) -> None:
        self.first, self.size, self.rank, self.processes = first, size, rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first
        while True:
            yield [start + i * self.processes + self.rank for i in range(self.size)]
            start += self.size * self.processes


def collate(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """A batch: images (B, 1, H, W) uint8, points (B, N, 2) filled up with NaN, homographies (B, 3, 3), seeds (B,)."""
    most = max(len(sample['points']) for sample in samples)
    points = np.full((len(samples), most, 2), np.nan, np.float32)
    for row, sample in zip(points, samples, strict=True):
        row[: len(sample['points'])] = sample['points']
    return {
        'image': torch.from_numpy(np.stack([sample['image'] for sample in samples]))[:, None],
        'points': torch.from_numpy(points),
        'homography': torch.from_numpy(np.stack([sample['homography'] for sample in samples])),
        'seed': torch.tensor([int(sample['seed']) for sample in samples]),
        'index': torch.tensor([sample['index'] for sample in samples]),
    }


class ShapesData(lightning.LightningDataModule):
    """Batches of Synthetic Shapes.

    Args:
        width: of the pictures, in pixels, a multiple of 8.
        height: likewise.
        batch_size: pictures in a batch of one process.
        seed: picks the pictures.
        homography: the random homographies that training pictures are warped by.
        warped: share of the training pictures that are warped.
        validation_images: how many pictures a validation looks at, always the same.
        workers: processes that render.
    """

    def __init__(
        self,
        homography: HomographyConfig,
        width: int = 160,
        height: int = 120,
        batch_size: int = 32,
        seed: int = 0,
        warped: float = 0.7,
        validation_images: int = 256,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.homography, self.size, self.batch_size, self.seed = homography, (width, height), batch_size, seed
        self.warped, self.validation_images, self.workers = warped, validation_images, workers

    def train_dataloader(self) -> DataLoader[Sample]:
        dataset = ShapesDataset(self.size, self.seed, TRAINING, self.homography, self.warped)
        return training_loader(dataset, self.trainer, self.batch_size, self.workers)

    def val_dataloader(self) -> DataLoader[Sample]:
        dataset = ShapesDataset(self.size, self.seed, VALIDATION, self.homography, 0)
        return DataLoader(dataset, self.batch_size, sampler=range(self.validation_images), collate_fn=collate)


class PhotosData(lightning.LightningDataModule):
    """Batches of crops of photographs, with homographies.

    Args:
        images: folder of the photographs.
        labels: folder of their labels, from `superpoint label`; null for training that needs none.
        homography: the random homographies between the two images of a pair.
        width: of the crops, in pixels, a multiple of 8.
        height: likewise.
        scale: least and greatest length of a photograph's longest side, in pixels, before it is cropped.
        batch_size: crops in a batch of one process.
        seed: picks the crops.
        validation_images: how many crops a validation looks at, always the same.
        workers: processes that read photographs.
    """

    def __init__(
        self,
        images: Path,
        labels: Path | None,
        homography: HomographyConfig,
        width: int = 320,
        height: int = 240,
        scale: tuple[int, int] = (260, 420),
        batch_size: int = 32,
        seed: int = 0,
        validation_images: int = 64,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.images, self.labels, self.homography = images, labels, homography
        self.size, self.scale, self.batch_size, self.seed = (width, height), scale, batch_size, seed
        self.validation_images, self.workers = validation_images, workers

    def _dataset(self, stream: int) -> PhotosDataset:
        return PhotosDataset(self.images, self.labels, self.size, self.scale, self.seed, stream, self.homography)

    def train_dataloader(self) -> DataLoader[Sample]:
        return training_loader(self._dataset(TRAINING), self.trainer, self.batch_size, self.workers)

    def val_dataloader(self) -> DataLoader[Sample]:
        sampler = range(self.validation_images)
        return DataLoader(self._dataset(VALIDATION), self.batch_size, sampler=sampler, collate_fn=collate)


def training_loader(
    dataset: Dataset[Sample], trainer: lightning.Trainer | None, batch_size: int, workers: int
) -> DataLoader[Sample]:
    """The batches that are still to come, for this process of the run."""
    assert trainer is not None
    done = trainer.global_step * trainer.accumulate_grad_batches * batch_size * trainer.world_size
    batches = EndlessBatches(done, batch_size, trainer.global_rank, trainer.world_size)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
