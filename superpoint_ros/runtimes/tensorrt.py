"""TensorRT: NVIDIA GPUs on Jetsons and desktops, from the .onnx graph.

Written to the documented interface of TensorRT 10.0 to 11 and of cuda-python; it has never run on a GPU.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from superpoint_ros.decode import CELL
from superpoint_ros.files import written_whole
from superpoint_ros.models import Model
from superpoint_ros.runtimes import (
    Arrays,
    MatcherRuntime,
    Runtime,
    RuntimeConfig,
    Shapes,
    Watch,
    cuda,
    engine_cache,
    onnx_graph,
)
from superpoint_ros.runtimes.engine_build import RECIPE, build_engine, describe, deserialize, made, said
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError, Facts
from superpoint_ros.runtimes.engine_check import Run, check_image_network, check_matcher

logger = logging.getLogger(__name__)


def load(model: Model, config: RuntimeConfig, watch: Watch) -> Runtime:
    """Load an image network from its graph, and prepare its engines for engine_sizes; see superpoint_ros.runtimes.load.

    Raises:
        EngineError: an engine cannot be built, or computes something else than its graph.
    """
    path = model.file('graph')
    graph, info = onnx_graph.read_image_network(path)
    precision = _choose_precision(path, onnx_graph.precision_of(graph), config.precision)
    heads = onnx_graph.with_heads(onnx_graph.with_precision(graph, 'fp32' if precision == 'tf32' else precision))
    check = partial(check_image_network, graph, precision)
    network = TensorRTNetwork(heads, model.name, precision, config, check, watch)
    sizes = tuple(_multiples_of_cells(size) for size in config.engine_sizes)
    for width, height in sizes:
        network.prepare({'image': (1, height, width)})
    return Runtime('tensorrt', network, info.descriptor_size, info.checksum, sizes)


def load_matcher(model: Model, config: RuntimeConfig, watch: Watch) -> MatcherRuntime:
    """Load a matcher from its graph; see superpoint_ros.runtimes.load_matcher."""
    graph, info = onnx_graph.read(model.file('graph'))
    network_config = info.matcher_config()
    precision = 'fp32' if config.precision == 'auto' else config.precision
    if precision not in ('fp32', 'tf32'):
        raise ValueError(
            f'precision {precision}: not supported by back end tensorrt for matchers; available: fp32, tf32'
        )
    network = TensorRTNetwork(graph, model.name, precision, config, partial(check_matcher, graph, precision), watch)
    return MatcherRuntime('tensorrt', network, network_config)


class TensorRTNetwork:
    """Runs an ONNX graph; see superpoint_ros.runtimes.Network.

    An engine is for one combination of input shapes. It is built, checked and kept on disk when it is first needed,
    which takes minutes; later it is only loaded. A bad engine is not built again.

    Args:
        graph: with the precision of the engines.
        name: of the network, for the names of the kept engines.
        precision: of the graph; tf32 for a graph in fp32 whose convolutions may round.
        config: device and engine_batch are used.
        check: called with a new engine and its shapes; raises EngineError if it is bad.
        watch: reports the progress of builds and can cancel them.

    Raises:
        ValueError: there is no such GPU.
    """

    def __init__(
        self,
        graph: onnx_graph.Graph,
        name: str,
        precision: str,
        config: RuntimeConfig,
        check: Callable[[Run, Shapes], None],
        watch: Watch,
    ) -> None:
        self._gpu = cuda.find_device(config.device)
        self.device, self.precision = self._gpu.name, precision
        self._graph = graph.SerializeToString(deterministic=True)
        self._name, self._batch, self._check, self._watch = name, config.engine_batch, check, watch
        self._executions: dict[Any, Execution] = {}
        self._failed: dict[Any, str] = {}

    def keep(self, shapes: int) -> None:
        """Nothing to do: all engines stay in memory."""

    def __call__(self, items: Sequence[Arrays]) -> Iterator[Arrays]:
        cuda.use(self._gpu)
        run = self.prepare({name: array.shape for name, array in items[0].items()})
        for start in range(0, len(items), self._batch):
            yield from run(items[start : start + self._batch])

    def prepare(self, shapes: Shapes) -> Execution:
        """Load the engine for some shapes, or build it if there is none.

        Raises:
            EngineError: TensorRT cannot build it, or it computes something else than its graph.
            MemoryError: there is not enough memory; the next attempt may succeed.
        """
        key = tuple(sorted(shapes.items()))
        if key in self._failed:
            raise EngineError(self._failed[key])
        if key not in self._executions:
            cuda.use(self._gpu)
            shapes = dict(key)
            try:
                engine = engine_cache.obtain(*self._key(shapes), partial(self._build, shapes), deserialize, self._watch)
                self._executions[key] = Execution(engine, shapes, self._batch)
            except BuildCancelledError:
                raise
            except EngineError as error:
                self._failed[key] = str(error)
                raise
        return self._executions[key]

    def path(self, shapes: Shapes) -> Path:
        """Where the engine for some shapes is kept."""
        return engine_cache.path_of(*self._key(shapes))

    def _build(self, shapes: Shapes) -> bytes:
        """Build and check an engine in another thread, so that an interrupt (Ctrl-C) reaches this one and ends it."""

        def work() -> bytes:
            cuda.use(self._gpu)
            plan = build_engine(self._graph, shapes, self._batch, self.precision == 'tf32', self._watch)
            self._check(Execution(deserialize(plan), shapes, self._batch), shapes)
            return plan

        logger.info('building a TensorRT engine for %s, which takes minutes the first time', describe(shapes))
        with ThreadPoolExecutor(1) as thread:
            building = thread.submit(work)
            try:
                return building.result()
            except KeyboardInterrupt:
                self._watch.cancel.set()
                raise

    def _key(self, shapes: Shapes) -> tuple[str, Facts]:
        """Name of an engine, and everything that it depends on."""
        board = Path('/proc/device-tree/model')  # Jetsons of one family have one name of GPU
        return f'{self._name}-{describe(shapes)}-{self.precision}', {
            'model': self._name,
            'graph': hashlib.sha256(self._graph).hexdigest(),
            'precision': self.precision,
            'shapes': {name: list(shape) for name, shape in shapes.items()},
            'batch': self._batch,
            'recipe': RECIPE,
            'tensorrt': trt.__version__,
            'gpu': self._gpu.name,
            'compute capability': self._gpu.capability,
            'multiprocessors': self._gpu.multiprocessors,
            'board': board.read_text(errors='replace').strip('\0') if board.exists() else '',
            'machine': platform.machine(),
            'driver': cuda.driver_version(),
        }


class Execution:
    """An engine with its own execution context, stream and memory; runs 1 to `batch` items at once.

    Raises:
        EngineError: TensorRT refuses the shapes or the memory.
        MemoryError: there is not enough memory.
    """

    def __init__(self, engine: Any, shapes: Shapes, batch: int) -> None:
        self.engine = engine
        self._shapes, self._batch = shapes, 0
        self._stream = cuda.Stream()
        self._context = made('execution context', engine.create_execution_context)
        self._set_batch(batch)
        if missing := self._context.infer_shapes():
            raise EngineError(f'the TensorRT engine has other inputs than {", ".join(shapes)}: {", ".join(missing)}')
        self._buffers: dict[str, cuda.Buffer] = {}
        for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
            shape = tuple(self._context.get_tensor_shape(name))
            buffer = self._buffers[name] = cuda.Buffer(shape, trt.nptype(engine.get_tensor_dtype(name)))
            if not self._context.set_tensor_address(name, buffer.device):
                raise EngineError(f'TensorRT refuses the memory for {name}: {said()}')
        self._outputs = [name for name in self._buffers if name not in shapes]

    def __call__(self, items: Sequence[Arrays]) -> Iterator[Mapping[str, np.ndarray]]:
        self._set_batch(len(items))
        for name in self._shapes:
            np.stack([item[name] for item in items], out=self._buffers[name].host[: len(items)])
            self._buffers[name].upload(len(items), self._stream)
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise EngineError(f'TensorRT did not run: {said()}')
        for name in self._outputs:
            self._buffers[name].download(len(items), self._stream)
        self._stream.synchronize()
        for index in range(len(items)):
            yield {name: self._buffers[name].host[index] for name in self._outputs}

    def _set_batch(self, batch: int) -> None:
        if batch != self._batch:
            for name, shape in self._shapes.items():
                if not self._context.set_input_shape(name, (batch, *shape)):
                    raise EngineError(f'the TensorRT engine does not take {name} of {(batch, *shape)}: {said()}')
            self._batch = batch


def export_engines(model: Model, config: RuntimeConfig, output: Path | None) -> list[Path]:
    """Build and check the engines for engine_sizes ahead of time; a node with the same configuration finds them.

    With an output, the only engine is written to that file instead.

    Returns:
        Where the engines are.

    Raises:
        ValueError: engine_sizes is empty, or has several sizes for one file.
        OSError: an engine could not be written.
        EngineError: as in `load`.
    """
    if not config.engine_sizes or (output and len(config.engine_sizes) > 1):
        wanted = 'the size' if output else 'the sizes'
        raise ValueError(f'engine_sizes: give {wanted} to build for, such as [640x480]')
    runtime = load(model, config, Watch())
    network: Any = runtime.network
    all_shapes = [{'image': (1, height, width)} for width, height in runtime.sizes]
    if output:
        with written_whole(output) as partial_file:
            partial_file.write_bytes(bytes(made('plan', network.prepare(all_shapes[0]).engine.serialize)))
        return [output]
    paths = [network.path(shapes) for shapes in all_shapes]
    for path in paths:
        if not path.is_file():
            raise OSError(f'{path}: the engine could not be kept')
    return paths


def _choose_precision(path: Path, found: str, asked: str) -> str:
    """The precision of the engines: what is asked for; for auto that of the graph, but fp16 for graphs in fp32."""
    if 'int8' in (found, asked):
        subject = f'{path}: quantized' if found == 'int8' else 'precision int8'
        raise ValueError(
            f'{subject}: not supported by back end tensorrt, whose parser takes neither uint8 nor zero points; use '
            'the graph in float32 with precision fp16'
        )
    if asked == 'auto':
        precision = 'fp16' if found == 'fp32' else found
        logger.info('precision: %s (the graph is in %s)', precision, found)
        return precision
    if asked not in ('fp32', 'tf32', 'fp16'):
        raise ValueError(f'precision {asked}: not supported by back end tensorrt; available: fp32, tf32, fp16')
    return asked


def _multiples_of_cells(size: str) -> tuple[int, int]:
    width, height = (-(-int(side) // CELL) * CELL for side in size.split('x'))
    return width, height
