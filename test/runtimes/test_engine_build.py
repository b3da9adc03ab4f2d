"""Building engines: what TensorRT's parser says, and how its phases become one figure."""

import importlib
import logging
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from superpoint_ros.runtimes import Watch
from superpoint_ros.runtimes.engine_cache import EngineError

from .fake_tensorrt import NAMES, VERSIONS, rising


@pytest.fixture(params=VERSIONS)
def build_module(request, install):
    install(request.param)
    return importlib.import_module('superpoint_ros.runtimes.engine_build')


def unreadable():
    """A graph with an operator that the parser does not take, in two nodes."""
    image = helper.make_tensor_value_info('image', TensorProto.FLOAT, ['b', 1, 'h', 'w'])
    logits = helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['b', 1, 'h', 'w'])
    nodes = [
        helper.make_node('Celu', ['image'], ['middle'], name='/encoder/Celu'),
        helper.make_node('Celu', ['middle'], ['logits'], name='/detector/Celu'),
    ]
    graph = helper.make_graph(nodes, 'g', [image], [logits])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)]).SerializeToString()


def test_all_errors_of_the_parser_are_told_with_their_nodes(build_module):
    with pytest.raises(EngineError, match=r'cannot read the graph: .*/encoder/Celu.*Celu.*; .*/detector/Celu'):
        build_module.build(unreadable(), build_module.Profile(1, 64, 96), False, Watch())


def test_workspace_and_streams_are_limited(build_module, monkeypatch, model):
    seen = []
    trt = sys.modules['tensorrt']
    real = trt.Builder.build_serialized_network

    def spy(self, network, config):
        seen.append((config._limits, config.max_aux_streams))
        return real(self, network, config)

    monkeypatch.setattr(trt.Builder, 'build_serialized_network', spy)
    plan = build_module.build(model.graph.read_bytes(), build_module.Profile(2, 64, 96), False, Watch())
    assert isinstance(plan, bytes)
    assert seen == [({trt.MemoryPoolType.WORKSPACE: 1 << 30}, 0)]


def test_nested_phases_make_one_figure(build_module):
    told = []
    monitor = build_module.Monitor('building', Watch(lambda _, fraction: told.append(fraction)))
    monitor.phase_start('engine', None, 2)
    monitor.phase_start('tactics', 'engine', 4)
    assert monitor.step_complete('tactics', 0)
    assert told[-1] == pytest.approx(1 / 8, abs=0.01)
    assert monitor.step_complete('tactics', 1)
    assert told[-1] == pytest.approx(2 / 8, abs=0.01)
    monitor.phase_finish('tactics')  # before all its steps
    assert monitor.step_complete('engine', 0)
    assert told[-1] == 0.5
    assert monitor.step_complete('gone', 3)
    monitor.phase_start('timing', 'nobody', 3)
    assert monitor.step_complete('engine', 1)
    monitor.phase_finish('engine')
    assert told[-1] == 1
    assert rising(told)


def test_a_monitor_may_be_called_from_many_threads(build_module):
    told = []
    monitor = build_module.Monitor('building', Watch(lambda _, fraction: told.append(fraction)))
    monitor.phase_start('engine', None, 8)

    def work(index):
        for step in range(50):
            monitor.phase_start(f'{index}', 'engine', 50)
            monitor.step_complete(f'{index}', step)
            monitor.phase_finish(f'{index}')
        monitor.step_complete('engine', index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told
    assert max(told) <= 1


@pytest.mark.parametrize(
    ('severity', 'level'), [('INTERNAL_ERROR', 40), ('ERROR', 40), ('WARNING', 30), ('INFO', 10), ('VERBOSE', None)]
)
def test_what_tensorrt_says_goes_to_logging(build_module, caplog, severity, level):
    caplog.set_level(logging.DEBUG)
    log = build_module.trt_logger()
    assert log is build_module.trt_logger()
    log.errors.clear()
    log.log(getattr(sys.modules['tensorrt'].ILogger.Severity, severity), 'text')
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert list(log.errors) == (['text'] if level == logging.ERROR else [])


def test_a_log_handler_that_raises_does_not_reach_tensorrt(build_module, monkeypatch):
    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(build_module.logger, 'log', fail)
    build_module.trt_logger().log(sys.modules['tensorrt'].ILogger.Severity.ERROR, 'text')


@pytest.mark.parametrize('version', VERSIONS)
def test_the_stand_in_refuses_what_the_real_one_has_not(install, version):
    install(version)
    trt = sys.modules['tensorrt']
    log = importlib.import_module('superpoint_ros.runtimes.engine_build').trt_logger()
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    for wrong in ('max_workspace_size', 'int8_calibrator'):
        with pytest.raises(AttributeError):
            setattr(config, wrong, 1)
    assert hasattr(trt.BuilderFlag, 'FP16') == (version == '10.3.0')
    assert hasattr(trt.NetworkDefinitionCreationFlag, 'EXPLICIT_BATCH') == (version == '10.3.0')
    assert 'num_bindings' not in NAMES[version]['ICudaEngine']
    mixed = helper.make_model(
        helper.make_graph(
            [helper.make_node('Conv', ['image', 'weights'], ['logits'])],
            'half and float in one convolution',
            [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['b', 1, 'h', 'w'])],
            [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['b', 1, 'h', 'w'])],
            [onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float16), 'weights')],
        )
    )
    with pytest.raises(onnx.shape_inference.InferenceError, match='type'):
        trt.OnnxParser(builder.create_network(), log).parse(mixed.SerializeToString())
