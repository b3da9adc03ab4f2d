"""A small network learns from a big one (Hinton et al., arXiv 1503.02531): its scores, and what it finds alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.checkpoint import Network
from superpoint_ros.networks.superpoint import CELL, SuperPoint, SuperPointConfig
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.training.losses import DescriptorLossConfig, cells_valid, descriptor_loss
from superpoint_ros.training.photometric import PhotometricConfig, augment, generators
from superpoint_ros.training.stage import Batch, Stage, as_gray, warped
from superpoint_ros.training.superpoint import SuperPointTraining


class DistillationTraining(SuperPointTraining):
    """Both heads, on pairs of an image and its warped self, with the outputs of a trained network as targets.

    The teacher sees the images as they are, the student photometrically changed, so it learns to see past that, too.
    Labels serve the validation alone: the teacher's scores say more of each cell.

    Args:
        network: its shape.
        photometric: how strongly the pictures are changed that the student sees.
        descriptors: the loss of its descriptors by themselves, which knows the true partner of each point.
        teacher: .safetensors of a SuperPoint; its descriptors may be of another size than the student's.
        score_temperature: that the logits of student and teacher are divided by. Above 1, the teacher tells of each
            cell which of its pixels is most like a corner, even where none is one; few cells have a corner.
        similarity_weight: what the likeness to the teacher's similarities counts beside the detector's loss.
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
        self.teacher = Teacher(teacher, SuperPoint)
        self.score_temperature, self.similarity_weight = score_temperature, similarity_weight

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        lesson = teach(self, self.teacher, batch, self.photometric)
        detector = score_distillation_loss(
            lesson.outputs['logits'], lesson.targets['logits'], lesson.cells, self.score_temperature
        )
        descriptor, similarity = descriptor_losses(lesson, batch, self.descriptors)
        loss = 2 * detector + self.descriptors.weight * descriptor + self.similarity_weight * similarity
        return loss, {'loss/detector': detector, 'loss/descriptor': descriptor, 'loss/similarity': similarity}


class UnSuperPointDistillationTraining(Stage):
    """The same for UnSuperPoint: the teacher tells the scores and the positions that it regresses.

    Args:
        network: its shape.
        photometric: how strongly the pictures are changed that the student sees.
        descriptors: the loss of its descriptors by themselves, which knows the true partner of each point.
        teacher: .safetensors of an UnSuperPoint; its descriptors may be of another size than the student's.
        similarity_weight: what the likeness to the teacher's similarities counts beside scores and positions.
        optimizer: as in Stage: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(
        self,
        network: UnSuperPointConfig,
        photometric: PhotometricConfig,
        descriptors: DescriptorLossConfig,
        teacher: Path,
        similarity_weight: float = 0.5,
        **optimizer: Any,
    ) -> None:
        super().__init__(UnSuperPoint(network), photometric, **optimizer)
        self.teacher = Teacher(teacher, UnSuperPoint)
        self.descriptors, self.similarity_weight = descriptors, similarity_weight

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        lesson = teach(self, self.teacher, batch, self.photometric)
        score, position = point_distillation_losses(lesson.outputs, lesson.targets, lesson.cells)
        descriptor, similarity = descriptor_losses(lesson, batch, self.descriptors)
        loss = score + position + self.descriptors.weight * descriptor + self.similarity_weight * similarity
        terms = {'score': score, 'position': position, 'descriptor': descriptor, 'similarity': similarity}
        return loss, {f'loss/{name}': term.detach() for name, term in terms.items()}


class Teacher:
    """A trained network that only answers. Not a torch module, so checkpoints, optimizer and DDP do not see it.

    Args:
        path: its .safetensors file.
        kind: what network it must be, with descriptors.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, or of another network.
    """

    def __init__(self, path: Path, kind: type[Network]) -> None:
        network = checkpoint.load(path)
        if not isinstance(network, kind) or not network.config.descriptor_size:
            raise ValueError(f'teacher {path}: expected {kind.__name__} with descriptors, got {network.config}')
        self.network = checkpoint.fold(network).bfloat16().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs for (B, 1, H, W) images in [0, 1], by name, in float32; computed in bfloat16."""
        pixels = images.bfloat16().contiguous(memory_format=torch.channels_last)
        outputs = self.network.to(images.device)(pixels)
        return {name: output.float() for name, output in outputs.items()}


class Lesson(NamedTuple):
    """What student and teacher say of B images and their B warped selves, in this order."""

    outputs: dict[str, Tensor]
    """The student's, of the images photometrically changed."""
    targets: dict[str, Tensor]
    """The teacher's, of the images as they are."""
    cells: Tensor
    """(2·B, H/8, W/8) bool, which cells are picture."""
    valid1: Tensor
    """(B, H, W) bool, which pixels of the warped images are."""
    rngs: list[torch.Generator]
    """One for each image, as its seed says."""


