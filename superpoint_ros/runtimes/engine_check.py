"""Does an engine give what the network gives? Engines have been miscompiled: finite and wrong, or not finite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from superpoint_ros.networks.superpoint import score_map
from superpoint_ros.runtimes.engine_cache import EngineError

Heads = Callable[[Tensor], Mapping[str, Tensor]]

logger = logging.getLogger(__name__)

AGREEMENT = {'fp32': 0.999, 'tf32': 0.999, 'fp16': 0.98, 'bf16': 0.95, 'int8': 0.8}
"""Correlation that the maps of scores and of descriptors of engine and network must reach."""


def check_agreement(
    heads: Heads, network: nn.Module | None, shape: tuple[int, ...], precision: str, device: torch.device
) -> None:
    """Run an engine and the network in torch on one picture with corners and compare.

    Args:
        heads: the engine.
        network: networks.SuperPoint in float32; None if there are no weights: then outputs need only be finite.
        shape: (B, H, W) that the engine takes.
        precision: of the engine.
        device: of the engine; the network is moved there.

    Raises:
        EngineError: they differ; the message says by how much.
    """
    images = torch.from_numpy(picture(shape)).to(device)
    outputs = heads(images)
    for name, tensor in outputs.items():
        if not bool(tensor.isfinite().all()):
            raise EngineError(f'the TensorRT engine gives {name} that are not finite; {_cure(precision)}')
    if network is None:
        logger.warning('the model has no .safetensors file; whether the engine agrees with it was not checked')
        return
    expected = _comparable(network.to(device)(images[:, None].float() / 255))
    agreement = {name: _correlation(found, expected[name]) for name, found in _comparable(outputs).items()}
    text = ', '.join(f'{name} {value:.4f}' for name, value in agreement.items())
    if not min(agreement.values()) >= AGREEMENT[precision]:
        raise EngineError(
            f'the TensorRT engine ({precision}) disagrees with the network: correlation of {text}, expected '
            f'{AGREEMENT[precision]}; {_cure(precision)}'
        )
    logger.info('the TensorRT engine agrees with the network: correlation of %s', text)


def picture(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images (B, H, W) of squares of random grays, the same each time."""
    batch, height, width = shape
    squares = np.random.default_rng(0).integers(64, 192, (batch, -(-height // 20), -(-width // 20)), np.uint8)
    return squares.repeat(20, axis=1).repeat(20, axis=2)[:, :height, :width].copy()


def _comparable(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of logits only the scores matter that they give."""
    return {
        'scores' if name == 'logits' else name: score_map(output)[:, None] if name == 'logits' else output
        for name, output in outputs.items()
    }


def _correlation(found: Tensor, expected: Tensor) -> float:
    """Cosine of maps (B, C, H, W) less the mean of each channel: what is the same everywhere tells nothing."""
    mean = expected.mean(dim=(2, 3), keepdim=True)
    return float(F.cosine_similarity((found - mean).double().flatten(), (expected - mean).double().flatten(), dim=0))


def _cure(precision: str) -> str:
    others = [other for other in ('fp16', 'fp32') if other != precision]
    return f'try precision {" or ".join(others)}, or the back end torch'
