"""OpenVINO: CPUs, Intel GPUs and NPUs, from the .onnx graph."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino import properties
from openvino.preprocess import PrePostProcessor

from superpoint_ros.decode import CELL, CHANNELS, DecodeConfig, Decoded, Mask, decoder_for
from superpoint_ros.features import Floats
from superpoint_ros.models import QUANTIZED, Model, checksum
from superpoint_ros.runtimes import RuntimeConfig, Watch

logger = logging.getLogger(__name__)

TYPES = {'fp32': ov.Type.f32, 'bf16': ov.Type.bf16, 'fp16': ov.Type.f16}

MODES = {
    'latency': properties.hint.PerformanceMode.LATENCY,
    'throughput': properties.hint.PerformanceMode.THROUGHPUT,
}

SIZES_KEPT = 8
"""Networks are compiled for one image size; this many stay in memory."""


class OpenVINORuntime:
    """Runs an .onnx graph; see superpoint_ros.runtimes.Runtime.

    Images of a batch are requests of their own: one after the other, each on all threads, or for throughput several at
    once; and one is decoded while the next ones run. On a CPU that is as fast as a true batch, takes less memory, and a
    changing number of cameras needs no new compilation.
    """

    name = 'openvino'

    def __init__(self, model: Model, config: RuntimeConfig, watch: Watch | None = None) -> None:  # noqa: ARG002
        self._core = _core()
        path, self._graph = self._choose_graph(model, config.precision)
        channels = {output.any_name: output.partial_shape[1].get_length() for output in self._graph.outputs}
        self.decode = decoder_for(channels)
        self.descriptor_size = channels.get('descriptors', 0)
        if 'logits' in channels:
            _end_in_score_map(self._graph)
        self._outputs = [output.any_name for output in self._graph.outputs]
        self.checksum = _checksum_of_weights(self._graph) or checksum(path)
        self._device = config.device or 'CPU'
        try:
            self.device = str(self._core.get_property(self._device, properties.device.full_name))
        except RuntimeError as error:
            there = ', '.join(self._core.available_devices)
            raise ValueError(f'device {self._device!r}: OpenVINO does not know it; it sees {there}') from error
        # In a quantized graph only what is not quantized is left to choose, and in float32 that is as fast.
        self.precision = 'int8' if _is_quantized(self._graph) else self._choose_precision(config.precision)
        self._settings: dict[Any, Any] = {
            properties.hint.performance_mode: MODES[config.performance],
            properties.hint.inference_precision: TYPES.get(self.precision, ov.Type.f32),
        }
        if not config.pinning:
            self._settings[properties.hint.enable_cpu_pinning] = False
        if config.threads:
            self._settings[properties.inference_num_threads] = config.threads
        self._requests = lru_cache(maxsize=SIZES_KEPT)(self._compile)

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: Sequence[tuple[int, int]],
        config: DecodeConfig,
        masks: Sequence[Mask | None],
    ) -> list[Decoded]:
        with closing(self.infer(images)) as outputs:
            return [
                self.decode(heads, size, config, mask) for heads, size, mask in zip(outputs, sizes, masks, strict=True)
            ]

    def infer(self, images: npt.NDArray[np.uint8]) -> Generator[dict[str, Floats], None, None]:
        """The network alone: for each of (B, H, W) images its outputs by name, valid until the next are asked for.

        Instead of logits it gives `score_map`, (H, W), as superpoint_ros.decode.score_map makes it of them.
        """
        requests = self._requests(*images.shape[1:])
        try:
            for request, image in zip(requests, images, strict=False):
                request.start_async([image[None, None]], share_inputs=True)
            for index in range(len(images)):
                request = requests[index % len(requests)]
                request.wait()
                # The largest output comes channels last: as the network computes it, and as descriptors are read.
                yield {
                    name: tensor.transpose(2, 0, 1) if name == 'descriptors' else tensor
                    for name, tensor in ((name, request.get_tensor(name).data[0]) for name in self._outputs)
                }
                if index + len(requests) < len(images):
                    request.start_async([images[None, None, index + len(requests)]], share_inputs=True)
        finally:
            for request in requests:
                request.wait()

    def _compile(self, height: int, width: int) -> list[Any]:
        graph = self._graph.clone()
        graph.reshape([1, 1, height, width])
        steps = PrePostProcessor(graph)
        steps.input().tensor().set_element_type(ov.Type.u8)
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        if self.descriptor_size:
            steps.output('descriptors').model().set_layout(ov.Layout('NCHW'))
            steps.output('descriptors').tensor().set_layout(ov.Layout('NHWC'))
        compiled = self._core.compile_model(steps.build(), self._device, self._settings)
        # Two at least: the threads go on with one while the other is decoded.
        return [
            compiled.create_infer_request()
            for _ in range(max(2, compiled.get_property(properties.optimal_number_of_infer_requests)))
        ]

    def _choose_graph(self, model: Model, asked: str) -> tuple[Path, ov.Model]:
        """The graph to run: for int8, or auto, the quantized one, if there is one made from the same weights."""
        if asked == 'int8' and model.quantized is None and model.graph is not None:
            raise FileNotFoundError(
                f'precision int8: model {model.name} has no {model.graph.stem}{QUANTIZED}.onnx beside it; make it '
                f'with: superpoint quantize {model.graph}'
            )
        if asked in ('int8', 'auto') and model.quantized is not None:
            quantized = _read(self._core, model.quantized)
            if model.graph is None or model.graph == model.quantized:
                return model.quantized, quantized
            graph = _read(self._core, model.graph)
            if _checksum_of_weights(graph) == _checksum_of_weights(quantized):
                if asked == 'auto':
                    logger.info('precision: int8 (%s is there)', model.quantized.name)
                return model.quantized, quantized
            reason = f'{model.quantized}: made from other weights than {model.graph.name}; make it anew'
            if asked == 'int8':
                raise ValueError(reason)
            logger.warning('%s; going on without int8', reason)
            return model.graph, graph
        path = model.file('graph')
        return path, _read(self._core, path)

    def _choose_precision(self, asked: str) -> str:
        # What OpenVINO takes by itself is what the device computes natively: bf16 on a CPU only where it has the
        # instructions, although it could emulate it on others.
        native = self._core.get_property(self._device, properties.hint.inference_precision)
        if asked == 'auto':
            precision = {ov.Type.bf16: 'bf16', ov.Type.f16: 'fp16'}.get(native, 'fp32')
            logger.info('precision: %s (native on %s)', precision, self.device)
            return precision
        capabilities = self._core.get_property(self._device, properties.device.capabilities)
        if asked.upper() not in capabilities:
            raise ValueError(f'precision {asked}: {self.device} has not got it, only {", ".join(sorted(capabilities))}')
        return asked


@cache
def _core() -> ov.Core:
    """The one of this process, which it keeps.

    With its CPU plugin each Core gives its thread another stack for signals and at its end puts the former one back,
    which an earlier Core may have freed by then: the next signal, such as Ctrl-C, would be a segmentation fault.
    """
    return ov.Core()


def _read(core: ov.Core, path: Path) -> ov.Model:
    """Read a graph and check that it is one of ours.

    Raises:
        ValueError: it is broken, or takes or gives something else.
    """
    try:
        graph = core.read_model(path)
    except RuntimeError as error:
        raise ValueError(f'{path}: not a complete .onnx file') from error
    expected = ov.PartialShape([-1, 1, -1, -1])
    inputs = [node.partial_shape for node in graph.inputs]
    if inputs != [expected]:
        raise ValueError(
            f'{path}: expected one input of shape {expected}, found {", ".join(map(str, inputs)) or "none"}'
        )
    shapes = {output.any_name: output.partial_shape for output in graph.outputs}
    try:
        decoder_for(shapes)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    for name, shape in shapes.items():
        channels = ov.Dimension(CHANNELS[name]) if name in CHANNELS else ov.Dimension(1, 4096)
        if len(shape) != 4 or shape[1].is_dynamic or not channels.compatible(shape[1]):
            raise ValueError(f'{path}: output {name}: expected shape [?,{channels},?,?], found {shape}')
    return graph


def _end_in_score_map(graph: ov.Model) -> None:
    """Let a graph give `score_map` instead of `logits`; on all threads this takes a tenth of the time of NumPy."""
    output = graph.output('logits')
    result = output.node
    probabilities = ops.softmax(result.input_value(0), 1)
    pixels = ops.slice(probabilities, [0], [CELL * CELL], [1], [1])  # no dustbin
    scores = ops.squeeze(ops.depth_to_space(pixels, 'blocks_first', CELL), [1])
    result.input(0).replace_source_output(scores.output(0))
    output.set_names({'score_map'})
    graph.validate_nodes_and_infer_types()


def _is_quantized(graph: ov.Model) -> bool:
    return any(node.get_type_name() == 'FakeQuantize' for node in graph.get_ops())


def _checksum_of_weights(graph: ov.Model) -> str:
    """What `superpoint export` noted in the graph's metadata; empty if it was made by another tool."""
    path = ['framework', 'checksum']
    return str(graph.get_rt_info(path).value) if graph.has_rt_info(path) else ''
