"""`superpoint label`: homographic adaptation (SuperPoint, arXiv 1712.07629, section 5) turns photographs into labels.

Each photograph is seen through many random homographies. The detector scores every view, the score maps are warped
back, and each pixel's score is its mean over the views that saw it. What is found from everywhere is a good keypoint.
Nothing is estimated here: the homographies are drawn, so they are known.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from superpoint_ros.decode import CELL, DecodeConfig, find_peaks, refinement
from superpoint_ros.features import Floats
from superpoint_ros.files import written_whole
from superpoint_ros.geometry import resize_transform, transform_points
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, score_map
from superpoint_ros.training.adaptation_config import AdaptationConfig
from superpoint_ros.training.homography import HomographyConfig, sample_homography, valid_mask, warp_images

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.pgm', '.bmp', '.tif', '.tiff', '.webp')


VIEWS = HomographyConfig(crop=0.9, perspective=0.05, scale=0.2, rotation=1.57, translation=0.1)
"""The homographies: as in training, but milder in perspective, as the mean wants views that agree."""

EROSION = 3
"""Pixels at the edge of a view that do not count: the network sees an edge there that the photograph has not."""


def label(
    weights: Path,
    images: Path,
    output: Path,
    adaptation: AdaptationConfig = AdaptationConfig(),
    device: str = 'auto',
) -> list[Path]:
    """Label a folder of photographs; what is there already is not done again, so a killed run just goes on.

    Args:
        weights: .safetensors of the detector.
        images: folder; photographs in sub-folders count too.
        output: folder for the labels, one .npz per photograph at the same relative path: keypoints (N, 2) float32 in
            the photograph's pixels, and scores (N,) float32, best first.
        adaptation: how.
        device: of torch; auto takes a CUDA GPU if there is one.

    Returns:
        The photographs that could not be read; the others are labeled all the same.

    Raises:
        FileNotFoundError: there are no photographs.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    network = checkpoint.fold(checkpoint.load(weights)).to(device)
    if not isinstance(network, SuperPoint):
        raise ValueError(f'{weights}: expected MagicPoint or SuperPoint, which score each pixel')
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    paths = photographs(images)
    waiting = [(path, label_path(path, images, output)) for path in paths]
    waiting = [(path, target) for path, target in waiting if not target.exists()]
    unreadable: list[Path] = []
    with _progress() as progress:
        task = progress.add_task('labeling', total=len(paths), completed=len(paths) - len(waiting))
        for path, target in waiting:
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if image is None:
                logger.error('%s: not an image that OpenCV can read; skipped', path)
                unreadable.append(path)
            else:
                digest = hashlib.sha256(path.relative_to(images).as_posix().encode()).digest()
                rng = np.random.default_rng([adaptation.seed, int.from_bytes(digest[:8], 'little')])
                keypoints, scores = label_image(network, np.asarray(image, np.uint8), adaptation, rng)
                with written_whole(target) as partial:
                    np.savez(partial, keypoints=keypoints, scores=scores)
            progress.advance(task)
    return unreadable


def photographs(images: Path) -> list[Path]:
    """The photographs in a folder and its sub-folders, by name.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(path for path in images.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{images}: no photographs there; expected files ending in {", ".join(IMAGE_SUFFIXES)}')
    return paths


def label_path(image: Path, images: Path, labels: Path) -> Path:
    """Where the labels of a photograph are."""
    relative = image.relative_to(images)
    return labels / relative.with_name(relative.name + '.npz')


def label_image(
    network: SuperPoint, image: npt.NDArray[np.uint8], config: AdaptationConfig, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Keypoints (N, 2) in the pixels of a gray image (H, W), and their scores (N,), best first."""
    height, width = image.shape
    scale = min(1.0, config.size / max(width, height))
    small = tuple(max(CELL, round(side * scale / CELL) * CELL) for side in (width, height))
    resized = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    device = next(network.parameters()).device
    pixels = torch.from_numpy(resized).to(device)[None, None].float() / 255
    scores = adapted_scores(network, pixels, config, rng).cpu().numpy()
    decoding = DecodeConfig(config.threshold, config.max_keypoints, config.nms_radius, border=EROSION)
    y, x = find_peaks(scores, small, decoding)
    keypoints = np.stack([x, y], axis=1).astype(np.float32) + refinement(scores, y, x)
    back = resize_transform(width / small[0], height / small[1])
    return transform_points(back, keypoints).astype(np.float32), scores[y, x]


@torch.inference_mode()
def adapted_scores(network: SuperPoint, image: Tensor, config: AdaptationConfig, rng: np.random.Generator) -> Tensor:
    """The score of each pixel, averaged over the views that saw it.

    Args:
        network: the detector, in evaluation mode.
        image: (1, 1, H, W) in [0, 1], H and W multiples of 8.
        config: views and batch_size.
        rng: draws the views.

    Returns:
        (H, W) float32.
    """
    height, width = image.shape[-2:]
    total = torch.zeros((height, width), device=image.device)
    count = torch.zeros_like(total)
    for homographies in _views(config, (width, height), rng):
        forth = torch.from_numpy(homographies).to(image.device)
        back = torch.linalg.inv(forth)
        views = warp_images(image.expand(len(forth), -1, -1, -1), forth)
        with torch.autocast(image.device.type, torch.bfloat16):
            logits = network(views.contiguous(memory_format=torch.channels_last))['logits']
        seen = valid_mask(forth, (width, height), EROSION).float()
        scores = score_map(logits)[:, None] * seen
        total += warp_images(scores, back).sum(dim=(0, 1))
        count += warp_images(seen, back).sum(dim=(0, 1))
    return torch.where(count > 0, total / count.clamp(min=1e-6), 0)


def _views(
    config: AdaptationConfig, size: tuple[int, int], rng: np.random.Generator
) -> Iterator[npt.NDArray[np.float64]]:
    homographies = [np.eye(3), *(sample_homography(rng, size, VIEWS) for _ in range(config.views - 1))]
    for start in range(0, config.views, config.batch_size):
        yield np.stack(homographies[start : start + config.batch_size])


def _progress() -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
