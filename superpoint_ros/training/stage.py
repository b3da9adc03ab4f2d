"""The Lightning module of all stages of training: network, optimizer, schedule and averaged weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.checkpoint import Network
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.training.photometric import PhotometricConfig, augment, generators

Batch = dict[str, Tensor]

AVERAGING = 0.999
"""Share of the averaged weights that each step keeps (exponential moving average); less in the first steps."""


class Stage(lightning.LightningModule):
    """A network in training; each stage adds its loss.

    Args:
        network: the network to train.
        photometric: strength of the photometric changes.
        lr: highest learning rate.
        warmup: steps over which the learning rate rises to `lr`.
        cooldown: share of max_steps at the end over which the learning rate falls to zero along a cosine. Before that
            it is constant, so a run may still become longer or shorter.
        weight_decay: of AdamW.
        initial_weights: .safetensors file to start from; layers that the file does not have start at random.

    Attributes:
        average: the network with averaged weights, which is the result of the training.
    """

    def __init__(
        self,
        network: Network | LightGlue,
        photometric: PhotometricConfig,
        lr: float = 1e-3,
        warmup: int = 100,
        cooldown: float = 0.3,
        weight_decay: float = 0.0,
        initial_weights: Path | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.photometric, self.initial_weights = photometric, initial_weights
        self.lr, self.warmup, self.cooldown, self.weight_decay = lr, warmup, cooldown, weight_decay

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of the network for images (B, 1, H, W) in [0, 1], by name, as float32."""
        outputs = self.network(images.contiguous(memory_format=torch.channels_last))
        return {name: output.float() for name, output in outputs.items()}

    def pair(self, batch: Batch) -> tuple[Tensor, list[torch.Generator]]:
        """The two views of each pair with different photometric changes, and with their black borders.

        Returns:
            All first views, then all second views, (2·B, 1, H, W) in [0, 1]: the network takes them as one batch, so
            that batch norm does. And the random generator of each pair.
        """
        rngs = generators(batch['seed'])
        views = [augment(as_gray(batch[name]), self.photometric, rngs) for name in ('image', 'image1')]
        return torch.cat(views) * torch.cat(visible_of(batch)), rngs

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and figures to log."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:  # noqa: ARG002
        if self.initial_weights is not None and not self.trainer.ckpt_path:
            start_from(self.network, self.initial_weights)
            self.average.load_state_dict(self.network.state_dict())

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:  # noqa: ARG002 (Lightning passes it)
        loss, figures = self.loss(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f'step {self.global_step}: the loss is {loss.item()} ({figures}); '
                f'samples {batch["index"].tolist()} with seeds {batch["seed"].tolist()}'
            )
        self.log('loss', loss, prog_bar=True, sync_dist=True)
        self.log_dict({name: value.detach() for name, value in figures.items()})
        self.log('lr', self.lr * self.lr_factor(self.global_step))
        return loss

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        # Not by a scheduler: a checkpoint would bring back the lr of the piece before, which may have been another.
        for group in self.trainer.optimizers[0].param_groups:
            group |= {'lr': self.lr * self.lr_factor(self.global_step), 'weight_decay': self.weight_decay}
        super().optimizer_step(*args, **options)
        # Here rather than in on_train_batch_end, which comes after the checkpoint of the step.
        keep = min(AVERAGING, self.global_step / (self.global_step + 10))
        current = self.network.state_dict()
        for name, mean in self.average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(current[name], 1 - keep)

    def validation_step(self, batch: Batch, batch_index: int) -> None:  # noqa: ARG002
        _, figures = self.loss(batch)
        figures = {f'validation/{name}': value for name, value in figures.items()}
        self.log_dict(figures, batch_size=len(batch['index']), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), self.lr, weight_decay=self.weight_decay)

    def lr_factor(self, step: int) -> float:
        """Learning rate at a step as a share of `lr`: rises linearly, is constant, falls along a cosine to 0.

        It does not fall without max_steps, which are -1 then.
        """
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = min(1.0, max(0.0, 1 - step / self.trainer.max_steps) / max(1e-9, self.cooldown))
        return rise * 0.5 * (1 - math.cos(math.pi * left))


def visible_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The pixels (B, 1, H, W) bool of first and second views that are not black borders."""
    return batch['visible'], batch['visible1']


def as_gray(images: Tensor) -> Tensor:
    """Gray values in [0, 1] of uint8 images."""
    return images.float() / 255


def start_from(network: Network | LightGlue, path: Path) -> None:
    """Copy the weights of a file into the layers of a network that have the same names.

    A matcher's first layer is not copied where the descriptors have another size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has layers that the network lacks, or layers of other shapes.
    """
    load = checkpoint.load_matcher if isinstance(network, LightGlue) else checkpoint.load
    state, own = load(path).state_dict(), network.state_dict()
    if isinstance(network, LightGlue) and own['input.weight'].shape != state['input.weight'].shape:
        state = {name: tensor for name, tensor in state.items() if not name.startswith('input.')}
    unfit = [name for name, tensor in state.items() if name not in own or own[name].shape != tensor.shape]
    if unfit:
        raise ValueError(
            f'initial weights {path} do not fit the network {network.config}: the shapes of {len(unfit)} layers '
            f'differ, the first is {unfit[0]}'
        )
    network.load_state_dict(state, strict=False)
