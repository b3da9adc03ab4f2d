"""Stand-ins for TensorRT and CUDA that run on the CPU, to test the order and the errors of our calls.

Memory of the "GPU" has addresses of its own, and everything on a stream waits for its synchronization. What a real GPU
computes, and whether TensorRT takes our graphs, they cannot show.
"""

import ctypes
import enum
import importlib.machinery
import types
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from cuda.bindings import runtime as cudart

SUCCESS, OUT_OF_MEMORY = cudart.cudaError_t.cudaSuccess, cudart.cudaError_t.cudaErrorMemoryAllocation


@dataclass
class FakeGpu:
    """What the stand-ins did, and how they shall fail."""

    failing: dict = field(default_factory=dict)
    """Functions that return None, False or -1, and what they log."""
    spoil: float = 0.0
    """Added to the outputs of new engines, as if they were miscompiled."""
    on_step: object = None
    """Called before each step of a build."""
    builds: int = 0
    tf32: bool = True
    memory: dict = field(default_factory=dict)
    """Allocations, by address."""
    queue: list = field(default_factory=list)
    """What waits for the stream."""

    def fails(self, name):
        if name in self.failing:
            self.logger.log(self.severity.ERROR, self.failing[name])
        return name in self.failing

    def allocate(self, size):
        if 'cudaMalloc' in self.failing:
            return OUT_OF_MEMORY, None
        memory = np.empty(size + 256, np.uint8)
        address = -(-memory.ctypes.data // 256) * 256
        self.memory[address] = memory
        return SUCCESS, address

    def free(self, address):
        del self.memory[address]
        return (SUCCESS,)

    def copy(self, target, source, size, kind, stream):  # noqa: ARG002
        self.queue.append(lambda: ctypes.memmove(target, source, size))
        return (SUCCESS,)

    def synchronize(self, stream):  # noqa: ARG002
        while self.queue:
            self.queue.pop(0)()
        return (SUCCESS,)

    def install_cuda(self, monkeypatch):
        """Replace functions of the real cuda.bindings.runtime, which must have them."""
        orin = types.SimpleNamespace(name=b'Orin', major=8, minor=7, multiProcessorCount=16)
        for name, function in {
            'cudaGetDeviceCount': lambda: (SUCCESS, 1),
            'cudaGetDeviceProperties': lambda _: (SUCCESS, orin),
            'cudaDriverGetVersion': lambda: (SUCCESS, 12060),
            'cudaSetDevice': lambda _: (SUCCESS,),
            'cudaStreamCreateWithFlags': lambda _: (SUCCESS, cudart.cudaStream_t(7)),
            'cudaStreamSynchronize': self.synchronize,
            'cudaStreamDestroy': lambda _: (SUCCESS,),
            'cudaMalloc': self.allocate,
            'cudaMallocHost': self.allocate,
            'cudaFree': self.free,
            'cudaFreeHost': self.free,
            'cudaMemcpyAsync': self.copy,
        }.items():
            monkeypatch.setattr(cudart, name, function)

    def tensorrt(self, version):
        """A module with the names of `tensorrt` that we use."""
        gpu = self
        self.severity = enum.IntEnum('Severity', 'INTERNAL_ERROR ERROR WARNING INFO VERBOSE', start=0)

        class ILogger:
            Severity = self.severity

        class Builder:
            def __init__(self, logger):
                gpu.logger = logger
                if gpu.fails('Builder'):
                    raise TypeError('pybind11::init(): factory function returned nullptr')

            def create_network(self, flags):
                assert flags == 1, 'strongly typed'
                return types.SimpleNamespace()

            def create_builder_config(self):
                return None if gpu.fails('create_builder_config') else Config()

            def create_optimization_profile(self):
                return types.SimpleNamespace(set_shape=lambda *shapes: shapes)

            def build_serialized_network(self, network, config):
                gpu.builds += 1
                config.progress_monitor.phase_start('Tactics', None, 20)
                for step in range(20):
                    if gpu.on_step:
                        gpu.on_step()
                    if not config.progress_monitor.step_complete('Tactics', step):
                        return None
                config.progress_monitor.phase_finish('Tactics')
                return None if gpu.fails('build_serialized_network') else memoryview(network.graph)

        class Config:
            def __init__(self):
                gpu.tf32 = True

            def set_memory_pool_limit(self, pool, size):
                assert (pool, size) == ('workspace', 1 << 30)

            def clear_flag(self, flag):
                assert flag == 'tf32'
                gpu.tf32 = False

            def add_optimization_profile(self, profile):  # noqa: ARG002
                return -1 if gpu.fails('add_optimization_profile') else 0

        class OnnxParser:
            num_errors = 2

            def __init__(self, network, logger):  # noqa: ARG002
                self.network = network

            def parse(self, graph):
                self.network.graph = graph
                return 'parse' not in gpu.failing

            def get_error(self, index):
                return f'node {index}: {gpu.failing["parse"]}'

        class Runtime:
            def __init__(self, logger):
                gpu.logger = logger

            def deserialize_cuda_engine(self, plan):
                return None if gpu.fails('deserialize_cuda_engine') else Engine(gpu, plan)

        module = types.ModuleType('tensorrt')
        module.__spec__ = importlib.machinery.ModuleSpec('tensorrt', None)
        module.__version__ = version
        module.ILogger, module.Builder, module.OnnxParser, module.Runtime = ILogger, Builder, OnnxParser, Runtime
        module.IProgressMonitor = type('IProgressMonitor', (), {})
        module.MemoryPoolType = types.SimpleNamespace(WORKSPACE='workspace')
        module.BuilderFlag = types.SimpleNamespace(TF32='tf32')
        module.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=0)
        module.nptype = lambda dtype: dtype
        return module


