"""OpenVINO: CPUs, Intel GPUs and NPUs, from the .onnx graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import properties
from openvino.preprocess import PrePostProcessor

from superpoint_ros.decode import DECODERS, DecodeConfig, Decoded, Mask
from superpoint_ros.features import Floats
from superpoint_ros.models import Model, checksum
from superpoint_ros.runtimes import RuntimeConfig


class OpenVINORuntime:
    """Runs an .onnx graph; see superpoint_ros.runtimes.Runtime."""

    name = 'openvino'

    def __init__(self, model: Model, config: RuntimeConfig) -> None:
        path = model.file('graph')
        core = ov.Core()
        self._core = core
        device = config.device or 'CPU'
        self._graph = core.read_model(path)
        self._device = device
        self.device = core.get_property(device, properties.device.full_name)
        self.precision = 'fp32'
        self.checksum = checksum(path)
        names = [o.any_name for o in self._graph.outputs]
        self._outputs = names
        self.descriptor_size = (
            self._graph.output('descriptors').partial_shape[1].get_length() if 'descriptors' in names else 0
        )
        self._decode = DECODERS['superpoint']
        self._options: dict[Any, Any] = {
            properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
            properties.hint.inference_precision: ov.Type.f32,
        }
        if config.threads:
            self._options[properties.inference_num_threads] = config.threads
        self._compiled = lru_cache(maxsize=8)(self._compile)

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: Sequence[tuple[int, int]],
        config: DecodeConfig,
        masks: Sequence[Mask | None],
    ) -> list[Decoded]:
        outputs = self.infer(images)
        return [
            self._decode({name: output[i] for name, output in outputs.items()}, size, config, mask)
            for i, (size, mask) in enumerate(zip(sizes, masks))
        ]

    def infer(self, images: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """The network alone: its outputs for (B, H, W) images, by name. Valid until the next call."""
        request = self._compiled(images.shape)
        request.infer([images[:, None]], share_inputs=True)
        return {name: request.get_tensor(name).data for name in self._outputs}

    def _compile(self, shape: tuple[int, int, int]) -> Any:
        batch, height, width = shape
        graph = self._graph.clone()
        graph.reshape([batch, 1, height, width])
        steps = PrePostProcessor(graph)
        steps.input().tensor().set_element_type(ov.Type.u8)
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        return self._core.compile_model(steps.build(), self._device, self._options).create_infer_request()
