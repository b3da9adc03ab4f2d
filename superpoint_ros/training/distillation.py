"""Trains a small SuperPoint on the scores and similarities of a large one (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.training.losses import DUSTBIN, DescriptorLossConfig, descriptor_loss, mean_of, visible_cells
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.stage import Batch, as_gray, visible_of
from superpoint_ros.training.superpoint import SuperPointTraining


class DistillationTraining(SuperPointTraining):
    """Detector and descriptor together, with the outputs of a trained network as targets.

    The teacher sees the views as they are. The student sees them with photometric changes and black borders and learns
    to ignore both; cells in a border have no keypoint. Only validation uses labels, because the teacher's scores say
    more about each cell.

    Args:
        network: configuration of the student.
        photometric: strength of the photometric changes that the student sees.
        descriptors: loss of the student's own descriptors, which knows the true partner of each point.
        teacher: .safetensors file of a SuperPoint; its descriptors may have another size.
        score_temperature: divisor of the logits of student and teacher. Above 1 the teacher also tells which pixels are
            most like a corner in cells that have none; most cells have none.
        similarity_weight: weight of the divergence from the teacher's similarities.
        optimizer: as in Stage: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(
        self,
        network: SuperPointConfig,
        photometric: PhotometricConfig,
        descriptors: DescriptorLossConfig,
        teacher: Path,
        score_temperature: float = 2.0,
        similarity_weight: float = 0.5,
        **optimizer: Any,
    ) -> None:
        super().__init__(network, photometric, descriptors, localization_weight=0.0, **optimizer)
        self.teacher_file, self.teacher = teacher, Teacher()
        self.score_temperature, self.similarity_weight = score_temperature, similarity_weight

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.teacher.load(self.teacher_file)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        changed, rngs = self.pair(batch)
        outputs = self(changed)
        targets = self.teacher(as_gray(torch.cat([batch['image'], batch['image1']])))
        visible = visible_of(batch)
        counted = visible_cells(torch.cat(visible))
        scores = torch.where(counted, targets['logits'], no_keypoint(targets['logits']))
        detector = score_distillation_loss(outputs['logits'], scores, self.score_temperature)
        views = views0, views1 = outputs['descriptors'].chunk(2)
        descriptor = descriptor_loss(views0, views1, batch['homography'], visible, self.descriptors, rngs)
        similarity = similarity_distillation_loss(
            views, targets['descriptors'].chunk(2), counted.chunk(2), self.descriptors.temperature
        )
        loss = 2 * detector + self.descriptors.weight * descriptor + self.similarity_weight * similarity
        return loss, {'loss/detector': detector, 'loss/descriptor': descriptor, 'loss/similarity': similarity}


class Teacher:
    """A trained network that does not learn. Not a torch module, so checkpoints, optimizer and DDP do not see it."""

    def load(self, path: Path) -> None:
        """Read the network.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is broken, or not of a SuperPoint with descriptors.
        """
        network = checkpoint.load(path)
        if not isinstance(network, SuperPoint) or not network.config.descriptor_size:
            raise ValueError(f'teacher {path}: expected SuperPoint with descriptors, got {network.config}')
        self.network = checkpoint.fold(network).bfloat16().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs for images (B, 1, H, W) in [0, 1], by name, as float32; computed in bfloat16."""
        pixels = images.bfloat16().contiguous(memory_format=torch.channels_last)
        outputs = self.network.to(images.device)(pixels)
        return {name: output.float() for name, output in outputs.items()}


def no_keypoint(logits: Tensor) -> Tensor:
    """Logits of cells without a keypoint, in the shape (B, 65, H/8, W/8) of others."""
    sure = torch.zeros_like(logits)
    sure[:, DUSTBIN] = 20.0
    return sure


def score_distillation_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Divergence of the student's logits (B, 65, H/8, W/8) for the classes of each cell from the teacher's targets.

    The mean Kullback-Leibler divergence in nats, times T² so that gradients are about as large at any temperature T
    (Hinton et al., section 2).
    """
    return temperature**2 * _divergence(logits / temperature, targets / temperature).mean()


def similarity_distillation_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], counted: tuple[Tensor, ...], temperature: float
) -> Tensor:
    """Divergence between student and teacher in which cells of two views they find similar.

    For each cell of either view, a softmax over similarities makes a distribution over the cells of the other. Only
    similarities are compared, so the two may have descriptors of different sizes D (relational distillation, Park et
    al., arXiv 1904.05068). The loss is the mean Kullback-Leibler divergence over the counted cells of both views, in
    nats.

    Args:
        student: descriptors of the two views, each (B, D, H/8, W/8); normalized here.
        teacher: the same.
        counted: (B, 1, H/8, W/8) bool of both views, the cells without black borders.
        temperature: divisor of the similarities.
    """
    similarities = []
    for views in (student, teacher):
        cells0, cells1 = (F.normalize(view.float().flatten(2), dim=1) for view in views)
        similarities.append((cells1.mT @ cells0).float() / temperature)
    ours, theirs = similarities
    first, second = (cells.flatten(1) for cells in counted)
    return (mean_of(_divergence(ours, theirs), first) + mean_of(_divergence(ours.mT, theirs.mT), second)) / 2


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """The Kullback-Leibler divergences from their softmax over dimension 1 to ours."""
    logs, targets = ours.float().log_softmax(dim=1), theirs.float().log_softmax(dim=1)
    return F.kl_div(logs, targets, reduction='none', log_target=True).sum(dim=1)