class Engine:
    def __init__(self, gpu, plan):
        self.gpu, self.plan, self.spoil = gpu, bytes(plan), gpu.spoil
        graph = onnx.load_from_string(self.plan).graph
        self.tensors = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in (*graph.input, *graph.output)
        }
        self.session = onnxruntime.InferenceSession(self.plan, providers=['CPUExecutionProvider'])
        self.num_io_tensors = len(self.tensors)

    def serialize(self):
        return None if self.gpu.fails('serialize') else memoryview(self.plan)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name):
        return self.tensors[name]

    def create_execution_context(self):
        return None if self.gpu.fails('create_execution_context') else Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return not self.engine.gpu.fails('set_input_shape')

    def infer_shapes(self):
        zeros = {name: np.zeros(shape, self.engine.tensors[name]) for name, shape in self.shapes.items()}
        names = [output.name for output in self.engine.session.get_outputs()]
        outputs = self.engine.session.run(names, zeros)
        self.shapes |= {name: output.shape for name, output in zip(names, outputs, strict=True)}
        return []

    def get_tensor_shape(self, name):
        return self.shapes[name]

    def set_tensor_address(self, name, address):
        assert address in self.engine.gpu.memory
        self.addresses[name] = address
        return not self.engine.gpu.fails('set_tensor_address')

    def execute_async_v3(self, stream):
        assert stream == 7
        inputs = {value.name: self.shapes[value.name] for value in self.engine.session.get_inputs()}

        def execute():
            arrays = {name: self.at(name, shape) for name, shape in inputs.items()}
            names = [output.name for output in self.engine.session.get_outputs()]
            for name, array in zip(names, self.engine.session.run(names, arrays), strict=True):
                self.at(name, array.shape)[:] = array + array.dtype.type(self.engine.spoil)

        self.engine.gpu.queue.append(execute)
        return not self.engine.gpu.fails('execute_async_v3')

    def at(self, name, shape):
        dtype = np.dtype(self.engine.tensors[name])
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_byte * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
