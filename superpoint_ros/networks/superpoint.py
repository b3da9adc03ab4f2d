"""SuperPoint (DeTone, Malisiewicz, Rabinovich 2018, arXiv 1712.07629) and MagicPoint, its detector alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

CELL = 8
"""Side in pixels of the cells that the two heads work on: three poolings halve the image three times."""

Norm = Literal['none', 'before_relu', 'after_relu']


@dataclass(frozen=True)
class SuperPointConfig:
    """Shape of a SuperPoint network; the defaults are the paper's.

    Args:
        channels: width of the four encoder stages, two convolutions each.
        head_channels: width of the hidden layer of each head.
        descriptor_size: length D of a descriptor; 0 leaves the descriptor head out, which is MagicPoint.
        norm: batch norm before the ReLU (ours, folded into the convolution on export), after it (how the TensorFlow
            re-implementation was trained; it cannot be folded), or none (folded, and the original release).
    """

    channels: tuple[int, int, int, int] = (64, 64, 128, 128)
    head_channels: int = 256
    descriptor_size: int = 256
    norm: Norm = 'before_relu'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'channels', tuple(self.channels))  # JSON has lists
        widths = (*self.channels, self.head_channels, self.descriptor_size)
        if len(self.channels) != 4 or not all(type(width) is int and 1 <= width <= 4096 for width in widths[:-1]):
            raise ValueError(f'channels, head_channels: expected 4 + 1 numbers from 1 to 4096, got {widths[:-1]}')
        if type(self.descriptor_size) is not int or not 0 <= self.descriptor_size <= 4096:
            raise ValueError(f'descriptor_size: expected a number from 0 to 4096, got {self.descriptor_size!r}')
        if self.norm not in get_args(Norm):
            raise ValueError(f'norm: expected one of {", ".join(get_args(Norm))}, got {self.norm!r}')


class SuperPoint(nn.Module):
    """Maps (B, 1, H, W) grey images in [0, 1], H and W multiples of 8, to raw heads at 1/8 resolution.

    Returns from forward, by name:
        logits: (B, 65, H/8, W/8); channel 8·v + u is the pixel (u, v) of the cell, channel 64 the dustbin
            ("no interest point in this cell").
        descriptors: (B, D, H/8, W/8), not normalised; MagicPoint has none.
    """

    def __init__(self, config: SuperPointConfig | None = None) -> None:
        super().__init__()
        self.config = config or SuperPointConfig()
        widths, hidden, norm = (1, *self.config.channels), self.config.head_channels, self.config.norm
        stages: list[nn.Module] = []
        for stage, (before, width) in enumerate(pairwise(widths)):
            if stage:
                stages.append(nn.MaxPool2d(2))
            stages += [ConvBlock(before, width, norm), ConvBlock(width, width, norm)]
        self.encoder = nn.Sequential(*stages)
        self.detector = nn.Sequential(ConvBlock(widths[-1], hidden, norm), nn.Conv2d(hidden, CELL * CELL + 1, 1))
        self.descriptor: nn.Module | None = None
        if self.config.descriptor_size:
            self.descriptor = nn.Sequential(
                ConvBlock(widths[-1], hidden, norm), nn.Conv2d(hidden, self.config.descriptor_size, 1)
            )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.encoder(image)
        outputs = {'logits': self.detector(features)}
        if self.descriptor is not None:
            outputs['descriptors'] = self.descriptor(features)
        return outputs


class ConvBlock(nn.Sequential):
    """A 3×3 convolution, ReLU, and batch norm where the configuration puts it."""

    def __init__(self, before: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.add_module('conv', nn.Conv2d(before, width, 3, padding=1, bias=norm != 'before_relu'))
        if norm == 'before_relu':
            self.add_module('norm', nn.BatchNorm2d(width))
        self.add_module('relu', nn.ReLU(inplace=True))
        if norm == 'after_relu':
            self.add_module('norm', nn.BatchNorm2d(width))
