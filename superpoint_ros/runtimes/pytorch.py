"""PyTorch: NVIDIA GPUs, and CPUs for comparison, from the .safetensors weights."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from superpoint_ros.decode import DecodeConfig, Decoded, Mask
from superpoint_ros.models import Model, checksum
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.decode import decoder_for
from superpoint_ros.runtimes import RuntimeConfig

logger = logging.getLogger(__name__)

TYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class TorchRuntime:
    """Runs a network in torch; see superpoint_ros.runtimes.Runtime. Decoding is on the device, too."""

    name = 'torch'

    def __init__(self, model: Model, config: RuntimeConfig) -> None:
        path = model.file('weights')
        self._device = _device(config.device)
        on_gpu = self._device.type == 'cuda'
        self.device = torch.cuda.get_device_name(self._device) if on_gpu else platform.processor() or str(self._device)
        self.precision = config.precision
        if config.precision == 'auto':
            self.precision = 'fp16' if on_gpu else 'fp32'
            logger.info('precision: %s (on %s)', self.precision, self.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        network = checkpoint.fold(checkpoint.load(path))
        self.checksum = checksum(path)
        self.descriptor_size = network.config.descriptor_size
        self._network = network.to(self._device, TYPES[self.precision], memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: Sequence[tuple[int, int]],
        config: DecodeConfig,
        masks: Sequence[Mask | None],
    ) -> list[Decoded]:
        outputs = self.infer(images)
        limits = torch.tensor(sizes, device=self._device)
        allowed = None
        if any(mask is not None for mask in masks):
            everything = np.ones(images.shape[1:], np.bool_)
            allowed = torch.from_numpy(np.stack([everything if m is None else m for m in masks])).to(self._device)
        decode, rounds, settled = decoder_for(outputs), 8, False
        while not settled:
            batch = decode(outputs, limits, config, allowed, rounds)
            parts = [batch.keypoints, batch.scores[..., None], batch.descriptors]
            results = torch.cat(parts, dim=-1).cpu().numpy()
            settled, rounds = bool(batch.settled.all()), rounds * 4
        return [_trim(result) for result in results]

    def infer(self, images: npt.NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """The network alone: its outputs for (B, H, W) images, by name, float32 on the device."""
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(self._device)[:, None].float() / 255
            pixels = pixels.to(TYPES[self.precision], memory_format=torch.channels_last)
            logits, descriptors = self._network(pixels)
            outputs = {'logits': logits.float()}
            return outputs | {'descriptors': descriptors.float()} if self.descriptor_size else outputs


def _trim(result: npt.NDArray[np.float32]) -> Decoded:
    """The keypoints of one image from rows of x, y, score, descriptor; no more keypoints where the score is 0."""
    result = result[: np.count_nonzero(result[:, 2])]
    return Decoded(result[:, :2].copy(), result[:, 2].copy(), result[:, 3:].copy())


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {name!r}: torch cannot use it ({reason})') from error
    return device
