"""What all stages of training share as Lightning modules: a network, its optimizer, a loss that must stay finite."""

from __future__ import annotations

import math
from pathlib import Path

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.checkpoint import Network
from superpoint_ros.training.homography import valid_mask, warp_images, warp_points
from superpoint_ros.training.photometric import PhotometricConfig

Batch = dict[str, Tensor]


class Stage(lightning.LightningModule):
    """A network in training; each stage adds its loss.

    Args:
        network: what is trained.
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
        network: Network,
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
        raise NotImplementedError

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
        _, figures = self.loss(batch)
        figures = {f'validation/{name}': value for name, value in figures.items()}
        self.log_dict(figures, batch_size=len(batch['image']), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.network.parameters(), self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}

    def lr_factor(self, step: int) -> float:
        """Rise in a line to 1, stay there, fall along a cosine to 0 at max_steps."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = min(1.0, max(0.0, 1 - step / self.trainer.max_steps) / max(1e-9, self.cooldown))
        return rise * 0.5 * (1 - math.cos(math.pi * left))


def as_gray(images: Tensor) -> Tensor:
    """Gray values in [0, 1] from uint8."""
    return images.float() / 255


def warped(images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The images and the batch's points, warped by its homographies, and which pixels are then valid."""
    width, height = images.shape[-1], images.shape[-2]
    points = warp_points(batch['points'], batch['homography']).float()
    return warp_images(images, batch['homography']), points, valid_mask(batch['homography'], (width, height), 2)


def start_from(network: Network, path: Path) -> None:
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
