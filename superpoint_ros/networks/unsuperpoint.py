"""UnSuperPoint (Christiansen, Kragh, Brodskiy, Karstoft 2019, arXiv 1907.04011): one point in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from superpoint_ros.networks.superpoint import check, head, vgg_encoder

SLOPE = 0.01
"""Slope of the leaky ReLU below 0."""

Norm = Literal['none', 'before_relu']


@dataclass(frozen=True)
class UnSuperPointConfig:
    """Configuration of an UnSuperPoint network; the defaults are the paper's.

    Args:
        channels: width of the four encoder stages, two convolutions each.
        head_channels: width of the hidden layer of each head.
        descriptor_size: length D of a descriptor.
        norm: batch norm before the activation (export folds it into the convolution), or none (after folding).
        stem_stride: as in SuperPointConfig; 1 is the paper's.
    """

    channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    head_channels: int = 256
    descriptor_size: int = 256
    norm: Norm = 'before_relu'
    stem_stride: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, 'channels', tuple(self.channels))  # JSON has lists
        check(self, get_args(Norm), least_descriptor=1)


class UnSuperPoint(nn.Module):
    """Maps (B, 1, H, W) gray images in [0, 1], H and W multiples of 8, to one point in each cell of 8×8 pixels.

    The paper samples the descriptors at the points inside the network. Here the decoder does, as for SuperPoint, so the
    graph has only convolutions.

    Returns from forward, by name:
        scores: (B, 1, H/8, W/8) in (0, 1).
        positions: (B, 2, H/8, W/8) in (0, 1): x and y of the point in its cell, from its left and upper edge.
        descriptors: (B, D, H/8, W/8), not normalized.
    """

    def __init__(self, config: UnSuperPointConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = vgg_encoder(self.config, SLOPE)
        self.score = head(self.config, 1, SLOPE)
        self.position = head(self.config, 2, SLOPE)
        self.descriptor = head(self.config, self.config.descriptor_size, SLOPE)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.encoder(image)
        return {
            'scores': self.score(features).sigmoid(),
            'positions': self.position(features).sigmoid(),
            'descriptors': self.descriptor(features),
        }
