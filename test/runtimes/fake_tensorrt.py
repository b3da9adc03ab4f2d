"""A stand-in for the module tensorrt, as strict as the real one: its engines run on a CPU, by OpenVINO.

It has no name that the Python bindings of the version it plays do not have (NAMES, read off their sources of 10.3 and
11.1); its objects take no unknown attribute; and where the real one returns None, False or −1 on failure, so does it.
"""

import ctypes
import enum
import json
import threading
import types
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import onnx
import openvino

COMMON = {
    'ILogger': 'log Severity',
    'IProgressMonitor': 'phase_start step_complete phase_finish',
    'IOptimizationProfile': 'extra_memory_target get_shape get_shape_input set_shape set_shape_input',
    'IExecutionContext': """active_optimization_profile all_binding_shapes_specified debug_sync device_memory engine
        enqueue_emits_profile error_recorder execute_async_v3 execute_v2 get_debug_listener get_debug_state
        get_input_consumed_event get_max_output_size get_output_allocator get_tensor_address get_tensor_shape
        get_tensor_strides infer_shapes name nvtx_verbosity persistent_cache_limit profiler report_to_profiler
        set_all_tensors_debug_state set_aux_streams set_debug_listener set_device_memory set_input_consumed_event
        set_input_shape set_optimization_profile_async set_output_allocator set_tensor_address set_tensor_debug_state
        temporary_allocator update_device_memory_size_for_shapes""",
    'ICudaEngine': """create_engine_inspector create_execution_context create_serialization_config
        device_memory_size_v2 engine_capability error_recorder get_device_memory_size_for_profile_v2
        get_tensor_bytes_per_component get_tensor_components_per_element get_tensor_dtype get_tensor_format
        get_tensor_format_desc get_tensor_location get_tensor_mode get_tensor_name get_tensor_profile_shape
        get_tensor_profile_values get_tensor_shape get_tensor_vectorized_dim get_weight_streaming_automatic_budget
        hardware_compatibility_level is_debug_tensor is_shape_inference_io name num_aux_streams num_io_tensors
        num_layers num_optimization_profiles profiling_verbosity refittable serialize serialize_with_config
        streamable_weights_size tactic_sources weight_streaming_budget_v2 weight_streaming_scratch_memory_size""",
    'IBuilderConfig': """DLA_core add_optimization_profile avg_timing_iterations builder_optimization_level
        can_run_on_DLA clear_flag create_timing_cache default_device_type engine_capability flags get_device_type
        get_flag get_memory_pool_limit get_preview_feature get_tactic_sources get_timing_cache
        hardware_compatibility_level is_device_type_set max_aux_streams num_optimization_profiles plugins_to_serialize
        profile_stream profiling_verbosity progress_monitor reset reset_device_type runtime_platform set_device_type
        set_flag set_memory_pool_limit set_preview_feature set_tactic_sources set_timing_cache""",
    'Builder': """build_serialized_network create_builder_config create_network create_optimization_profile
        error_recorder get_plugin_registry gpu_allocator is_network_supported logger max_DLA_batch_size max_threads
        num_DLA_cores reset""",
    'INetworkDefinition': 'get_input get_output name num_inputs num_layers num_outputs',
    'Runtime': """DLA_core deserialize_cuda_engine engine_host_code_allowed error_recorder get_plugin_registry
        gpu_allocator load_runtime logger max_threads num_DLA_cores tempfile_control_flags temporary_directory""",
    'OnnxParser': """clear_errors clear_flag flags get_error get_flag get_layer_output_tensor get_subgraph_nodes
        get_used_vc_plugin_libraries is_subgraph_supported num_errors num_subgraphs parse parse_from_file set_flag
        supports_model_v2 supports_operator""",
    'ParserError': """code desc file func line local_function_stack local_function_stack_size node node_name
        node_operator""",
    'IHostMemory': 'dtype nbytes',
    'Severity': 'INTERNAL_ERROR ERROR WARNING INFO VERBOSE',
    'MemoryPoolType': """WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM
        TACTIC_SHARED_MEMORY""",
    'NetworkDefinitionCreationFlag': 'STRONGLY_TYPED',
    'BuilderFlag': """DEBUG DIRECT_IO DISABLE_COMPILATION_CACHE DISABLE_TIMING_CACHE ERROR_ON_TIMING_CACHE_MISS
        EXCLUDE_LEAN_RUNTIME GPU_FALLBACK REFIT REFIT_IDENTICAL REFIT_INDIVIDUAL SAFETY_SCOPE SPARSE_WEIGHTS STRIP_PLAN
        TF32 VERSION_COMPATIBLE WEIGHT_STREAMING""",
    'DataType': 'FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4',
    'TensorIOMode': 'NONE INPUT OUTPUT',
}
ONLY = {
    '10.3.0': {
        'IExecutionContext': 'all_shape_inputs_specified',
        'ICudaEngine': """create_execution_context_without_device_memory device_memory_size
            get_device_memory_size_for_profile has_implicit_batch_dimension minimum_weight_streaming_budget
            weight_streaming_budget""",
        'IBuilderConfig': """algorithm_selector clear_quantization_flag get_calibration_profile get_quantization_flag
            int8_calibrator quantization_flags set_calibration_profile set_quantization_flag""",
        'Builder': 'platform_has_fast_fp16 platform_has_fast_int8 platform_has_tf32',
        'OnnxParser': 'parse_with_weight_descriptors supports_model',
        'NetworkDefinitionCreationFlag': 'EXPLICIT_BATCH',
        'BuilderFlag': """BF16 FP16 FP8 INT4 INT8 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS
            REJECT_EMPTY_ALGORITHMS WEIGHTLESS""",
    },
    '11.1.0': {
        'IExecutionContext': 'get_runtime_config set_communicator unfused_tensors_debug_state',
        'ICudaEngine': 'create_runtime_config get_aliased_input_tensor get_engine_stat',
        'IBuilderConfig': """all_build_routes build_route l2_limit_for_tiling max_num_tactics remote_auto_tuning_config
            tiling_optimization_level""",
        'Builder': 'build_engine_with_config build_serialized_network_to_stream',
        'OnnxParser': 'load_initializer load_model_proto parse_model_proto set_builder_config',
        'NetworkDefinitionCreationFlag': 'PREFER_JIT_PYTHON_PLUGINS PREFER_AOT_PYTHON_PLUGINS',
        'BuilderFlag': 'DISTRIBUTIVE_INDEPENDENCE EDITABLE_TIMING_CACHE MONITOR_MEMORY STRICT_NANS',
        'DataType': 'FP4 E8M0',
    },
}
VERSIONS = tuple(ONLY)
NAMES = {
    version: {kind: {*names.split(), *only.get(kind, '').split()} for kind, names in COMMON.items()}
    for version, only in ONLY.items()
}

