"""Training data. Sample i of a run depends only on the seed and on i, never on a worker or a device.

So a run resumes with the next i, several processes share the samples, and a sample that made a loss infinite can be
looked at again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import lightning
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from superpoint_ros import image_files
from superpoint_ros.decode import CELL
from superpoint_ros.geometry import transform_points
from superpoint_ros.training.adaptation import label_path
from superpoint_ros.training.homography import HomographyConfig, sample_homography
from superpoint_ros.training.synthetic_shapes import SHAPES, render
from superpoint_ros.training.views import ViewConfig, cut, sample_frame, sample_views

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers: no validation sample is also a training sample."""

Sample = dict[str, Any]
Draw = Callable[[np.random.Generator], Sample]
Points = npt.NDArray[np.float32]
T = TypeVar('T')


class EndlessDataset(Dataset[Sample]):
    """Endless samples, drawn on request."""

    def __init__(self, draw: Draw, seed: int, stream: int) -> None:
        self.draw, self.seed, self.stream = draw, seed, stream

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, self.stream, index])
        return {**self.draw(rng), 'seed': rng.integers(2**62), 'index': index}


def draw_shapes(rng: np.random.Generator, size: tuple[int, int], homography: HomographyConfig, warped: float) -> Sample:
    """A picture of Synthetic Shapes of this (width, height), warped with probability `warped`."""
    image, points = render(SHAPES[rng.integers(len(SHAPES))], rng, size)
    valid = np.ones_like(image)
    if rng.random() < warped:
        warp = sample_homography(rng, size, homography)
        image = np.asarray(cv2.warpPerspective(image, warp, size), np.uint8)
        # Black surrounds the warped image; pixels next to it do not count, because the network sees an edge there.
        shown = cv2.warpPerspective(valid, warp, size, flags=cv2.INTER_NEAREST)
        valid = np.asarray(cv2.erode(shown, np.ones((5, 5))), np.uint8)
        points = transform_points(warp, points)
    return {'image': image, 'points': rng.permutation(points), 'valid': valid.astype(bool)[None]}


def find_files(images: Path, labels: Path | None, stream: int) -> Sequence[tuple[Path, Path | None]]:
    """The photographs of a folder and its subfolders for a stream, each with the file of its labels if there are any.

    Photographs without labels are skipped.

    Raises:
        FileNotFoundError: there is no photograph, or none with labels.
    """
    every = [
        (path, labels and label_path(path, images, labels)) for path in image_files.files_in(images, recursive=True)
    ]
    every = [(path, label_file) for path, label_file in every if label_file is None or label_file.is_file()]
    if not every:
        raise FileNotFoundError(f'{labels}: no labels of photographs in {images}; create them with: superpoint label')
    return split(every, stream)


def split(every: Sequence[T], stream: int) -> Sequence[T]:
    """One photograph in 32 is for VALIDATION, the others are for TRAINING; a single one is for both."""
    return [item for i, item in enumerate(every) if (i % 32 == 0) == (stream == VALIDATION)] or every


def draw_views(
    rng: np.random.Generator,
    files: Sequence[tuple[Path, Path | None]],
    size: tuple[int, int],
    config: ViewConfig,
) -> Sample:
    """Two views of this (width, height) of one of the photographs, with the labeled points that each shows.

    The images are without their black borders, because light and noise do not change these; `visible` has them.
    """
    image_path, label_file = files[int(rng.integers(len(files)))]
    photograph = image_files.read(image_path)
    whole = photograph.shape[1], photograph.shape[0]
    points = np.empty((0, 2), np.float32) if label_file is None else mirrored(read_labels(label_file, whole), whole)
    views = sample_views(rng, whole, size, config)
    visible = [sample_frame(rng, size, config.borders) for _ in views]
    seen = []
    for view, shown in zip(views, visible, strict=True):
        moved = transform_points(view, points)
        moved = moved[((moved >= 0) & (moved <= np.array(size) - 1)).all(axis=1)]
        x, y = moved.round().astype(int).T
        seen.append(moved[shown[y, x]])
    return {
        'image': cut(photograph, views[0], size),
        'image1': cut(photograph, views[1], size),
        'points': rng.permutation(seen[0]),
        'points1': rng.permutation(seen[1]),
        'visible': visible[0][None],
        'visible1': visible[1][None],
        'homography': views[1] @ np.linalg.inv(views[0]),
    }


