"""PyTorch: NVIDIA GPUs, and CPUs for comparison, from the .safetensors weights."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from superpoint_ros.decode import DecodeConfig, Decoded, Mask
from superpoint_ros.models import Model, checksum
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.checkpoint import Network
from superpoint_ros.runtimes import RuntimeConfig, Watch
from superpoint_ros.runtimes.pipeline import Pipeline

logger = logging.getLogger(__name__)

TYPES = {'fp32': torch.float32, 'tf32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class TorchRuntime:
    """Runs a network in torch; see superpoint_ros.runtimes.Runtime. Decoding is on the device, too."""

    name = 'torch'

    def __init__(self, model: Model, config: RuntimeConfig, watch: Watch | None = None) -> None:  # noqa: ARG002
        path = model.file('weights')
        self._device = _device(config.device)
        on_gpu = self._device.type == 'cuda'
        self.device = torch.cuda.get_device_name(self._device) if on_gpu else platform.processor() or str(self._device)
        self.precision = config.precision
        if config.precision == 'auto':
            self.precision = 'fp16' if on_gpu else 'fp32'
            logger.info('precision: %s (on %s)', self.precision, self.device)
        if self.precision not in TYPES:
            raise ValueError(f'precision {self.precision}: back end torch has {", ".join(TYPES)}')
        if config.threads:
            torch.set_num_threads(config.threads)
        network = checkpoint.fold(checkpoint.load(path))
        self.checksum = checksum(path)
        self.descriptor_size = network.config.descriptor_size
        network = network.to(self._device, TYPES[self.precision]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._heads = partial(_heads, network, self.precision)
        self._pipeline = Pipeline(self._device)

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: Sequence[tuple[int, int]],
        config: DecodeConfig,
        masks: Sequence[Mask | None],
    ) -> list[Decoded]:
        return self._pipeline(lambda _: self._heads, images, sizes, config, masks)

    def infer(self, images: npt.NDArray[np.uint8]) -> Mapping[str, Tensor]:
        """The network alone: its outputs for (B, H, W) images, by name, float32 on the device."""
        with torch.inference_mode(), self._pipeline.on_stream():
            return self._heads(torch.from_numpy(images).to(self._device))


def _heads(network: Network, precision: str, images: Tensor) -> Mapping[str, Tensor]:
    pixels = (images[:, None].float() / 255).to(TYPES[precision], memory_format=torch.channels_last)
    # Images of one size come many times: it pays to time what cuDNN offers, once.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=precision == 'tf32'):
        return {name: output.float() for name, output in network(pixels).items()}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {name!r}: torch cannot use it ({reason})') from error
    return device
