"""SuperPoint (DeTone, Malisiewicz, Rabinovich 2018, arXiv 1712.07629) and MagicPoint, its detector alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from superpoint_ros.decode import CELL

if TYPE_CHECKING:
    from superpoint_ros.networks.unsuperpoint import UnSuperPointConfig


Norm = Literal['none', 'before_relu', 'after_relu']


@dataclass(frozen=True)
class SuperPointConfig:
    """Configuration of a SuperPoint network; the defaults are the paper's.

    Args:
        channels: width of the four encoder stages, two convolutions each.
        head_channels: width of the hidden layer of each head.
        descriptor_size: length D of a descriptor; 0 omits the descriptor head, which is MagicPoint.
        norm: batch norm before the ReLU (ours; export folds it into the convolution), after it (as in the TensorFlow
            re-implementation; it cannot be folded), or none (after folding, and in the original release).
        stem_stride: with 2, the first convolution halves the image instead of the first pooling, so that a small
            network does not spend its time at full resolution. 1 is the paper's.
    """

    channels: tuple[int, int, int, int] = (64, 64, 128, 128)
    head_channels: int = 256
    descriptor_size: int = 256
    norm: Norm = 'before_relu'
    stem_stride: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, 'channels', tuple(self.channels))  # JSON has lists
        check(self, get_args(Norm), least_descriptor=0)


class SuperPoint(nn.Module):
    """Maps (B, 1, H, W) gray images in [0, 1], H and W multiples of 8, to raw heads at 1/8 resolution.

    Returns from forward, by name:
        logits: (B, 65, H/8, W/8); channel 8·v + u is the pixel (u, v) of the cell, channel 64 the dustbin
            ("no interest point in this cell").
        descriptors: (B, D, H/8, W/8), not normalized; MagicPoint has none.
    """

    def __init__(self, config: SuperPointConfig) -> None:
        super().__init__()
        self.config = config
        size = self.config.descriptor_size
        self.encoder = vgg_encoder(self.config)
        self.detector = head(self.config, CELL * CELL + 1)
        self.descriptor = head(self.config, size) if size else None

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.encoder(image)
        outputs = {'logits': self.detector(features)}
        if self.descriptor is not None:
            outputs['descriptors'] = self.descriptor(features)
        return outputs


def score_map(logits: Tensor) -> Tensor:
    """Probability of a keypoint at each pixel, (B, H, W) float32, from logits (B, 65, H/8, W/8)."""
    return functional.pixel_shuffle(logits.float().softmax(dim=1)[:, :-1], CELL)[:, 0]


def vgg_encoder(config: SuperPointConfig | UnSuperPointConfig, slope: float = 0) -> nn.Sequential:
    """Four stages of two convolutions with poolings between them: (B, 1, H, W) to (B, C, H/8, W/8).

    With a stem_stride of 2, the first convolution halves the image and no pooling follows the first stage.
    """
    stages: list[nn.Module] = []
    for stage, (before, width) in enumerate(pairwise((1, *config.channels))):
        if stage >= config.stem_stride:
            stages.append(nn.MaxPool2d(2))
        stride = 1 if stage else config.stem_stride
        stages += [ConvBlock(before, width, config.norm, slope, stride), ConvBlock(width, width, config.norm, slope)]
    return nn.Sequential(*stages)


def head(config: SuperPointConfig | UnSuperPointConfig, outputs: int, slope: float = 0) -> nn.Sequential:
    """A head on the encoder: (B, C, H/8, W/8) to (B, outputs, H/8, W/8)."""
    hidden = ConvBlock(config.channels[-1], config.head_channels, config.norm, slope)
    return nn.Sequential(hidden, nn.Conv2d(config.head_channels, outputs, 1))


def check(config: SuperPointConfig | UnSuperPointConfig, norms: tuple[str, ...], least_descriptor: int) -> None:
    """Check a SuperPointConfig or UnSuperPointConfig.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """
    widths, size = (*config.channels, config.head_channels), config.descriptor_size
    if len(widths) != 5 or not all(type(width) is int and 1 <= width <= 4096 for width in widths):
        raise ValueError(f'channels, head_channels: expected 4 + 1 numbers from 1 to 4096, got {widths}')
    if type(size) is not int or not least_descriptor <= size <= 4096:
        raise ValueError(f'descriptor_size: expected a number from {least_descriptor} to 4096, got {size!r}')
    if config.norm not in norms:
        raise ValueError(f'norm: expected one of {", ".join(norms)}, got {config.norm!r}')
    if type(config.stem_stride) is not int or config.stem_stride not in (1, 2):
        raise ValueError(f'stem_stride: expected 1 or 2, got {config.stem_stride!r}')


class ConvBlock(nn.Sequential):
    """A 3×3 convolution, a ReLU (leaky with a slope), and batch norm where the configuration puts it."""

    def __init__(self, before: int, width: int, norm: Norm, slope: float = 0, stride: int = 1) -> None:
        super().__init__()
        self.add_module('conv', nn.Conv2d(before, width, 3, stride, padding=1, bias=norm != 'before_relu'))
        if norm == 'before_relu':
            self.add_module('norm', nn.BatchNorm2d(width))
        self.add_module('relu', nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True))
        if norm == 'after_relu':
            self.add_module('norm', nn.BatchNorm2d(width))