def teach(student: Stage, teacher: Teacher, batch: Batch, photometric: PhotometricConfig) -> Lesson:
    """Show a batch and its warped self to both."""
    images0 = as_gray(batch['image'])
    images1, _, valid1 = warped(images0, batch)
    rngs = generators(batch['seed'])
    changed = torch.cat([augment(images, photometric, rngs) for images in (images0, images1)])
    cells1 = cells_valid(valid1)
    cells = torch.cat([torch.ones_like(cells1), cells1])
    return Lesson(student(changed), teacher(torch.cat([images0, images1])), cells, valid1, rngs)


def descriptor_losses(lesson: Lesson, batch: Batch, config: DescriptorLossConfig) -> tuple[Tensor, Tensor]:
    """Of the student's descriptors: the loss against the truth, and the one against the teacher."""
    views = views0, views1 = lesson.outputs['descriptors'].chunk(2)
    truth = descriptor_loss(views0, views1, batch['homography'], lesson.valid1, config, lesson.rngs)
    cells1 = lesson.cells.chunk(2)[1]
    return truth, similarity_distillation_loss(
        views, lesson.targets['descriptors'].chunk(2), cells1, config.temperature
    )


def score_distillation_loss(logits: Tensor, targets: Tensor, cells: Tensor, temperature: float = 1.0) -> Tensor:
    """How far the student's distributions over the 65 classes of each cell are from the teacher's.

    Args:
        logits: (B, 65, H/8, W/8), of the student.
        targets: (B, 65, H/8, W/8), of the teacher.
        cells: (B, H/8, W/8) bool, which cells count.
        temperature: T, that all logits are divided by.

    Returns:
        T² times the mean Kullback-Leibler divergence over the cells that count, in nats, so that gradients are about as
        large at any T (Hinton et al., section 2); 0 if no cell counts.
    """
    return temperature**2 * _mean(_divergence(logits / temperature, targets / temperature), cells)


def point_distillation_losses(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], cells: Tensor
) -> tuple[Tensor, Tensor]:
    """How far the student's points are from the teacher's.

    Args:
        outputs: scores (B, 1, H/8, W/8) and positions (B, 2, H/8, W/8) in the cells, of the student.
        targets: the same of the teacher.
        cells: (B, H/8, W/8) bool, which cells count.

    Returns:
        The mean Kullback-Leibler divergence of the scores, taken as probabilities, in nats; and the mean distance of
        the points in pixels, each weighed by the teacher's score, as the others will not be used. 0 if no cell counts.
    """
    ours, theirs = (heads['scores'].float().squeeze(1).clamp(1e-4, 1 - 1e-4) for heads in (outputs, targets))
    divergence = theirs * (theirs / ours).log() + (1 - theirs) * ((1 - theirs) / (1 - ours)).log()
    distance = CELL * torch.linalg.vector_norm(outputs['positions'].float() - targets['positions'].float(), dim=1)
    return _mean(divergence, cells), _mean(distance, cells * theirs)


def similarity_distillation_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], cells1: Tensor, temperature: float
) -> Tensor:
    """How far the student is from the teacher in which cells of two images it finds alike.

    For each cell of either image, a softmax over similarities makes a distribution over the cells of the other. Only
    similarities are compared, so the two may have descriptors of different sizes (relational distillation, Park et al.,
    arXiv 1904.05068).

    Args:
        student: descriptors of the two images, each (B, D, H/8, W/8); normalized here.
        teacher: likewise, of any size D.
        cells1: (B, H/8, W/8) bool, which cells of the second image count.
        temperature: that similarities are divided by.

    Returns:
        The mean Kullback-Leibler divergence over the cells of both images, in nats; 0 if no cell counts.
    """
    counts1 = cells1.flatten(1)
    counts0 = counts1.any(dim=1, keepdim=True).expand_as(counts1)
    ours, theirs = (_similarities(*views) / temperature for views in (student, teacher))
    hidden = ~counts1[:, :, None]
    # Over the cells of the second image, of which those that do not count have no share; and over those of the first.
    to_second = _divergence(ours.masked_fill(hidden, -1e4), theirs.masked_fill(hidden, -1e4))
    to_first = _divergence(ours.mT, theirs.mT)
    return (_mean(to_second, counts0) + _mean(to_first, counts1)) / 2


def _similarities(descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
    """(B, N1, N0): the cosines between the cells of second images and those of first images."""
    cells0, cells1 = (F.normalize(views.float().flatten(2), dim=1) for views in (descriptors0, descriptors1))
    return (cells1.mT @ cells0).float()


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """The Kullback-Leibler divergence from their softmax over dimension 1 to ours."""
    logs, targets = ours.float().log_softmax(dim=1), theirs.float().log_softmax(dim=1)
    return F.kl_div(logs, targets, reduction='none', log_target=True).sum(dim=1)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Over the values that count, by how much they do; 0 if none does."""
    return (values * counts).sum() / counts.sum().clamp(min=1e-6)
