"""Network and decoding on one device, back to back on one CUDA stream: only the keypoints leave it.

What the torch and TensorRT back ends share.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from superpoint_ros.decode import DecodeConfig, Decoded, Mask
from superpoint_ros.networks.decode import decoder_for

logger = logging.getLogger(__name__)

T = TypeVar('T')

Heads = Callable[[Tensor], Mapping[str, Tensor]]
"""A network for one shape of batch: (B, H, W) uint8 on the device to its float32 outputs, by name."""

Run = Callable[[], 'tuple[Mapping[str, Tensor], Tensor]']
"""Runs network and decoding on what was fed; gives the network's outputs and _Stage.decode's."""

ROUNDS = 8
"""Of non-maximum suppression, at first; photographs need three or four."""

WARM_UPS = 3
"""Calls before a capture, in which libraries choose their algorithms and take their workspaces."""

STAGES_KEPT = 4
"""Shapes and configurations for which memory and graph are kept."""


class Pipeline:
    """Runs and decodes batches of images.

    For each shape of batch, and each configuration, memory is taken once and the work is captured in a CUDA graph.

    Args:
        device: where the network is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Not the default stream: it can neither be captured nor does TensorRT run on it without waiting.
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        self._pool = torch.cuda.graph_pool_handle() if self._stream else None
        self._stages: dict[Any, tuple[_Stage, Run]] = {}

    @torch.inference_mode()
    def __call__(
        self,
        bind: Callable[[tuple[int, ...]], Heads],
        images: npt.NDArray[np.uint8],
        sizes: Sequence[tuple[int, int]],
        config: DecodeConfig,
        masks: Sequence[Mask | None],
    ) -> list[Decoded]:
        """Run and decode a batch.

        Args:
            bind: gives the network for a shape (B, H, W); called once for each.
            images: and all others as in superpoint_ros.runtimes.Runtime.
            sizes: ″
            config: ″
            masks: ″
        """
        masked = any(mask is not None for mask in masks)
        with self.on_stream():
            stage, run = self._stage(bind, images.shape, config, masked)
            stage.images.host.numpy()[:] = images
            stage.sizes.host.numpy()[:] = sizes
            if stage.masks:
                for row, mask in zip(stage.masks.host.numpy(), masks, strict=True):
                    row[:] = True if mask is None else mask
            for feed in (stage.images, stage.sizes, stage.masks):
                if feed:
                    feed.send()
            outputs, rows = run()
            result, rounds = self._fetch(rows), ROUNDS
            while not result[:, 0, 3].all():
                rounds *= 4
                result = self._fetch(stage.decode(outputs, rounds))
        return [_trim(image) for image in result]

    def on_stream(self) -> AbstractContextManager[Any]:
        """Makes the pipeline's stream, and its device, the current one; on a CPU nothing."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def _stage(
        self, bind: Callable[[tuple[int, ...]], Heads], shape: tuple[int, ...], config: DecodeConfig, masked: bool
    ) -> tuple[_Stage, Run]:
        key = (shape, config, masked)
        found = self._stages.pop(key, None)
        if found is None:
            stage = _Stage(bind(shape), shape, config, masked, self._device)
            # One pool for all graphs: never two of them run at once, and what they hand out is kept alive.
            found = stage, captured(stage, self._stream, self._pool) if self._stream else stage
        self._stages[key] = found  # the newest last
        while len(self._stages) > STAGES_KEPT:
            del self._stages[next(iter(self._stages))]
        return found

    def _fetch(self, rows: Tensor) -> npt.NDArray[np.float32]:
        if not self._stream:
            return rows.numpy()
        host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        host.copy_(rows, non_blocking=True)
        self._stream.synchronize()
        return host.numpy()


def captured(function: Callable[[], T], stream: torch.cuda.Stream, pool: Any = None) -> Callable[[], T]:
    """A CUDA graph of what a function does on the current stream; replaying it costs one launch.

    Args:
        function: takes its input from memory that stays where it is, and waits for nothing on the host.
        stream: the current stream, not the default one.
        pool: memory pool to share with other graphs (torch.cuda.graph_pool_handle()).

    Returns:
        a function that replays the graph and returns the tensors that `function` returned while it was captured, with
        new values in them; or `function` itself, and a warning in the log, if it cannot be captured.
    """
    for _ in range(WARM_UPS):
        function()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        # thread_local: other threads of the process may go on taking GPU memory meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode='thread_local'):
            result = function()
    except RuntimeError as error:
        logger.warning('no CUDA graph, running without: %s', str(error).partition('\n')[0])
        return function

    def replay() -> T:
        graph.replay()
        return result

    return replay


class _Feed:
    """Memory on the device that is filled through memory on the host; on a CPU both are one."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        # Zeros, because warm-ups run on it.
        self.tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.host = torch.empty(shape, dtype=dtype, pin_memory=True) if device.type == 'cuda' else self.tensor

    def send(self) -> None:
        if self.host is not self.tensor:
            self.tensor.copy_(self.host, non_blocking=True)


class _Stage:
    """Network and decoding for one shape of batch and one configuration, with their memory."""

    def __init__(
        self, heads: Heads, shape: tuple[int, ...], config: DecodeConfig, masked: bool, device: torch.device
    ) -> None:
        self._heads, self._config = heads, config
        self.images = _Feed(shape, torch.uint8, device)
        self.sizes = _Feed((shape[0], 2), torch.int64, device)
        self.masks = _Feed(shape, torch.bool, device) if masked else None

    def __call__(self) -> tuple[Mapping[str, Tensor], Tensor]:
        outputs = self._heads(self.images.tensor)
        return outputs, self.decode(outputs, ROUNDS)

    def decode(self, outputs: Mapping[str, Tensor], rounds: int) -> Tensor:
        """All that the host needs, in one tensor (B, K, 4 + D): x, y, score, settled, descriptor."""
        masks = self.masks.tensor if self.masks else None
        batch = decoder_for(outputs)(outputs, self.sizes.tensor, self._config, masks, rounds)
        settled = batch.settled[:, None, None].expand(-1, batch.scores.shape[1], 1)
        return torch.cat([batch.keypoints, batch.scores[..., None], settled, batch.descriptors], dim=-1)


def _trim(rows: npt.NDArray[np.float32]) -> Decoded:
    """The keypoints of one image; there are no more where the score is 0."""
    rows = rows[: np.count_nonzero(rows[:, 2])]
    return Decoded(rows[:, :2].copy(), rows[:, 2].copy(), rows[:, 4:].copy())
