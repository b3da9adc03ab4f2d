"""Photometric augmentation in batches on the device: blur, shade, contrast, brightness, gamma, vignette and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR_SIZE = 9
SHADE_GRID = 4


@dataclass(frozen=True)
class PhotometricConfig:
    """Greatest strength of each change, of gray values in [0, 1]; every image draws its own strengths uniformly.

    Args:
        motion_blur: length of the camera's path during the exposure in pixels, at most 8.
        shade: change of the gray value in softly edged patches, as a part of it.
        contrast: change of the distance to the mean gray value, as a part of it.
        brightness: shift of the gray values.
        speckle: standard deviation of noise, as a part of the gray value.
        noise: standard deviation of additive Gaussian noise.
        dropout: share of the pixels that become black or white.
        gamma: logarithm to the base 2 of the exponent of the gray values.
        vignette: darkening of the corners, as a part of the gray value.
    """

    motion_blur: float = 5.0
    shade: float = 0.4
    contrast: float = 0.5
    brightness: float = 0.2
    speckle: float = 0.08
    noise: float = 0.06
    dropout: float = 0.003
    gamma: float = 0.7
    vignette: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.motion_blur <= BLUR_SIZE - 1:
            raise ValueError(f'motion_blur: expected 0 to {BLUR_SIZE - 1} pixels, got {self.motion_blur}')


def augment(images: Tensor, config: PhotometricConfig, rngs: Sequence[torch.Generator]) -> Tensor:
    """Change images (B, 1, H, W) in [0, 1] as cameras and light do.

    Each image has its own random generator, on its device, so that the result does not depend on the batch.
    """
    height, width = images.shape[-2:]
    options: dict[str, Any] = {'dtype': images.dtype, 'device': images.device}
    strengths = torch.stack([torch.rand(12, generator=rng, **options) for rng in rngs]).T[..., None, None, None]
    blur, angle, shade, contrast, brightness, speckle, noise, dropout, gamma, vignette, *middle = strengths
    patches = torch.stack([torch.randn(1, SHADE_GRID, SHADE_GRID, generator=rng, **options) for rng in rngs])
    grain = torch.stack([torch.randn(1, height, width, generator=rng, **options) for rng in rngs])

    images = blur_along(images, (blur * config.motion_blur).flatten(), (angle * torch.pi).flatten())
    if config.gamma:
        images = images.clamp(min=1e-4) ** torch.exp2(config.gamma * (2 * gamma - 1))
    patches = F.interpolate(patches, (height, width), mode='bicubic', align_corners=False).tanh()
    x, y = (torch.linspace(-1, 1, side, **options) for side in (width, height))
    far = (x - middle[0] + 0.5) ** 2 + (y[:, None] - middle[1] + 0.5) ** 2
    images = images * ((1 + shade * config.shade * patches) * (1 - vignette * config.vignette * (far / 2).clamp(max=1)))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + config.contrast * (2 * contrast - 1))
    images = images + config.brightness * (2 * brightness - 1)
    images = images + grain * torch.hypot(images * (speckle * config.speckle), noise * config.noise)
    # The pixels where the noise is strongest become black and white.
    limit = torch.special.ndtri(1 - dropout * config.dropout / 2)
    images = torch.where(grain.abs() > limit, (grain > 0).to(images.dtype), images)
    return images.clamp(0, 1)


def blur_along(images: Tensor, lengths: Tensor, angles: Tensor) -> Tensor:
    """Blur images (B, 1, H, W) along straight paths centered at each pixel.

    Lengths (B,) are at most BLUR_SIZE − 1 pixels, angles (B,) in radians.
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
