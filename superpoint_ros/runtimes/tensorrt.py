"""TensorRT: NVIDIA GPUs on Jetsons and desktops, from the .onnx graph.

This has been tested against the documented interface of TensorRT 10.0 to 11, not on TensorRT.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorrt as trt
import torch
from torch import Tensor

from superpoint_ros.decode import CELL, Heads
from superpoint_ros.models import Model, checksum
from superpoint_ros.networks import checkpoint
from superpoint_ros.runtimes import RuntimeConfig, Watch, engine_cache, onnx_graph
from superpoint_ros.runtimes.engine_build import RECIPE, Profile, build, deserialize, said
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError, Facts
from superpoint_ros.runtimes.engine_check import Heads as Run
from superpoint_ros.runtimes.engine_check import check_agreement
from superpoint_ros.runtimes.pytorch import to_heads

logger = logging.getLogger(__name__)

ALIGNMENT = 256
"""TensorRT takes only addresses that are multiples of this."""


class TensorRTRuntime:
    """Runs an .onnx graph; see superpoint_ros.runtimes.Runtime.

    An engine is for one size of images. It is built when the first image of that size comes, by the thread that calls,
    which takes minutes, and kept; later it only loads. An engine that could not be built is not tried again.

    Args:
        model: its graph is run as it is if it is in half precision or quantized, else in the precision asked for; its
            weights, if there, are what engines are checked against.
        config: device, precision, engine_sizes and engine_batch are used.
        watch: follows the building.

    Raises:
        FileNotFoundError: the model has no graph.
        ValueError: the graph is broken, the precision cannot be had, or there is no such GPU.
    """

    name = 'tensorrt'

    def __init__(self, model: Model, config: RuntimeConfig, watch: Watch) -> None:
        self._device = cuda_device(config.device)
        path = model.file('graph')
        graph = onnx_graph.read(path)
        self.precision = _precision(onnx_graph.precision_of(graph), config.precision)
        graph = onnx_graph.with_precision(graph, 'fp32' if self.precision == 'tf32' else self.precision)
        self._graph = graph.SerializeToString(deterministic=True)
        self._name = model.name
        self._weights = model.weights
        self.checksum = onnx_graph.checksum_of_weights(graph) or checksum(path)
        self.descriptor_size = onnx_graph.descriptor_size(graph)
        self.device = torch.cuda.get_device_properties(self._device).name
        self._sizes = [_padded(size) for size in config.engine_sizes]
        self._batch = config.engine_batch
        self._watch = watch
        self._engines: dict[Profile, Any] = {}
        self._failed: dict[Profile, str] = {}
        self._heads = lru_cache(maxsize=4)(heads_of)
        # Not the default stream, on which TensorRT waits after each call.
        self._stream = torch.cuda.Stream(self._device) if self._device.type == 'cuda' else None

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> Iterator[Heads]:
        """Run the network on some images; see superpoint_ros.runtimes.Runtime."""
        for start in range(0, len(images), self._batch):
            part = np.stack(images[start : start + self._batch])
            with torch.inference_mode(), self._on_stream():
                outputs = self._bind(part.shape)(torch.from_numpy(part).to(self._device))
                host = {name: tensor.cpu().numpy() for name, tensor in to_heads(outputs).items()}
            for index in range(len(part)):
                yield {name: array[index] for name, array in host.items()}

    def prepare(self, width: int, height: int) -> Path:
        """Build, or load, and check the engine for a size; __call__ does it if it was not done.

        Returns:
            where the engine is kept.

        Raises:
            ValueError: engine_sizes has other sizes.
            EngineError: TensorRT cannot build it, or what it built gives something else than the network.
        """
        if self._sizes and (width, height) not in self._sizes:
            allowed = ', '.join(f'{w}x{h}' for w, h in self._sizes)
            raise ValueError(
                f'images reach the network at {width}x{height}, and engine_sizes has only {allowed}; add it, or leave '
                'engine_sizes empty to build an engine for each size when it first comes'
            )
        profile = Profile(self._batch, height, width)
        if profile in self._failed:
            raise EngineError(self._failed[profile])
        name, facts = f'{self._name}-{width}x{height}-{self.precision}', self._facts(profile)
        if profile not in self._engines:
            make, use = partial(self._build, profile), partial(self._load, profile)
            try:
                with self._on_stream():
                    self._engines[profile] = engine_cache.obtain(name, facts, make, use, self._watch)
            except BuildCancelledError:
                raise
            except EngineError as error:
                self._failed[profile] = str(error)
                raise
        return engine_cache.path_of(name, facts)

    def _build(self, profile: Profile) -> bytes:
        logger.info('building a TensorRT engine for %s, which takes minutes the first time', profile)
        return build(self._graph, profile, self.precision == 'tf32', self._watch)

    def _load(self, profile: Profile, plan: bytes) -> Any:
        engine = deserialize(plan)
        shape = (1, profile.height, profile.width)
        network = None if self._weights is None else checkpoint.fold(checkpoint.load(self._weights))
        with torch.inference_mode():
            check_agreement(heads_of(engine, shape, self._device), network, shape, self.precision, self._device)
        return engine

    def _on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def _bind(self, shape: tuple[int, ...]) -> Run:
        _, height, width = shape
        self.prepare(width, height)
        return self._heads(self._engines[Profile(self._batch, height, width)], shape, self._device)

    def _facts(self, profile: Profile) -> Facts:
        """All that an engine depends on."""
        gpu = torch.cuda.get_device_properties(self._device)
        board = Path('/proc/device-tree/model')  # Jetsons of one family have one name of GPU
        return {
            'model': self._name,
            'graph': hashlib.sha256(self._graph).hexdigest(),
            'precision': self.precision,
            'shapes': [[1, 1, *profile[1:]], [profile.batch, 1, *profile[1:]]],
            'recipe': RECIPE,
            'tensorrt': trt.__version__,
            'gpu': gpu.name,
            'compute capability': f'{gpu.major}.{gpu.minor}',
            'multiprocessors': gpu.multi_processor_count,
            'board': board.read_text(errors='replace').strip('\0') if board.exists() else '',
            'machine': platform.machine(),
            'cuda': str(torch.version.cuda),
            'driver': driver_version(),
        }


load = TensorRTRuntime


def build_engines(model: Model, config: RuntimeConfig, watch: Watch | None = None) -> list[Path]:
    """Build, check and keep the engines for engine_sizes ahead of time, so that no first image waits for them.

    The work is done in a thread, so that an interrupt (Ctrl-C) ends it at the next step.

    Args:
        model: as in TensorRTRuntime.
        config: as in TensorRTRuntime; must be the one of the later runs.
        watch: follows the building.

    Returns:
        where they are kept.

    Raises:
        ValueError: engine_sizes is empty.
        OSError: an engine could not be kept.
        EngineError: as TensorRTRuntime.prepare.
    """
    if not config.engine_sizes:
        raise ValueError('engine_sizes: give the sizes to build engines for, as 640x480')
    watch = watch or Watch()

    def build_all() -> list[Path]:
        runtime = TensorRTRuntime(model, config, watch)
        return [runtime.prepare(*_padded(size)) for size in config.engine_sizes]

    with ThreadPoolExecutor(1) as thread:
        building = thread.submit(build_all)
        try:
            paths = building.result()
        except KeyboardInterrupt:
            watch.cancel.set()
            raise
    for path in paths:
        if not path.is_file():
            raise OSError(f'{path}: the engine could not be kept')
    return paths


def heads_of(engine: Any, shape: tuple[int, ...], device: torch.device) -> Run:
    """An engine as a network for one shape of batch, with a context and memory of its own.

    What it returns is in that memory, and overwritten by the next call.

    Raises:
        EngineError: it has other inputs or outputs than our graphs.
        MemoryError: there is not enough memory.
    """
    context = engine.create_execution_context()
    if context is None:
        raise MemoryError(f'TensorRT made no execution context, for which there may be too little memory: {said()}')
    batch, height, width = shape
    pixels = buffer((batch, 1, height, width), device)
    if not context.set_input_shape(onnx_graph.INPUT, tuple(pixels.shape)):
        raise EngineError(f'the TensorRT engine does not take images of {tuple(pixels.shape)}: {said()}')
    if missing := context.infer_shapes():
        raise EngineError(f'the TensorRT engine wants more inputs than {onnx_graph.INPUT}: {", ".join(missing)}')
    outputs: dict[str, Tensor] = {}
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
            raise EngineError(f'{name} of the TensorRT engine is {engine.get_tensor_dtype(name)}, expected float32')
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            tensor = pixels
        else:
            tensor = outputs[name] = buffer(tuple(context.get_tensor_shape(name)), device)
        if not context.set_tensor_address(name, _address(tensor)):
            raise EngineError(f'TensorRT refuses the memory for {name}: {said()}')

    def heads(images: Tensor) -> dict[str, Tensor]:
        torch.div(images[:, None], 255, out=pixels)
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise EngineError(f'TensorRT did not run: {said()}')
        return outputs

    return heads


def buffer(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Memory for one input or output of an engine."""
    return torch.empty(shape, dtype=torch.float32, device=device)