def read_labels(path: Path, size: tuple[int, int]) -> Points:
    """The keypoints (N, 2) that `superpoint label` wrote to a file, for a photograph of this (width, height).

    Raises:
        ValueError: the file is not one of labels, or those of a larger photograph.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            points = np.asarray(file['keypoints'], np.float32)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f'keypoints of shape {points.shape}')
        if not ((points >= -1) & (points <= size)).all():
            raise ValueError(f'keypoints outside of the photograph, which has {size[0]}×{size[1]} pixels')
    except Exception as error:  # what NumPy, zipfile and zlib raise for broken files has no common base
        raise ValueError(f'{path}: expected an .npz file with keypoints (N, 2) ({error}); label it again') from error
    return points


def mirrored(points: Points, size: tuple[int, int]) -> Points:
    """Points (N, 2) of a photograph of this (width, height), and of its mirror images around it: (9·N, 2)."""
    x, y = ([side, -1 - side, 2 * length - 1 - side] for side, length in zip(points.T, size, strict=True))
    return np.concatenate([np.stack([u, v], axis=1) for u in x for v in y]).astype(np.float32)


def endless_batches(first: int, size: int, rank: int, processes: int) -> Iterator[list[int]]:
    """Endless batches of sample numbers from `first` on, distributed over the processes of a training run.

    The size is that of a batch of one process, the rank the number of this process.
    """
    for start in itertools.count(first, size * processes):
        yield [start + i * processes + rank for i in range(size)]


def collate(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """A batch: images (B, 1, H, W) uint8, points (B, N, 2) padded with NaN, the rest stacked."""
    batch = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        if name.startswith('image'):
            values = [image[None] for image in values]
        elif name.startswith('points'):
            most = max(map(len, values))
            values = [np.pad(v, ((0, most - len(v)), (0, 0)), constant_values=np.nan) for v in values]
        batch[name] = torch.from_numpy(np.stack(values))
    return batch


class EndlessData(lightning.LightningDataModule):
    """Batches of endless samples for training, and of the same few samples for each validation.

    Args:
        validation: number of samples in a validation.
        batch_size: samples per batch and process.
        seed: seed of the samples.
        workers: number of processes that make samples.
    """

    def __init__(self, validation: int, batch_size: int = 32, seed: int = 0, workers: int = 1) -> None:
        super().__init__()
        self.validation, self.batch_size, self.seed, self.workers = validation, batch_size, seed, workers

    def draws(self, stream: int) -> Draw:
        """A function that draws the samples of TRAINING or VALIDATION."""
        raise NotImplementedError

    def dataset(self, stream: int) -> EndlessDataset:
        return EndlessDataset(self.draws(stream), self.seed, stream)

    def train_dataloader(self) -> DataLoader[Sample]:
        """The remaining batches of this process of a run."""
        trainer = self.trainer
        assert trainer is not None
        done = trainer.global_step * trainer.accumulate_grad_batches * self.batch_size * trainer.world_size
        return DataLoader(
            self.dataset(TRAINING),
            batch_sampler=endless_batches(done, self.batch_size, trainer.global_rank, trainer.world_size),
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        sampler = range(self.validation)
        return DataLoader(self.dataset(VALIDATION), self.batch_size, sampler=sampler, collate_fn=collate)


def whole_cells(width: int, height: int) -> tuple[int, int]:
    """The size of images that consist of whole cells.

    Raises:
        ValueError: they would not.
    """
    if min(width, height) < CELL or width % CELL or height % CELL:
        raise ValueError(f'width and height: expected multiples of {CELL}, got {width} and {height}')
    return width, height


class ShapesData(EndlessData):
    """Batches of Synthetic Shapes.

    Args:
        homography: random homographies that warp training images.
        width: width of the images in pixels, a multiple of 8.
        height: height of the images in pixels, a multiple of 8.
        warped: share of the training images that are warped.
        validation_images: number of images in a validation, always the same.
        batches: as in EndlessData: batch_size, seed, workers.
    """

    def __init__(
        self,
        homography: HomographyConfig,
        width: int = 160,
        height: int = 120,
        warped: float = 0.7,
        validation_images: int = 256,
        **batches: Any,
    ) -> None:
        super().__init__(validation_images, **batches)
        self.homography, self.size, self.warped = homography, whole_cells(width, height), warped

    def draws(self, stream: int) -> Draw:
        warped = self.warped if stream == TRAINING else 0
        return partial(draw_shapes, size=self.size, homography=self.homography, warped=warped)


class PhotosData(EndlessData):
    """Batches of pairs of views of photographs, half of them mirrored.

    Args:
        images: folder with photographs, also in subfolders.
        labels: folder with their labels from `superpoint label`; null for stages that need none.
        views: how the two views of a pair differ.
        width: width of the views in pixels, a multiple of 8.
        height: height of the views in pixels, a multiple of 8.
        validation_images: number of pairs in a validation, always the same.
        batches: as in EndlessData: batch_size, seed, workers.
    """

    def __init__(
        self,
        images: Path,
        labels: Path | None,
        views: ViewConfig,
        width: int = 320,
        height: int = 240,
        validation_images: int = 64,
        **batches: Any,
    ) -> None:
        super().__init__(validation_images, **batches)
        self.images, self.labels, self.views, self.size = images, labels, views, whole_cells(width, height)

    def draws(self, stream: int) -> Draw:
        files = find_files(self.images, self.labels, stream)
        views = self.views if stream == TRAINING else dataclasses.replace(self.views, borders=0.0)
        return partial(draw_views, files=files, size=self.size, config=views)
