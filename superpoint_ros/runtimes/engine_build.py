"""Building TensorRT engines from .onnx graphs, and loading them: all that is asked of TensorRT but running.

Only names that TensorRT 10.0 to 11 have in common are used. Networks are strongly typed: the graph says the precision.
Few functions of TensorRT raise; they return None, False or −1 and tell the logger why, so each result is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar

import tensorrt as trt

from superpoint_ros.runtimes import Watch
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError
from superpoint_ros.runtimes.onnx_graph import INPUT

logger = logging.getLogger(__name__)

T = TypeVar('T')

RECIPE = 1
"""To be counted up when `build` builds differently: kept engines are then built again."""

WORKSPACE = 1 << 30
"""Bytes that a layer may take while it runs. On a Jetson the memory is the CPU's, too."""


class Profile(NamedTuple):
    """What an engine is built for: (1 … batch, 1, height, width)."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f'{self.width}×{self.height}' + (f', up to {self.batch} at once' if self.batch > 1 else '')


def build(graph: bytes, profile: Profile, tf32: bool, watch: Watch) -> bytes:
    """Build an engine, which takes minutes.

    Args:
        graph: .onnx graph with one input, `image` (B, 1, H, W).
        profile: the size that the engine is for, and the only one that it can run.
        tf32: whether float32 convolutions may round their factors to 10 bits of mantissa.
        watch: is told of the progress, and can end the build.

    Returns:
        the serialized engine, for this version of TensorRT and this GPU only.

    Raises:
        BuildCancelledError: as the watch asked for.
        EngineError: TensorRT cannot build it; the message has what it said.
    """
    log = trt_logger()
    builder = _made('Builder', lambda: trt.Builder(log))
    typed = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)  # deprecated in 11, where all are
    network = _made('network', lambda: builder.create_network(0 if typed is None else 1 << int(typed)))
    parser = _made('OnnxParser', lambda: trt.OnnxParser(network, log))
    if not parser.parse(graph):
        errors = '; '.join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f'TensorRT {trt.__version__} cannot read the graph: {errors or said()}')
    config = _made('builder configuration', builder.create_builder_config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.max_aux_streams = 0
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    monitor = Monitor(f'building a TensorRT engine for {profile}', watch)
    config.progress_monitor = monitor
    shapes = builder.create_optimization_profile()
    batch, height, width = profile
    shapes.set_shape(INPUT, (1, 1, height, width), (batch, 1, height, width), (batch, 1, height, width))
    if config.add_optimization_profile(shapes) < 0:
        raise EngineError(f'TensorRT refuses the size {profile}: {said()}')
    plan = builder.build_serialized_network(network, config)
    if watch.cancel.is_set():
        raise BuildCancelledError(f'the TensorRT engine for {profile} was not built: cancelled')
    if plan is None:
        raise EngineError(f'TensorRT {trt.__version__} cannot build an engine for {profile}: {said()}')
    return bytes(plan)


def deserialize(plan: bytes) -> Any:
    """A tensorrt.ICudaEngine from what `build` returned.

    Raises:
        EngineError: it is broken, or for another version of TensorRT or another GPU.
    """
    runtime = _made('Runtime', lambda: trt.Runtime(trt_logger()))
    return _made('engine', lambda: runtime.deserialize_cuda_engine(plan))


def _made(what: str, make: Callable[[], T | None]) -> T:
    """What `make` makes.

    Raises:
        EngineError: it gave None or, as a constructor does then, raised TypeError.
    """
    trt_logger().errors.clear()
    reason: object = ''
    made = None
    try:
        made = make()
    except TypeError as error:
        reason = error
    if made is None:
        raise EngineError(f'TensorRT {trt.__version__} made no {what}: {said() or reason}')
    return made


class _Logger(trt.ILogger):
    """Passes what TensorRT says on to logging, and keeps the latest errors; called from any thread."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: deque[str] = deque(maxlen=4)

    def log(self, severity: Any, msg: str) -> None:
        kind = trt.ILogger.Severity
        if severity in (kind.INTERNAL_ERROR, kind.ERROR):
            self.errors.append(msg)
        level = {kind.WARNING: logging.WARNING, kind.INFO: logging.DEBUG, kind.VERBOSE: 0}.get(severity, logging.ERROR)
        if level:
            with suppress(Exception):  # an exception must not reach TensorRT
                logger.log(level, 'TensorRT: %s', msg)


@cache
def trt_logger() -> _Logger:
    """The one logger of the process: TensorRT keeps the first that it is given."""
    return _Logger()


def said() -> str:
    """The latest errors that TensorRT logged."""
    return '; '.join(trt_logger().errors) or 'it did not say why'


class Monitor(trt.IProgressMonitor):
    """Turns the phases of a build, which lie within each other, into one fraction; called from any thread."""

    def __init__(self, what: str, watch: Watch) -> None:
        trt.IProgressMonitor.__init__(self)
        self._what, self._watch = what, watch
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._percent = -1

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        with self._lock:
            self._phases[phase_name] = _Phase(parent_phase, max(num_steps, 1))
        self._tell()

    def step_complete(self, phase_name: str, step: int) -> bool:
        with self._lock:
            if phase_name in self._phases:
                self._phases[phase_name].done = step + 1
        self._tell()
        return not self._watch.cancel.is_set()

    def phase_finish(self, phase_name: str) -> None:
        with self._lock:
            self._phases.pop(phase_name, None)

    def _tell(self) -> None:
        with self._lock:
            percent = int(100 * sum(self._done(name) for name, phase in self._phases.items() if phase.parent is None))
            before, self._percent = self._percent, max(self._percent, min(percent, 100))
            now = self._percent
        with suppress(Exception):  # as above
            if now > before:
                self._watch.report(self._what, now / 100)
            if now // 10 > before // 10:
                logger.info('%s: %d %%', self._what, now)

    def _done(self, name: str) -> float:
        """The finished part of a phase, of which the unfinished children count as part of the current step."""
        phase = self._phases[name]
        inner = sum(self._done(child) for child, other in self._phases.items() if other.parent == name)
        return min(phase.done + min(inner, 1.0), phase.steps) / phase.steps


class _Phase:
    def __init__(self, parent: str | None, steps: int) -> None:
        self.parent, self.steps, self.done = parent, steps, 0
