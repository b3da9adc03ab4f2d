"""OpenVINO: CPUs, Intel GPUs and NPUs, from the .onnx graph."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino import properties
from openvino.frontend import FrontEndManager
from openvino.preprocess import PrePostProcessor

from superpoint_ros.decode import CELL
from superpoint_ros.models import QUANTIZED, Model
from superpoint_ros.runtimes import PRECISIONS, Arrays, MatcherRuntime, Runtime, RuntimeConfig, Watch
from superpoint_ros.runtimes.graph_info import GraphInfo, Shape

logger = logging.getLogger(__name__)

TYPES = {'fp32': ov.Type.f32, 'bf16': ov.Type.bf16, 'fp16': ov.Type.f16}

MODES = {
    'latency': properties.hint.PerformanceMode.LATENCY,
    'throughput': properties.hint.PerformanceMode.THROUGHPUT,
}

SHAPES_KEPT = 8
"""Least number of compiled networks, each for other shapes of inputs, that stay in memory."""


def load(model: Model, config: RuntimeConfig, watch: Watch) -> Runtime:  # noqa: ARG001
    """Load an image network from its graph; see superpoint_ros.runtimes.load."""
    graph, info = _choose_graph(model, config.precision)

    def shapes_for(height: int, width: int) -> dict[str, Shape]:
        fixed = graph.clone()
        try:
            fixed.reshape([1, 1, height, width])
        except RuntimeError as error:
            where = f'images of {width}×{height} pixels'
            raise ValueError(f'{info.path}: cannot run on {where}: {_reason(error)}') from error
        return {port.any_name: _shape(port) for port in fixed.outputs}

    info.check_image_network(shapes_for)
    return Runtime('openvino', OpenVINONetwork(_with_heads(graph), config), info.descriptor_size, info.checksum)


def load_matcher(model: Model, config: RuntimeConfig, watch: Watch) -> MatcherRuntime:  # noqa: ARG001
    """Load a matcher from its graph; see superpoint_ros.runtimes.load_matcher."""
    graph, info = _read(model.file('graph'))
    return MatcherRuntime('openvino', OpenVINONetwork(graph, config), info.matcher_config())


class OpenVINONetwork:
    """Runs an ONNX graph; see superpoint_ros.runtimes.Network.

    Items are separate requests, not one batch: each uses all threads in turn, or for throughput several run at once,
    and they go on while the caller works on the outputs of an earlier one. On a CPU this is as fast as a batch, takes
    less memory, and a changing number of items needs no new compilation.
    """

    def __init__(self, graph: ov.Model, config: RuntimeConfig) -> None:
        self._core = _core()
        self._graph = graph
        self._outputs = [output.any_name for output in self._graph.outputs]
        self._device = config.device or 'CPU'
        # The rest of a quantized graph runs in float32: bf16 is not faster there.
        quantized = any(node.get_type_name() == 'FakeQuantize' for node in graph.get_ops())
        if quantized and config.precision not in ('auto', 'int8'):
            raise ValueError(
                f'precision {config.precision}: the graph is quantized to int8; use precision auto or int8, or the '
                'graph from which it was made'
            )
        try:
            self.device = str(self._core.get_property(self._device, properties.device.full_name))
            self.precision = 'int8' if quantized else self._choose_precision(config.precision)
        except RuntimeError as error:
            available = ', '.join(self._core.available_devices)
            raise ValueError(f'device {self._device!r}: not supported; available: {available}') from error
        self._settings: dict[Any, Any] = {
            properties.hint.performance_mode: MODES[config.performance],
            properties.hint.inference_precision: TYPES.get(self.precision, ov.Type.f32),
        }
        if not config.pinning:
            self._settings[properties.hint.enable_cpu_pinning] = False
        if config.threads:
            self._settings[properties.inference_num_threads] = config.threads
        self._kept = SHAPES_KEPT
        self._compiled: dict[Any, list[Any]] = {}  # the latest used last
        self._known: set[Any] = set()

    def keep(self, shapes: int) -> None:
        self._kept = max(shapes, SHAPES_KEPT)

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

    def _requests(self, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> list[Any]:
        # Not lru_cache, which would refer to this object: a dropped network would stay in memory.
        requests = self._compiled.pop(shapes, None) or self._compile(shapes)
        self._compiled[shapes] = requests
        if len(self._compiled) > self._kept:
            del self._compiled[next(iter(self._compiled))]
        return requests

    def _compile(self, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> list[Any]:
        if shapes in self._known:
            logger.warning(
                'more than %d sizes of images are in use, so that a network is compiled again for %s; use fewer sizes',
                self._kept,
                ', '.join('x'.join(map(str, shape[:0:-1])) for _, shape in shapes),
            )
            self._known.clear()  # warn again only after as many sizes
        self._known.add(shapes)
        graph = self._graph.clone()
        graph.reshape({name: [1, *shape] for name, shape in shapes})
        try:
            compiled = self._core.compile_model(graph, self._device, self._settings)
        except RuntimeError as error:
            raise ValueError(f'device {self._device!r}: cannot run the network: {_reason(error)}') from error
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
            available = ', '.join(name for name in PRECISIONS if name.upper() in capabilities)
            raise ValueError(f'precision {asked}: not supported by {self.device}; available: {available}')
        return asked


def _choose_graph(model: Model, asked: str) -> tuple[ov.Model, GraphInfo]:
    """The graph to run: for int8 or auto the quantized one, if one exists that was made from the same weights."""
    if asked == 'int8' and model.quantized is None and model.graph is not None:
        raise FileNotFoundError(
            f'precision int8: model {model.name} has no {model.graph.stem}{QUANTIZED}.onnx beside it; make it with: '
            f'superpoint quantize {model.graph}'
        )
    if asked not in ('int8', 'auto') or model.quantized is None:
        return _read(model.file('graph'))
    quantized = _read(model.quantized)
    if model.graph is None or model.graph == model.quantized:
        return quantized
    graph = _read(model.graph)
    if graph[1].checksum_of_weights == quantized[1].checksum_of_weights:
        if asked == 'auto':
            logger.info('precision: int8 (from %s)', model.quantized.name)
        return quantized
    reason = f'{model.quantized}: made from other weights than {model.graph.name}; quantize the graph again'
    if asked == 'int8':
        raise ValueError(reason)
    logger.warning('%s; continuing without int8', reason)
    return graph


def _read(path: Path) -> tuple[ov.Model, GraphInfo]:
    """Read a graph.

    Raises:
        ValueError: the file is broken, or has operators or weights that cannot be computed.
    """
    reader = FrontEndManager().load_by_framework('onnx')  # Core.read_model tries all formats, and they write to stderr
    try:
        graph = reader.convert(reader.load(path))
    except Exception as error:  # the classes of openvino.frontend have no common base
        custom = re.search(r'No conversion rule found for operations: (.+)', str(error))
        found = f'expected standard ONNX operators only, found {custom[1]}' if custom else 'not a complete .onnx file'
        raise ValueError(f'{path}: {found}') from error
    if not graph.outputs:
        raise ValueError(f'{path}: not a complete .onnx file')
    for node in graph.get_ops():
        if node.get_type_name() == 'Constant' and node.data.dtype.kind == 'f' and not np.isfinite(node.data).all():
            raise ValueError(f'{path}: tensor {node.friendly_name} has values that are NaN or infinite')
    inputs, outputs = ({port.any_name: _shape(port) for port in ports} for ports in (graph.inputs, graph.outputs))
    metadata = graph.get_rt_info(['framework']).value if graph.has_rt_info(['framework']) else {}
    return graph, GraphInfo(path, inputs, outputs, metadata)


def _shape(port: Any) -> Shape:
    if port.element_type != ov.Type.f32:
        return str(port.element_type.get_type_name())
    return tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)


def _reason(error: RuntimeError) -> str:
    """The last line of an error of OpenVINO; those before it are places in its source."""
    return str(error).strip().splitlines()[-1]


def _with_heads(graph: ov.Model) -> ov.Model:
    """Extend a graph to the contract of superpoint_ros.runtimes.Runtime, as onnx_graph.with_heads does."""
    steps = PrePostProcessor(graph)
    steps.input().tensor().set_element_type(ov.Type.u8)
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    graph = steps.build()
    for output in graph.outputs:
        name, result = output.any_name, output.node
        if name == 'logits':
            probabilities = ops.softmax(result.input_value(0), 1)
            cells = ops.slice(probabilities, [0], [CELL * CELL], [1], [1])  # without the dustbin
            head = ops.squeeze(ops.depth_to_space(cells, 'blocks_first', CELL), [1])
        elif name == 'descriptors':
            head = ops.transpose(result.input_value(0), [0, 2, 3, 1])
        else:
            continue
        result.input(0).replace_source_output(head.output(0))
        output.set_names({'score_map' if name == 'logits' else name})
    graph.validate_nodes_and_infer_types()
    return graph


@cache
def _core() -> ov.Core:
    """The only Core of this process.

    With its CPU plugin each Core gives its thread another stack for signals and at its end restores the former one,
    which an earlier Core may have freed by then: the next signal, such as Ctrl-C, would be a segmentation fault.
    """
    return ov.Core()
