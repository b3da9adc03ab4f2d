"""Trains a small SuperPoint on the scores and similarities of a large one (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.training.losses import DescriptorLossConfig, descriptor_loss
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.stage import Batch, as_gray
from superpoint_ros.training.superpoint import SuperPointTraining


class DistillationTraining(SuperPointTraining):
    """Detector and descriptor together, with the outputs of a trained network as targets.

    The teacher sees the views as they are, the student sees them with photometric changes and learns to ignore these.
    Only validation uses labels, because the teacher's scores say more about each cell.

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
        detector = score_distillation_loss(outputs['logits'], targets['logits'], self.score_temperature)
        views = views0, views1 = outputs['descriptors'].chunk(2)
        descriptor = descriptor_loss(views0, views1, batch['homography'], self.descriptors, rngs)
        similarity = similarity_distillation_loss(views, targets['descriptors'].chunk(2), self.descriptors.temperature)
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


def score_distillation_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Divergence of the student's logits (B, 65, H/8, W/8) for the classes of each cell from the teacher's targets.

    The mean Kullback-Leibler divergence in nats, times T² so that gradients are about as large at any temperature T
    (Hinton et al., section 2).
    """
    return temperature**2 * _divergence(logits / temperature, targets / temperature)


def similarity_distillation_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], temperature: float
) -> Tensor:
    """Divergence between student and teacher in which cells of two views they find similar.

    For each cell of either view, a softmax over similarities makes a distribution over the cells of the other. Only
    similarities are compared, so the two may have descriptors of different sizes D (relational distillation, Park et
    al., arXiv 1904.05068). The loss is the mean Kullback-Leibler divergence over the cells of both views, in nats.

    Args:
        student: descriptors of the two views, each (B, D, H/8, W/8); normalized here.
        teacher: the same.
        temperature: divisor of the similarities.
    """
    similarities = []
    for views in (student, teacher):
        cells0, cells1 = (F.normalize(view.float().flatten(2), dim=1) for view in views)
        similarities.append((cells1.mT @ cells0).float() / temperature)
    ours, theirs = similarities
    return (_divergence(ours, theirs) + _divergence(ours.mT, theirs.mT)) / 2


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean Kullback-Leibler divergence from their softmax over dimension 1 to ours."""
    logs, targets = ours.float().log_softmax(dim=1), theirs.float().log_softmax(dim=1)
    return F.kl_div(logs, targets, reduction='none', log_target=True).sum(dim=1).mean()
