"""Building and loading TensorRT engines.

Only names that TensorRT 10.0 to 11 have in common are used. Networks are strongly typed: the graph sets the precision.
Few functions of TensorRT raise; they return None, False or −1 and log the reason, so each result is checked.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import tensorrt as trt

from superpoint_ros.runtimes import Shapes, Watch
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError

logger = logging.getLogger(__name__)

T = TypeVar('T')

RECIPE = 2
"""Increase this when `build_engine` or the graphs given to it change, so that kept engines are built again."""

WORKSPACE = 1 << 30
"""Bytes that a layer may use while it runs. On a Jetson the CPU uses the same memory."""


def build_engine(graph: bytes, shapes: Shapes, batch: int, tf32: bool, watch: Watch) -> bytes:
    """Build an engine, which takes minutes, and serialize it for this version of TensorRT and this GPU.

    Args:
        graph: ONNX graph.
        shapes: of the inputs that the engine is for; it takes no others.
        batch: the engine takes 1 to this many items at once.
        tf32: whether float32 convolutions may round their factors to 10 bits of mantissa.
        watch: reports the progress and can cancel the build.

    Raises:
        BuildCancelledError: the watch cancelled the build.
        EngineError: TensorRT cannot build the engine; the message has TensorRT's reason.
        MemoryError: there is not enough memory.
    """
    what = describe(shapes)
    log = trt_logger()
    builder = made('Builder', lambda: trt.Builder(log))
    typed = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)  # deprecated in 11: always on
    network = made('network', lambda: builder.create_network(0 if typed is None else 1 << int(typed)))
    parser = made('OnnxParser', lambda: trt.OnnxParser(network, log))
    if not parser.parse(graph):
        errors = '; '.join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f'TensorRT {trt.__version__} cannot read the graph: {errors or said()}')
    config = made('builder configuration', builder.create_builder_config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.max_aux_streams = 0
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.progress_monitor = Monitor(f'building a TensorRT engine for {what}', watch)
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, (1, *shape), (batch, *shape), (batch, *shape))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f'TensorRT refuses the shapes {what}: {said()}')
    try:
        plan = made('engine', lambda: builder.build_serialized_network(network, config))
    except EngineError as error:
        if watch.cancel.is_set():
            raise BuildCancelledError(f'the TensorRT engine for {what} was not built: cancelled') from error
        raise
    return bytes(plan)


def deserialize(plan: bytes) -> Any:
    """Load what `build_engine` returned as a tensorrt.ICudaEngine.

    Raises:
        EngineError: it is broken, or for another version of TensorRT or another GPU.
        MemoryError: there is not enough memory.
    """
    runtime = made('Runtime', lambda: trt.Runtime(trt_logger()))
    return made('engine', lambda: runtime.deserialize_cuda_engine(plan))


def describe(shapes: Shapes) -> str:
    """The shapes of the inputs in one word, such as 1x480x640."""
    return '-'.join('x'.join(map(str, shape)) for shape in shapes.values())


def made(what: str, make: Callable[[], T | None]) -> T:
    """Call `make`, and return its result.

    Raises:
        EngineError: it returned None or, as TensorRT's constructors do, raised TypeError.
        MemoryError: the reason was a lack of memory, so another attempt may succeed.
    """
    trt_logger().errors.clear()
    reason: object = 'it gave no reason'
    try:
        if (result := make()) is not None:
            return result
    except TypeError as error:
        reason = error
    message = f'TensorRT {trt.__version__} made no {what}: {said() or reason}'
    raise (MemoryError if re.search(r'out ?of ?memory', message, re.IGNORECASE) else EngineError)(message)


class _Logger(trt.ILogger):
    """Forwards TensorRT's messages to logging and keeps the latest errors; called from any thread."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: deque[str] = deque(maxlen=4)

    def log(self, severity: Any, msg: str) -> None:
        kind = trt.ILogger.Severity
        if severity in (kind.INTERNAL_ERROR, kind.ERROR):
            self.errors.append(msg)
        level = {kind.WARNING: logging.WARNING, kind.INFO: logging.DEBUG, kind.VERBOSE: 0}.get(severity, logging.ERROR)
        if level:
            with suppress(Exception):  # TensorRT must not see an exception
                logger.log(level, 'TensorRT: %s', msg)


@cache
def trt_logger() -> _Logger:
    """The only logger of the process: TensorRT keeps the first that it gets."""
    return _Logger()


def said() -> str:
    """The latest errors that TensorRT logged."""
    return '; '.join(trt_logger().errors)


class Monitor(trt.IProgressMonitor):
    """Reports the progress of each phase of a build, and cancels it; called from any thread."""

    def __init__(self, what: str, watch: Watch) -> None:
        trt.IProgressMonitor.__init__(self)
        self._what, self._watch = what, watch
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
        self._steps[phase_name] = max(num_steps, 1)

    def step_complete(self, phase_name: str, step: int) -> bool:
        steps = self._steps.get(phase_name, 1)
        text, before, now = f'{self._what}: {phase_name}', step / steps, min((step + 1) / steps, 1.0)
        with suppress(Exception):  # TensorRT must not see an exception
            self._watch.report(text, now)
            if int(10 * now) > int(10 * before):
                logger.info('%s: %.0f %%', text, 100 * now)
        return not self._watch.cancel.is_set()

    def phase_finish(self, phase_name: str) -> None:
        self._steps.pop(phase_name, None)
