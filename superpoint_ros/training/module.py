"""The stages as Lightning modules: each is a network, a loss and the augmentation that comes before it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from superpoint_ros.decode import DecodeConfig, find_peaks, score_map
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import CELL, SuperPoint, SuperPointConfig
from superpoint_ros.training.homography import valid_mask, warp_images, warp_points
from superpoint_ros.training.losses import (
    HingeConfig,
    cell_labels,
    contrastive_descriptor_loss,
    detector_loss,
    hinge_descriptor_loss,
)
from superpoint_ros.training.photometric import PhotometricConfig, augment, generators

Batch = dict[str, Tensor]

VALIDATION_DECODING = DecodeConfig(threshold=0.1, max_keypoints=300, border=0)
CORRECT_DISTANCE = 3.0
"""Pixels within which a detection is that of a labelled point, in validation."""


class MagicPointTraining(lightning.LightningModule):
    """The detector alone, on pictures whose corners are known (Synthetic Shapes, or labelled photographs).

    Args:
        network: its shape.
        photometric: how strongly the pictures are changed.
        lr: learning rate at its highest.
        warmup: steps over which it rises to that.
        cooldown: share of max_steps, at the end, over which it falls to zero along a cosine; before, it is constant, so
            a run may be prolonged or cut short until then.
        weight_decay: of AdamW.
        initial_weights: a .safetensors file to start from; layers that it does not have start at random.
    """

    def __init__(
        self,
        network: SuperPointConfig,
        photometric: PhotometricConfig,
        lr: float = 1e-3,
        warmup: int = 100,
        cooldown: float = 0.3,
        weight_decay: float = 0.0,
        initial_weights: Path | None = None,
    ) -> None:
        super().__init__()
        self.network = SuperPoint(network)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if initial_weights is not None:
            start_from(self.network, initial_weights)
        self.photometric = photometric
        self.lr, self.warmup, self.cooldown, self.weight_decay = lr, warmup, cooldown, weight_decay

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The network's outputs for (B, 1, H, W) images in [0, 1], by name, in float32."""
        outputs = self.network(images.contiguous(memory_format=torch.channels_last))
        return {name: output.float() for name, output in outputs.items()}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and figures to log beside it."""
        images, points, valid = warped(as_grey(batch['image']), batch)
        images = augment(images, self.photometric, generators(batch['seed']))
        return detector_loss(self(images)['logits'], cell_labels(points, valid)), {}

    def on_train_start(self) -> None:
        # A checkpoint has the rate of its run's max_steps; this one may be for longer, or shorter.
        for group in self.trainer.optimizers[0].param_groups:
            group['lr'] = self.lr * self.lr_factor(self.global_step)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:  # noqa: ARG002 (Lightning gives it)
        loss, figures = self.loss(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f'step {self.global_step}: the loss is {loss.item()} ({figures}); '
                f'samples {batch["index"].tolist()} with seeds {batch["seed"].tolist()}'
            )
        self.log('loss', loss, prog_bar=True, sync_dist=True)
        self.log_dict(figures)
        self.log('lr', self.lr * self.lr_factor(self.global_step))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:  # noqa: ARG002
        images = as_grey(batch['image'])
        noisy = augment(images, self.photometric, generators(batch['seed']))
        for noise, seen in {'clean': images, 'noisy': noisy}.items():
            logits = self(seen)['logits'].cpu().numpy()
            found, correct, labelled = detection_counts(logits, batch['points'].cpu().numpy())
            size = len(images)
            self.log(f'precision/{noise}', correct / max(found, 1), batch_size=size, sync_dist=True)
            self.log(f'recall/{noise}', correct / max(labelled, 1), batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}

    def lr_factor(self, step: int) -> float:
        """Rise in a line to 1, stay there, fall along a cosine to 0 at max_steps."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = min(1.0, max(0.0, 1 - step / self.trainer.max_steps) / max(1e-9, self.cooldown))
        return rise * 0.5 * (1 - math.cos(math.pi * left))