OPERATORS = {
    'BatchNormalization',
    'Cast',
    'Conv',
    'DequantizeLinear',
    'Identity',
    'LeakyRelu',
    'MaxPool',
    'QuantizeLinear',
    'Relu',
    'Sigmoid',
}
"""What the fake's parser takes; the real one takes more."""

STEPS = 20


@dataclass
class Control:
    """How a test makes the fake fail, and what it saw."""

    failing: set[str] = field(default_factory=set)
    """Names of functions that fail as the real ones do."""
    spoil: bool = False
    """Engines give wrong values, as when miscompiled; 'nan' gives NaN."""
    on_step: object = None
    """Called before each step of a build."""
    builds: int = 0
    flags: list = field(default_factory=list)
    """Of networks."""
    tf32: bool = True
    """Whether the last engine was built with it."""
    runs: int = 0


def make(version: str, control: Control) -> types.ModuleType:
    """The module tensorrt in one of VERSIONS, or in an old one, which has nothing but its version."""
    module = types.ModuleType('tensorrt')
    module.__version__ = version
    if version not in VERSIONS:
        return module
    names = NAMES[version]
    enums = {
        kind: enum.IntEnum(kind, sorted(names[kind]), start=0, module=__name__)
        for kind in ('MemoryPoolType', 'NetworkDefinitionCreationFlag', 'BuilderFlag', 'DataType', 'TensorIOMode')
    }
    severity = enum.IntEnum('Severity', COMMON['Severity'].split(), start=0, module=__name__)

    class ILogger:
        Severity = severity

        def __init__(self):
            self._made = True

        def log(self, severity, msg):
            raise NotImplementedError

    class IProgressMonitor:
        def __init__(self):
            self._made = True

        def phase_start(self, phase_name, parent_phase, num_steps):
            raise NotImplementedError

        def step_complete(self, phase_name, step):
            raise NotImplementedError

        def phase_finish(self, phase_name):
            raise NotImplementedError

    def say(logger, severity, text):
        logger.log(severity, text)

    class Builder:
        __slots__ = ('_logger',)

        def __init__(self, logger):
            if 'Builder' in control.failing:
                say(logger, severity.ERROR, 'CUDA initialization failure with error: 35')
                raise TypeError('pybind11::init(): factory function returned nullptr')
            assert isinstance(logger, ILogger)
            assert logger._made, 'the base __init__ was not called'
            self._logger = logger

        def create_network(self, flags=0):
            control.flags.append(flags)
            return None if 'create_network' in control.failing else INetworkDefinition()

        def create_builder_config(self):
            return None if 'create_builder_config' in control.failing else IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            assert isinstance(network, INetworkDefinition)
            assert network._graph is not None
            control.builds += 1
            control.tf32 = bool(config._flags & 1 << enums['BuilderFlag'].TF32)
            finished = []
            thread = threading.Thread(target=lambda: finished.append(build(config.progress_monitor)))
            thread.start()
            thread.join()
            if 'build_serialized_network' in control.failing:
                say(self._logger, severity.INTERNAL_ERROR, 'Could not find any implementation for node /conv1')
                return None
            if not finished[0]:
                say(self._logger, severity.ERROR, 'build cancelled by progress monitor')
                return None
            head = json.dumps({'version': version, 'profiles': [p._shapes for p in config._profiles]}).encode()
            return memoryview(b'PLAN' + len(head).to_bytes(4, 'little') + head + network._graph)

    def build(monitor):
        """The phases of a build, nested as real ones are; False if the monitor ended it."""
        if monitor is None:
            return True
        going = True
        monitor.phase_start('Building Engine', None, 2)
        for outer in range(2):
            monitor.phase_start('Tactic Selection', 'Building Engine', STEPS)
            for step in range(STEPS):
                if control.on_step:
                    control.on_step()
                going = going and monitor.step_complete('Tactic Selection', step)
                if not going:
                    break
            monitor.phase_finish('Tactic Selection')
            if not going:
                break
            monitor.step_complete('Building Engine', outer)
        monitor.phase_finish('Building Engine')
        return going

    class INetworkDefinition:
        __slots__ = ('_graph',)

        def __init__(self):
            self._graph = None

    class ParserError:
        __slots__ = ('_node',)

        def __init__(self, node):
            self._node = node

        def __str__(self):
            return f'In node 0 with name: {self._node.name} and operator: {self._node.op_type} (parseNode): UNSUPPORTED'

    class OnnxParser:
        __slots__ = ('_errors', '_network')

        def __init__(self, network, logger):
            assert isinstance(network, INetworkDefinition)
            assert isinstance(logger, ILogger)
            self._network, self._errors = network, []

        def parse(self, model, path=None):  # noqa: ARG002
            graph = onnx.load_from_string(bytes(model))
            onnx.checker.check_model(graph, full_check=True)  # strongly typed: half and float do not mix
            self._errors = [ParserError(node) for node in graph.graph.node if node.op_type not in OPERATORS]
            self._network._graph = None if self._errors else bytes(model)
            return not self._errors

        @property
        def num_errors(self):
            return len(self._errors)

        def get_error(self, index):
            return self._errors[index]

    class IOptimizationProfile:
        __slots__ = ('_shapes',)

        def __init__(self):
            self._shapes = {}

        def set_shape(self, input, min, opt, max):  # noqa: A002
            if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
                raise RuntimeError('Shape provided for opt is inconsistent with other shapes.')
            self._shapes[input] = [min, opt, max]

    class IBuilderConfig:
        __slots__ = ('_flags', '_limits', '_profiles', 'max_aux_streams', 'progress_monitor')

        def __init__(self):
            self._flags, self._limits, self._profiles = 1 << enums['BuilderFlag'].TF32, {}, []
            self.progress_monitor = None

        def set_memory_pool_limit(self, pool, pool_size):
            assert pool in enums['MemoryPoolType']
            self._limits[pool] = pool_size

        def clear_flag(self, flag):
            assert flag in enums['BuilderFlag']
            self._flags &= ~(1 << flag)

        def add_optimization_profile(self, profile):
            if 'add_optimization_profile' in control.failing or not profile._shapes:
                return -1
            self._profiles.append(profile)
            return len(self._profiles) - 1

    class Runtime:
        __slots__ = ('_logger',)

        def __init__(self, logger):
            assert isinstance(logger, ILogger)
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            plan = bytes(serialized_engine)
            size = int.from_bytes(plan[4:8], 'little')
            if plan[:4] != b'PLAN' or 'deserialize_cuda_engine' in control.failing:
                say(self._logger, severity.ERROR, 'Serialization assertion magicTagRead == kMAGIC_TAG failed')
                return None
            head = json.loads(plan[8 : 8 + size])
            if head['version'] != version:
                say(self._logger, severity.ERROR, f'The engine plan file is not compatible, expecting {version}')
                return None
            return ICudaEngine(head['profiles'], plan[8 + size :])

    class ICudaEngine:
        __slots__ = ('__weakref__', '_compiled', '_names', '_profiles')

        def __init__(self, profiles, graph):
            self._profiles = profiles
            exact = {openvino.properties.hint.inference_precision: openvino.Type.f32}
            self._compiled = openvino.compile_model(openvino.Core().read_model(graph), 'CPU', exact)
            self._names = [port.any_name for port in (*self._compiled.inputs, *self._compiled.outputs)]

        @property
        def num_io_tensors(self):
            return len(self._names)

        def get_tensor_name(self, index):
            return self._names[index]

        def get_tensor_mode(self, name):
            return enums['TensorIOMode'].INPUT if name == 'image' else enums['TensorIOMode'].OUTPUT

        def get_tensor_dtype(self, name):
            assert name in self._names
            half = 'get_tensor_dtype' in control.failing
            return enums['DataType'].HALF if half else enums['DataType'].FLOAT

        def create_execution_context(self):
            return None if 'create_execution_context' in control.failing else IExecutionContext(self)

    class IExecutionContext:
        __slots__ = ('_addresses', '_engine', '_input')

        def __init__(self, engine):
            self._engine, self._input, self._addresses = engine, None, {}

        def set_input_shape(self, name, shape):
            assert type(shape) in (tuple, list)
            low, _, high = self._engine._profiles[0][name]
            if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                return False
            self._input = tuple(shape)
            return True

        def infer_shapes(self):
            return ['image'] if self._input is None or 'infer_shapes' in control.failing else []

        def get_tensor_shape(self, name):
            if name == 'image':
                return self._input
            channels = self._engine._compiled.output(name).partial_shape[1].get_length()
            return [self._input[0], channels, self._input[2] // 8, self._input[3] // 8]

        def set_tensor_address(self, name, memory):
            if name not in self._engine._names or memory % 256 or 'set_tensor_address' in control.failing:
                return False
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle):
            assert stream_handle, 'on the default stream TensorRT synchronizes'
            assert set(self._addresses) == set(self._engine._names)
            if 'execute_async_v3' in control.failing:
                return False
            control.runs += 1
            results = self._engine._compiled(self._array('image').copy())
            for port in self._engine._compiled.outputs:
                values = self._array(port.any_name)
                values[:] = results[port]
                if control.spoil:
                    values[:] = np.nan if control.spoil == 'nan' else np.flip(values, 1)
            return True

        def _array(self, name):
            shape = tuple(self.get_tensor_shape(name))
            memory = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[name])
            return np.frombuffer(memory, np.float32).reshape(shape)

    kinds = (
        ILogger, IProgressMonitor, Builder, INetworkDefinition, ParserError, OnnxParser, IOptimizationProfile,
        IBuilderConfig, Runtime, ICudaEngine, IExecutionContext,
    )  # fmt: skip
    for kind in kinds:
        unreal = {name for name in vars(kind) if not name.startswith('_')} - names[kind.__name__]
        assert not unreal, f'{kind.__name__} of {version} has no {unreal}'
        setattr(module, kind.__name__, kind)
    for kind, values in enums.items():
        setattr(module, kind, values)
    return module


def rising(values):
    """Whether each value is at least the one before it."""
    return all(a <= b for a, b in pairwise(values))