def _address(tensor: Tensor) -> int:
    address = tensor.data_ptr()
    if address % ALIGNMENT or not tensor.is_contiguous():
        raise EngineError(f'memory for TensorRT must be contiguous and start at a multiple of {ALIGNMENT} bytes')
    return address


def _precision(found: str, asked: str) -> str:
    """What to compute in: what the graph says; one in float32 can be made fp16, and is if nothing is asked for."""
    if asked == 'auto':
        precision = 'fp16' if found == 'fp32' else found
        logger.info('precision: %s (the graph is in %s)', precision, found)
        return precision
    if asked not in ('fp32', 'tf32', 'fp16'):
        raise ValueError(f'precision {asked}: back end tensorrt has fp32, tf32 and fp16, and what the graph is in')
    return asked


def _padded(size: str) -> tuple[int, int]:
    width, height = (-(-int(side) // CELL) * CELL for side in size.split('x'))
    return width, height


def cuda_device(name: str) -> torch.device:
    """The GPU of this name (cuda, cuda:1), or the first.

    Raises:
        ValueError: torch sees none.
    """
    device = torch.device(name or 'cuda')
    if device.type != 'cuda' or (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'device {name or "cuda"}: back end tensorrt needs an NVIDIA GPU, and torch {torch.__version__} sees '
            f'{torch.cuda.device_count()}'
        )
    return torch.device('cuda', device.index or 0)


def driver_version() -> int:
    """Of CUDA, as the driver has it: 12060 is 12.6; 0 if there is none."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0
    return version.value
