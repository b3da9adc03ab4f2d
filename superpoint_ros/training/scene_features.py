"""Features of views of random scenes with their true matches, made once and kept in files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, get_worker_info

from superpoint_ros import image_files, models
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features, Image
from superpoint_ros.files import written_whole
from superpoint_ros.training.photometric import PhotometricConfig, augment, generators
from superpoint_ros.training.scenes import SceneConfig, View, paint, sample_scene, sample_view, transfer

logger = logging.getLogger(__name__)

Partners = npt.NDArray[np.int16]

NONE, UNSURE = -1, -2
"""Instead of a partner: there is none; or there may be one, and the keypoint does not count."""

RIGHT, WRONG = 3.0, 5.0
"""Keypoints are partners if each is within RIGHT pixels of where the other's view shows it; there is no partner if no
keypoint is within WRONG pixels."""


@dataclass(frozen=True)
class ScenesConfig:
    """Which scenes are made, and what is kept of them.

    Args:
        scene: how scenes are shaped and seen.
        photometric: how strongly each view's gray values are changed.
        count: scenes.
        views: views of each scene.
        size: least and greatest longest side of a view, as a part of the photograph's.
        keypoints: kept of each view, the best.
        seed: picks the scenes.
    """

    scene: SceneConfig = field(default_factory=SceneConfig)
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    count: int = 6000
    views: int = 6
    size: tuple[float, float] = (0.75, 1.0)
    keypoints: int = 512
    seed: int = 0


class SceneFeatures(NamedTuple):
    """The features of the V views of a scene."""

    features: list[Features]
    partners: Partners
    """(V, V, K): for each keypoint of view i its partner in view j, or NONE or UNSURE."""


def obtain(photographs: Sequence[Path], extractor: str, config: ScenesConfig, folder: Path, workers: int) -> list[Path]:
    """The file of each scene, for `read`; missing ones are made by worker processes.

    Files are in a subfolder whose name depends on all settings that they depend on.

    Raises:
        ValueError: a photograph cannot be read.
    """
    checksum = models.checksum(models.resolve(extractor).file('weights'))
    files = [(path.name, path.stat().st_size) for path in photographs]  # names alone, as 000001.png, are not enough
    settings = {'extractor': checksum, 'photographs': files, **asdict(config)}
    del settings['count']  # the first scenes are the same, however many follow
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    paths = [folder / key / f'{index:06d}.npz' for index in range(config.count)]
    missing = [(index, path) for index, path in enumerate(paths) if not path.is_file()]
    if missing:
        logger.info('extracting the features of %d scenes to %s', len(missing), paths[0].parent)
        loader = DataLoader(_Maker(missing, photographs, extractor, config), batch_size=None, num_workers=workers)
        for _ in track(loader, 'scenes', total=len(missing), console=Console(stderr=True)):
            pass
    return paths


class _Maker(Dataset[int]):
    """Makes a file when it is asked for an item, so that a DataLoader's workers share the work."""

    def __init__(
        self, missing: Sequence[tuple[int, Path]], photographs: Sequence[Path], model: str, config: ScenesConfig
    ) -> None:
        self.missing, self.photographs, self.model, self.config = missing, photographs, model, config
        self.extractor: Extractor | None = None  # each process makes its own

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, item: int) -> int:
        if self.extractor is None:
            if get_worker_info():  # each worker has one core
                torch.set_num_threads(1)
                cv2.setNumThreads(1)
            self.extractor = Extractor(self.model, threads=1, resize=0, max_keypoints=self.config.keypoints)
        index, path = self.missing[item]
        rng = np.random.default_rng([self.config.seed, index])
        photograph = image_files.read(self.photographs[index % len(self.photographs)])
        backdrop = image_files.read(self.photographs[int(rng.integers(len(self.photographs)))])
        save(path, make(rng, photograph, backdrop, self.extractor, self.config))
        return index


