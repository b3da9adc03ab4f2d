"""Photometric augmentation in batches on the device: motion blur, shade, contrast, brightness, speckle and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PhotometricConfig:
    """How strong each change is at most; of gray values in [0, 1]. Every image draws its own strengths, uniformly.

    Args:
        motion_blur: length of the path that the camera moves while the shutter is open, in pixels, at most 8.
        shade: how much softly edged patches are darkened or brightened, as a part of their gray.
        contrast: the distance to the image's mean gray is multiplied by 1 plus or minus this.
        brightness: gray values are shifted by plus or minus this.
        speckle: standard deviation of noise that is proportional to the gray value.
        noise: standard deviation of additive Gaussian noise.
        dropout: part of the pixels that become black or white.
    """

    motion_blur: float = 5.0
    shade: float = 0.4
    contrast: float = 0.5
    brightness: float = 0.2
    speckle: float = 0.08
    noise: float = 0.06
    dropout: float = 0.003


BLUR_SIZE = 9
SHADE_GRID = 4


def augment(images: Tensor, config: PhotometricConfig, rngs: Sequence[torch.Generator]) -> Tensor:
    """Change images as cameras and light do.

    Args:
        images: (B, 1, H, W) in [0, 1].
        config: how strong.
        rngs: B generators on the images' device, one per image, so that an image's fate does not depend on the batch
            that it is in.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    height, width = images.shape[-2:]
    options: dict[str, Any] = {'dtype': images.dtype, 'device': images.device}
    strengths = torch.stack([torch.rand(8, generator=rng, **options) for rng in rngs]).T[..., None, None, None]
    blur, angle, shade, contrast, brightness, speckle, noise, dropout = strengths
    patches = torch.stack([torch.randn(1, SHADE_GRID, SHADE_GRID, generator=rng, **options) for rng in rngs])
    grain = torch.stack([torch.randn(2, height, width, generator=rng, **options) for rng in rngs])
    chance = torch.stack([torch.rand(1, height, width, generator=rng, **options) for rng in rngs])

    images = blur_along(images, (blur * config.motion_blur).flatten(), (angle * torch.pi).flatten())
    patches = F.interpolate(patches, (height, width), mode='bicubic', align_corners=False).tanh()
    images = images * (1 + shade * config.shade * patches)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + config.contrast * (2 * contrast - 1))
    images = images + config.brightness * (2 * brightness - 1)
    images = images * (1 + speckle * config.speckle * grain[:, :1]) + noise * config.noise * grain[:, 1:]
    share = dropout * config.dropout / 2
    images = torch.where(chance < share, 0.0, torch.where(chance > 1 - share, 1.0, images))
    return images.clamp(0, 1)


def blur_along(images: Tensor, lengths: Tensor, angles: Tensor) -> Tensor:
    """Blur each image along a straight path whose middle stays in place.

    Args:
        images: (B, 1, H, W).
        lengths: (B,), pixels, at most BLUR_SIZE − 1.
        angles: (B,), radians.
    """
    reach = BLUR_SIZE // 2
    steps = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    path = torch.linspace(-0.5, 0.5, 2 * BLUR_SIZE, dtype=images.dtype, device=images.device) * lengths[:, None]
    # (B, T, BLUR_SIZE): how much of the image lies in each column, and row, at each moment; bilinear.
    columns = (1 - (steps - (path * angles.cos()[:, None])[..., None]).abs()).clamp(min=0)
    rows = (1 - (steps - (path * angles.sin()[:, None])[..., None]).abs()).clamp(min=0)
    kernels = rows.mT @ columns / path.shape[1]
    padded = F.pad(images.transpose(0, 1), (reach,) * 4, mode='reflect')
    return F.conv2d(padded, kernels[:, None], groups=len(images)).transpose(0, 1)


def generators(seeds: Tensor) -> list[torch.Generator]:
    """A generator on the seeds' device for each of (B,) int64 seeds."""
    return [torch.Generator(seeds.device).manual_seed(seed) for seed in seeds.tolist()]
