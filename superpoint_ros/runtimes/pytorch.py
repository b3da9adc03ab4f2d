"""PyTorch: NVIDIA GPUs, and CPUs for comparison, from the .safetensors weights."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from superpoint_ros.models import Model, checksum
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import score_map
from superpoint_ros.runtimes import Arrays, MatcherRuntime, Runtime, RuntimeConfig, Watch

logger = logging.getLogger(__name__)

TYPES = {'fp32': torch.float32, 'tf32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def load(model: Model, config: RuntimeConfig, watch: Watch) -> Runtime:  # noqa: ARG001
    """Load an image network from its weights; see superpoint_ros.runtimes.load."""
    path = model.file('weights')
    network = checkpoint.fold(checkpoint.load(path))
    size = network.config.descriptor_size
    return Runtime('torch', TorchNetwork(ImageNetwork(network), config), size, checksum(path))


def load_matcher(model: Model, config: RuntimeConfig, watch: Watch) -> MatcherRuntime:  # noqa: ARG001
    """Load a matcher from its weights; see superpoint_ros.runtimes.load_matcher."""
    network = checkpoint.load_matcher(model.file('weights'))
    return MatcherRuntime('torch', TorchNetwork(network, config), network.config)


class TorchNetwork:
    """Runs a module whose forward takes and returns named tensors; see superpoint_ros.runtimes.Network."""

    def __init__(self, module: nn.Module, config: RuntimeConfig) -> None:
        self._device = find_device(config.device)
        on_gpu = self._device.type == 'cuda'
        self.device = torch.cuda.get_device_name(self._device) if on_gpu else platform.processor() or str(self._device)
        self.precision = config.precision
        if config.precision == 'auto':
            self.precision = 'fp16' if on_gpu else 'fp32'
            logger.info('precision: %s (on %s)', self.precision, self.device)
        if self.precision not in TYPES:
            raise ValueError(
                f'precision {self.precision}: not supported by back end torch; available: {", ".join(TYPES)}'
            )
        if config.threads:
            torch.set_num_threads(config.threads)
        self._module = module.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def keep(self, shapes: int) -> None:
        """Nothing to do: the network takes all shapes."""

    def __call__(self, items: Sequence[Arrays]) -> Iterator[Arrays]:
        batch = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}
        kind = TYPES[self.precision]
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, kind, enabled=kind != torch.float32),
            # Images of one size arrive many times, so timing cuDNN's algorithms once pays off.
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=self.precision == 'tf32'),
        ):
            outputs = self._module(**{name: tensor.to(self._device) for name, tensor in batch.items()})
            host = {name: tensor.float().cpu().numpy() for name, tensor in outputs.items()}
        for index in range(len(items)):
            yield {name: array[index] for name, array in host.items()}


class ImageNetwork(nn.Module):
    """A network of networks.checkpoint, from (B, 1, H, W) uint8 images to heads for superpoint_ros.decode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        heads = dict(self.network((image.float() / 255).to(memory_format=torch.channels_last)))
        if 'logits' in heads:
            heads['score_map'] = score_map(heads.pop('logits'))
        if 'descriptors' in heads:
            heads['descriptors'] = heads['descriptors'].permute(0, 2, 3, 1)
        return heads


def find_device(name: str) -> torch.device:
    """The torch device of this name; without a name, a CUDA GPU if there is one.

    Raises:
        ValueError: torch cannot use it.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {name!r}: torch cannot use it ({reason})') from error
    return device