def make(
    rng: np.random.Generator, photograph: Image, backdrop: Image, extractor: Extractor, config: ScenesConfig
) -> SceneFeatures:
    """The features of views of a random scene of a photograph."""
    height, width = photograph.shape
    longest = rng.uniform(*config.size) * max(width, height)
    size = (8 * round(longest / 8), 8 * round(0.75 * longest / 8))
    scene = sample_scene(rng, (width, height), config.scene)
    behind = np.asarray(cv2.resize(backdrop, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    views = [sample_view(rng, scene, size, config.scene) for _ in range(config.views)]
    images = torch.from_numpy(np.stack([paint(view, scene, photograph, behind) for view in views]))
    seeds = torch.from_numpy(rng.integers(2**62, size=len(views)))
    changed = augment(images[:, None].float() / 255, config.photometric, generators(seeds))
    features = [extractor(image) for image in (changed[:, 0] * 255).round().byte().numpy()]
    return SceneFeatures(features, partners(features, views, config.keypoints))


def partners(features: Sequence[Features], views: Sequence[View], count: int) -> Partners:
    """The partners of the first `count` keypoints of each view in each view, (V, V, count); see SceneFeatures."""
    found = np.full((len(views), len(views), count), NONE, np.int16)
    for i, j in np.ndindex(found.shape[:2]):
        if i < j and len(features[i]) and len(features[j]):
            points0, points1 = features[i].keypoints, features[j].keypoints
            moved0, visible0 = transfer(points0, views[i], views[j])
            moved1, visible1 = transfer(points1, views[j], views[i])
            errors0 = np.where(visible0[:, None], np.linalg.norm(moved0[:, None] - points1, axis=-1), np.inf)
            errors1 = np.where(visible1, np.linalg.norm(points0[:, None] - moved1, axis=-1), np.inf)
            near, errors = np.minimum(errors0, errors1) <= WRONG, np.maximum(errors0, errors1)
            found[i, j, : len(points0)][near.any(axis=1)] = UNSURE
            found[j, i, : len(points1)][near.any(axis=0)] = UNSURE
            best = errors.argmin(axis=1)
            rows = np.flatnonzero((errors.argmin(axis=0)[best] == np.arange(len(best))) & (errors.min(axis=1) <= RIGHT))
            found[i, j, rows], found[j, i, best[rows]] = best[rows], rows
    return found


def save(path: Path, scene: SceneFeatures) -> None:
    """Write a scene's features to a file, descriptors as 8-bit numbers as in messages."""
    count = scene.partners.shape[2]
    arrays: dict[str, Any] = {}
    for name in ('keypoints', 'scores', 'descriptors'):
        rows = [getattr(one, name) for one in scene.features]
        arrays[name] = np.stack([np.pad(r, [(0, count - len(r)), *[(0, 0)] * (r.ndim - 1)]) for r in rows])
    arrays['descriptors'] = np.rint(127 * arrays['descriptors']).astype(np.int8)
    arrays['counts'] = np.array([len(one) for one in scene.features])
    arrays['sizes'] = np.array([one.image_size for one in scene.features])
    with written_whole(path) as partial:
        np.savez(partial, partners=scene.partners, **arrays)


def read(path: Path) -> SceneFeatures:
    """Read a file that `save` wrote.

    Raises:
        ValueError: the file is broken.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # what NumPy, zipfile and zlib raise for broken files has no common base
        raise ValueError(f'{path}: not a file of scene features ({error}); delete it, and it is made again') from error
    features = [
        Features(
            arrays['keypoints'][view, :count],
            arrays['scores'][view, :count],
            arrays['descriptors'][view, :count].astype(np.float32) / 127,
            (int(arrays['sizes'][view][0]), int(arrays['sizes'][view][1])),
        )
        for view, count in enumerate(arrays['counts'])
    ]
    return SceneFeatures(features, arrays['partners'])
