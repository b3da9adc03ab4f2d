"""Homographic adaptation (SuperPoint, arXiv 1712.07629, section 5): labels of photographs from a detector.

The detector scores each photograph under many random homographies. The score maps are warped back, and the score of a
pixel is the mean over the views that show it, so the keypoints that remain are found in most views.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from superpoint_ros import image_files
from superpoint_ros.decode import CELL, DecodeConfig, find_peaks, refinement
from superpoint_ros.features import Floats, Image
from superpoint_ros.files import written_whole
from superpoint_ros.geometry import resize_transform, transform_points
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, score_map
from superpoint_ros.runtimes.pytorch import find_device
from superpoint_ros.training.adaptation_config import AdaptationConfig
from superpoint_ros.training.homography import HomographyConfig, sample_homography, warp_images

logger = logging.getLogger(__name__)

VIEWS = HomographyConfig(crop=0.9, perspective=0.05, scale=0.2, rotation=1.57, translation=0.1)
"""The homographies: milder in perspective than in training, because scores are averaged over the views."""

EROSION = 3
"""Pixels at the edge of a view that are ignored: the network sees an edge there that the photograph does not have."""


def label(
    weights: Path,
    images: Path,
    output: Path,
    adaptation: AdaptationConfig = AdaptationConfig(),
    device: str = 'auto',
) -> list[Path]:
    """Label a folder of photographs; those that have labels are skipped, so a stopped run continues.

    Args:
        weights: .safetensors file of the detector.
        images: folder with photographs, also in subfolders.
        output: folder for the labels, a .npz file for each photograph at its relative path: keypoints (N, 2) float32 in
            pixels of the photograph, and scores (N,) float32, descending.
        adaptation: how photographs are labeled.
        device: device of torch; auto takes a CUDA GPU if there is one.

    Returns:
        The photographs that could not be read; the others are labeled.

    Raises:
        FileNotFoundError: there are no photographs.
        ValueError: the weights are not those of MagicPoint or SuperPoint, or torch cannot use the device.
    """
    network = checkpoint.fold(checkpoint.load(weights)).to(find_device('' if device == 'auto' else device))
    if not isinstance(network, SuperPoint):
        raise ValueError(f'{weights}: expected MagicPoint or SuperPoint, which score each pixel')
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    paths = image_files.files_in(images, recursive=True)
    waiting = [(path, label_path(path, images, output)) for path in paths]
    waiting = [(path, target) for path, target in waiting if not target.exists()]
    if done := len(paths) - len(waiting):
        logger.info('%s: %d of %d photographs have labels and are skipped', output, done, len(paths))
    unreadable: list[Path] = []
    for path, target in progress(waiting, 'labeling', done):
        try:
            image = image_files.read(path)
        except (OSError, ValueError) as error:
            logger.error('%s; skipped', error)
            unreadable.append(path)
            continue
        digest = hashlib.sha256(path.relative_to(images).as_posix().encode()).digest()
        rng = np.random.default_rng([adaptation.seed, int.from_bytes(digest[:8], 'little')])
        keypoints, scores = label_image(network, image, adaptation, rng)
        with written_whole(target) as partial:
            np.savez(partial, keypoints=keypoints, scores=scores)
    return unreadable


def progress(items: Sequence[tuple[Path, Path]], task: str, done: int) -> Iterator[tuple[Path, Path]]:
    """Iterate with a progress bar on a terminal, or a log line for each tenth elsewhere; `done` items came before."""
    console, total = Console(stderr=True), done + len(items)
    for count, item in enumerate(track(items, task, total, done, console=console, disable=not console.is_terminal)):
        yield item
        tenth, before = (10 * (done + n) // total for n in (count + 1, count))
        if tenth > before and not console.is_terminal:
            logger.info('%s: %d of %d', task, done + count + 1, total)


def label_path(image: Path, images: Path, labels: Path) -> Path:
    """Where the labels of a photograph are."""
    relative = image.relative_to(images)
    return labels / relative.with_name(relative.name + '.npz')


def label_image(
    network: SuperPoint, image: Image, config: AdaptationConfig, rng: np.random.Generator
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
    """The score (H, W) float32 of each pixel of an image, averaged over the views that show it.

    The image is (1, 1, H, W) in [0, 1], H and W multiples of 8. The network is in evaluation mode.
    """
    height, width = image.shape[-2:]
    homographies = [np.eye(3), *(sample_homography(rng, (width, height), VIEWS) for _ in range(config.views - 1))]
    total = torch.zeros((height, width), device=image.device)
    count = torch.zeros_like(total)
    for start in range(0, config.views, config.batch_size):
        forth = torch.from_numpy(np.stack(homographies[start : start + config.batch_size])).to(image.device)
        back = torch.linalg.inv(forth)
        views = warp_images(image.expand(len(forth), -1, -1, -1), forth)
        with torch.autocast(image.device.type, torch.bfloat16):
            logits = network(views.contiguous(memory_format=torch.channels_last))['logits']
        outside = 1 - warp_images(torch.ones_like(views), forth, 'nearest')
        seen = 1 - F.max_pool2d(outside, 2 * EROSION + 1, stride=1, padding=EROSION)
        scores = score_map(logits)[:, None] * seen
        total += warp_images(scores, back).sum(dim=(0, 1))
        count += warp_images(seen, back).sum(dim=(0, 1))
    return torch.where(count > 0, total / count.clamp(min=1e-6), 0)