class SuperPointTraining(MagicPointTraining):
    """Detector and descriptor together, on pairs of an image and its warped self (SuperPoint, section 3.4).

    Args:
        network: its shape.
        photometric: how strongly the pictures are changed, the two of a pair each in its own way.
        descriptor_loss: contrastive, or the paper's hinge.
        descriptor_weight: λ, what the descriptor loss counts beside the detector's.
        temperature: of the contrastive loss.
        hinge: of the hinge loss.
        optimiser: as in MagicPointTraining: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(
        self,
        network: SuperPointConfig,
        photometric: PhotometricConfig,
        hinge: HingeConfig,
        descriptor_loss: Literal['contrastive', 'hinge'] = 'contrastive',
        descriptor_weight: float = 0.5,
        temperature: float = 0.07,
        **optimiser: Any,
    ) -> None:
        super().__init__(network, photometric, **optimiser)
        self.descriptor_loss, self.descriptor_weight = descriptor_loss, descriptor_weight
        self.temperature, self.hinge = temperature, hinge

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        images0 = as_grey(batch['image'])
        images1, points1, valid1 = warped(images0, batch)
        rngs = generators(batch['seed'])
        pair = torch.cat([augment(images, self.photometric, rngs) for images in (images0, images1)])
        # Both images go through the network at once, so that batch norm sees them as one batch.
        outputs = self(pair)
        (logits0, logits1), (descriptors0, descriptors1) = (
            outputs[name].chunk(2) for name in ('logits', 'descriptors')
        )
        detector0 = detector_loss(logits0, cell_labels(batch['points'], torch.ones_like(valid1)))
        detector1 = detector_loss(logits1, cell_labels(points1, valid1))
        views = descriptors0, descriptors1, batch['homography'], valid1
        if self.descriptor_loss == 'hinge':
            descriptor = hinge_descriptor_loss(*views, self.hinge)
        else:
            # One shift for a whole image: its points stay a cell apart, so that none is its neighbour's false negative.
            offsets = torch.stack([torch.rand(1, 2, generator=rng, device=rng.device) for rng in rngs])
            offsets = (offsets - 0.5) * CELL
            descriptor = contrastive_descriptor_loss(*views, offsets, self.temperature)
        loss = detector0 + detector1 + self.descriptor_weight * descriptor
        return loss, {'loss/detector': (detector0 + detector1) / 2, 'loss/descriptor': descriptor}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        super().validation_step(batch, batch_index)
        _, figures = self.loss(batch)
        figures = {f'validation/{name}': value for name, value in figures.items()}
        self.log_dict(figures, batch_size=len(batch['image']), sync_dist=True)


def as_grey(images: Tensor) -> Tensor:
    """Grey values in [0, 1] from uint8."""
    return images.float() / 255


def warped(images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The images and the batch's points, warped by its homographies, and which pixels are then valid."""
    width, height = images.shape[-1], images.shape[-2]
    points = warp_points(batch['points'], batch['homography']).float()
    return warp_images(images, batch['homography']), points, valid_mask(batch['homography'], (width, height), 2)


def start_from(network: SuperPoint, path: Path) -> None:
    """Copy the weights of a file into the network's layers of the same name.

    Raises:
        ValueError: the file has layers that the network lacks or has in another shape.
    """
    state = checkpoint.load(path).state_dict()
    try:
        extra = network.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:
        raise ValueError(f'initial weights {path} do not fit the network: {error}') from error
    if extra:
        raise ValueError(f'initial weights {path} have layers that the network lacks: {", ".join(extra)}')


def detection_counts(logits: np.ndarray, points: np.ndarray) -> tuple[int, int, int]:
    """Detections, those of them near a labelled point, and labelled points, over a batch.

    Args:
        logits: (B, 65, H/8, W/8).
        points: (B, N, 2), NaN where there is none.
    """
    found = correct = labelled = 0
    for one, truth in zip(logits, points, strict=True):
        scores = score_map(one)
        height, width = scores.shape
        rows, columns = find_peaks(scores, (width, height), VALIDATION_DECODING)
        truth = truth[np.isfinite(truth).all(axis=1)]
        distances = np.hypot(columns[:, None] - truth[:, 0], rows[:, None] - truth[:, 1])
        found, labelled = found + len(rows), labelled + len(truth)
        correct += int((distances <= CORRECT_DISTANCE).any(axis=0).sum())
    return found, correct, labelled
