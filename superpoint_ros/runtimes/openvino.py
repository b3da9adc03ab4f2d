"""OpenVINO: CPUs, Intel GPUs and NPUs, from the .onnx graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import properties

from superpoint_ros.models import QUANTIZED, Model, checksum
from superpoint_ros.runtimes import Arrays, MatcherRuntime, Runtime, RuntimeConfig, Watch, onnx_graph

logger = logging.getLogger(__name__)

TYPES = {'fp32': ov.Type.f32, 'bf16': ov.Type.bf16, 'fp16': ov.Type.f16}

MODES = {
    'latency': properties.hint.PerformanceMode.LATENCY,
    'throughput': properties.hint.PerformanceMode.THROUGHPUT,
}

SHAPES_KEPT = 8
"""Networks are compiled for the shapes of their inputs; the latest stay in memory."""


def load(model: Model, config: RuntimeConfig, watch: Watch) -> Runtime:  # noqa: ARG001
    """Load an image network from its graph; see superpoint_ros.runtimes.load."""
    path, graph = _choose_graph(model, config.precision)
    network = OpenVINONetwork(onnx_graph.with_heads(graph), config)
    weights = onnx_graph.checksum_of_weights(graph) or checksum(path)
    return Runtime('openvino', network, onnx_graph.descriptor_size(graph), weights)


def load_matcher(model: Model, config: RuntimeConfig, watch: Watch) -> MatcherRuntime:  # noqa: ARG001
    """Load a matcher from its graph; see superpoint_ros.runtimes.load_matcher."""
    graph, network_config = onnx_graph.read_matcher(model.file('graph'))
    return MatcherRuntime('openvino', OpenVINONetwork(graph, config), network_config)


class OpenVINONetwork:
    """Runs an ONNX graph; see superpoint_ros.runtimes.Network.

    Items are separate requests, not one batch: each uses all threads in turn, or for throughput several run at once,
    and they go on while the caller works on the outputs of an earlier one. On a CPU this is as fast as a batch, takes
    less memory, and a changing number of items needs no new compilation.
    """

    def __init__(self, graph: onnx_graph.Graph, config: RuntimeConfig) -> None:
        self._core = _core()
        self._graph = self._core.read_model(graph.SerializeToString())
        self._outputs = [output.any_name for output in self._graph.outputs]
        self._device = config.device or 'CPU'
        try:
            self.device = str(self._core.get_property(self._device, properties.device.full_name))
        except RuntimeError as error:
            available = ', '.join(self._core.available_devices)
            raise ValueError(f'device {self._device!r}: unknown to OpenVINO; available: {available}') from error
        # The rest of a quantized graph runs in float32: bf16 is not faster there.
        self.precision = onnx_graph.precision_of(graph)
        if self.precision != 'int8':
            self.precision = self._choose_precision(config.precision)
        self._settings: dict[Any, Any] = {
            properties.hint.performance_mode: MODES[config.performance],
            properties.hint.inference_precision: TYPES.get(self.precision, ov.Type.f32),
        }
        if not config.pinning:
            self._settings[properties.hint.enable_cpu_pinning] = False
        if config.threads:
            self._settings[properties.inference_num_threads] = config.threads
        self._requests = lru_cache(maxsize=SHAPES_KEPT)(self._compile)

    def __call__(self, items: Sequence[Arrays]) -> Iterator[Arrays]:
        requests = self._requests(tuple((name, array.shape) for name, array in items[0].items()))

        def start(index: int) -> None:
            inputs = {name: np.ascontiguousarray(array[None]) for name, array in items[index].items()}
            requests[index % len(requests)].start_async(inputs, share_inputs=True)

        try:
            for index in range(min(len(requests), len(items))):
                start(index)
            for index in range(len(items)):
                request = requests[index % len(requests)]
                request.wait()
                yield {name: request.get_tensor(name).data[0] for name in self._outputs}
                if index + len(requests) < len(items):
                    start(index + len(requests))
        finally:
            for request in requests:
                request.wait()

    def _compile(self, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> list[Any]:
        graph = self._graph.clone()
        graph.reshape({name: [1, *shape] for name, shape in shapes})
        compiled = self._core.compile_model(graph, self._device, self._settings)
        # At least two: one computes while the caller works on the outputs of the other.
        count = max(2, compiled.get_property(properties.optimal_number_of_infer_requests))
        return [compiled.create_infer_request() for _ in range(count)]

    def _choose_precision(self, asked: str) -> str:
        # OpenVINO's default is what the device computes natively: bf16 on a CPU only if it has the instructions,
        # although OpenVINO can emulate it on others.
        native = self._core.get_property(self._device, properties.hint.inference_precision)
        if asked == 'auto':
            precision = {ov.Type.bf16: 'bf16', ov.Type.f16: 'fp16'}.get(native, 'fp32')
            logger.info('precision: %s (native on %s)', precision, self.device)
            return precision
        capabilities = self._core.get_property(self._device, properties.device.capabilities)
        if asked.upper() not in capabilities:
            available = ', '.join(sorted(capabilities))
            raise ValueError(f'precision {asked}: not supported by {self.device}; available: {available}')
        return asked


def _choose_graph(model: Model, asked: str) -> tuple[Path, onnx_graph.Graph]:
    """The graph to run: for int8 or auto the quantized one, if there is one that was made from the same weights."""
    if asked == 'int8' and model.quantized is None and model.graph is not None:
        raise FileNotFoundError(
            f'precision int8: model {model.name} has no {model.graph.stem}{QUANTIZED}.onnx beside it; make it with: '
            f'superpoint quantize {model.graph}'
        )
    if asked not in ('int8', 'auto') or model.quantized is None:
        path = model.file('graph')
        return path, onnx_graph.read(path)
    quantized = onnx_graph.read(model.quantized)
    if model.graph is None or model.graph == model.quantized:
        return model.quantized, quantized
    graph = onnx_graph.read(model.graph)
    if onnx_graph.checksum_of_weights(graph) == onnx_graph.checksum_of_weights(quantized):
        if asked == 'auto':
            logger.info('precision: int8 (from %s)', model.quantized.name)
        return model.quantized, quantized
    reason = f'{model.quantized}: made from other weights than {model.graph.name}; quantize the graph again'
    if asked == 'int8':
        raise ValueError(reason)
    logger.warning('%s; continuing without int8', reason)
    return model.graph, graph


@cache
def _core() -> ov.Core:
    """The only Core of this process.

    With its CPU plugin each Core gives its thread another stack for signals and at its end restores the former one,
    which an earlier Core may have freed by then: the next signal, such as Ctrl-C, would be a segmentation fault.
    """
    return ov.Core()
