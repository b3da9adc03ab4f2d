"""The stages of SuperPoint: MagicPoint on Synthetic Shapes, then detector and descriptor on labeled photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from superpoint_ros.decode import DecodeConfig, find_peaks, score_map
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.training.losses import (
    DescriptorLossConfig,
    cell_labels,
    descriptor_loss,
    detector_loss,
    localization_loss,
)
from superpoint_ros.training.photometric import PhotometricConfig, augment, generators
from superpoint_ros.training.stage import Batch, Stage, as_gray, visible_of

VALIDATION_DECODING = DecodeConfig(threshold=0.1, max_keypoints=300, border=0)
CORRECT_DISTANCE = 3.0
"""Pixels between a labeled point and a detection that count as the same in validation."""


class MagicPointTraining(Stage):
    """The detector alone, on images whose corners are known: Synthetic Shapes.

    Args:
        network: configuration of the network.
        photometric: strength of the photometric changes.
        optimizer: as in Stage: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(self, network: SuperPointConfig, photometric: PhotometricConfig, **optimizer: Any) -> None:
        super().__init__(SuperPoint(network), photometric, **optimizer)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        images = augment(as_gray(batch['image']), self.photometric, generators(batch['seed']))
        return detector_loss(self(images)['logits'], cell_labels(batch['points'], batch['valid'])), {}

    def validation_step(self, batch: Batch, batch_index: int) -> None:  # noqa: ARG002
        if not batch['points'].numel():  # without labels
            return
        images = as_gray(batch['image'])
        noisy = augment(images, self.photometric, generators(batch['seed']))
        for noise, seen in {'clean': images, 'noisy': noisy}.items():
            logits = self(seen)['logits'].cpu().numpy()
            right, recalled = detections_near_labels(logits, batch['points'].cpu().numpy())
            for name, hits in (('precision', right), ('recall', recalled)):
                self.log(f'{name}/{noise}', hits.mean() if hits.size else 0.0, batch_size=len(images), sync_dist=True)


class SuperPointTraining(MagicPointTraining):
    """Detector and descriptor together, on pairs of views of labeled photographs (SuperPoint, section 3.4).

    Args:
        network: configuration of the network.
        photometric: strength of the photometric changes, drawn separately for the two views of a pair.
        descriptors: loss of the descriptors.
        localization_weight: weight of the distance between corresponding peaks of the two score maps, a term that the
            paper does not have.
        optimizer: as in Stage: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(
        self,
        network: SuperPointConfig,
        photometric: PhotometricConfig,
        descriptors: DescriptorLossConfig,
        localization_weight: float = 0.5,
        **optimizer: Any,
    ) -> None:
        super().__init__(network, photometric, **optimizer)
        self.descriptors, self.localization_weight = descriptors, localization_weight

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        pair, rngs = self.pair(batch)
        outputs = self(pair)
        (logits0, logits1), (descriptors0, descriptors1) = (
            outputs[name].chunk(2) for name in ('logits', 'descriptors')
        )
        visible, valid = visible_of(batch), torch.ones_like(batch['visible'])  # no corner in a border
        detector0 = detector_loss(logits0, cell_labels(batch['points'], valid))
        detector1 = detector_loss(logits1, cell_labels(batch['points1'], valid))
        homographies = batch['homography']
        descriptor = descriptor_loss(descriptors0, descriptors1, homographies, visible, self.descriptors, rngs)
        localization = localization_loss(logits0, logits1, batch['points'], homographies, visible)
        loss = detector0 + detector1 + self.descriptors.weight * descriptor + self.localization_weight * localization
        detector = (detector0 + detector1) / 2
        return loss, {'loss/detector': detector, 'loss/descriptor': descriptor, 'loss/localization': localization}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        MagicPointTraining.validation_step(self, batch, batch_index)
        Stage.validation_step(self, batch, batch_index)


def detections_near_labels(logits: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each detection whether a labeled point is near, and for each labeled point whether a detection is.

    Logits are (B, 65, H/8, W/8), points (B, N, 2) pixels, padded with NaN. The means of the two bool arrays are
    precision and recall.
    """
    right, recalled = [], []
    for one, truth in zip(logits, points, strict=True):
        scores = score_map(one)
        height, width = scores.shape
        rows, columns = find_peaks(scores, (width, height), VALIDATION_DECODING)
        truth = truth[np.isfinite(truth).all(axis=1)]
        near = np.hypot(columns[:, None] - truth[:, 0], rows[:, None] - truth[:, 1]) <= CORRECT_DISTANCE
        right.append(near.any(axis=1))
        recalled.append(near.any(axis=0))
    return np.concatenate(right), np.concatenate(recalled)
