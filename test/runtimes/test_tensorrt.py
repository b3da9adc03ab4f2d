"""The TensorRT back end, with stand-ins for TensorRT and CUDA: what we ask of them, and what we do when they fail."""

import gc
import importlib
import json
import logging
import os
import signal
import sys
import time

import cv2
import numpy as np
import onnx
import pytest

from superpoint_ros import runtimes
from superpoint_ros.commands.export import export as export_command
from superpoint_ros.extractor import Extractor
from superpoint_ros.models import Model, resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPointConfig
from superpoint_ros.runtimes import RuntimeConfig, Watch, export
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError

from .conftest import lively


@pytest.fixture
def images():
    return list(np.random.default_rng(0).integers(0, 256, (3, 64, 96), np.uint8))


def load(model, watch=None, **options):
    return runtimes.load(model, RuntimeConfig(backend='tensorrt', **options), watch)


def run(runtime, images):
    return [{name: head.copy() for name, head in heads.items()} for heads in runtime(images)]


def engines(tmp_path):
    return sorted((tmp_path / 'cache').rglob('*.engine'))


@pytest.mark.parametrize('batch', [1, 2, 4])
def test_the_same_heads_as_openvino(gpu, model, images, batch):
    openvino = runtimes.load(model, RuntimeConfig(backend='openvino', precision='fp32'))
    runtime = load(model, precision='fp32', engine_batch=batch)
    assert (runtime.name, runtime.device, runtime.precision) == ('tensorrt', 'Orin', 'fp32')
    assert (runtime.descriptor_size, runtime.checksum) == (openvino.descriptor_size, openvino.checksum)
    for part in (images, images[:1], images[1:]):
        for found, expected in zip(run(runtime, part), run(openvino, part), strict=True):
            np.testing.assert_allclose(found['score_map'], expected['score_map'], atol=1e-4)
            np.testing.assert_allclose(found['descriptors'], expected['descriptors'], rtol=1e-3, atol=1e-3)
            assert found['descriptors'].dtype == np.float16
    assert gpu.builds == 1


def test_magicpoint_has_no_descriptors(gpu, images, tmp_path):
    network = lively(SuperPointConfig((8, 8, 16, 16), head_channels=32, descriptor_size=0))
    checkpoint.save(tmp_path / 'points.safetensors', network)
    export.export(tmp_path / 'points.safetensors', tmp_path / 'points.onnx')
    assert run(load(resolve(str(tmp_path / 'points.onnx'))), images)[0].keys() == {'score_map'}


def test_the_extractor_runs_on_it(gpu, model):
    image = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    expected, found = (
        Extractor(str(model.graph), backend=backend, precision='fp32')(image) for backend in ('openvino', 'tensorrt')
    )
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=1e-3)


def test_engines_of_configured_sizes_are_built_at_the_start(gpu, model, images):
    runtime = load(model, engine_sizes=('96x64', '61x60'))  # the network sees multiples of 8
    assert gpu.builds == 2
    assert [heads['score_map'].shape for heads in run(runtime, images)] == [(64, 96)] * 3
    gpu.spoil = 1
    with pytest.raises(EngineError, match='disagrees with its graph'):
        load(model, engine_sizes=('128x64',))


def test_images_are_padded_to_the_next_larger_engine(gpu, model, images):
    options = {'backend': 'tensorrt', 'precision': 'fp32', 'border': 0}
    extractor = Extractor(str(model.graph), engine_sizes=('128x128', '96x72', '64x64'), **options)
    image = images[0][:, :90]
    features = extractor(image, mask=np.arange(90) < 60 + np.zeros((64, 1)))
    assert features.image_size == (90, 64)
    assert len(features) > 20
    assert features.keypoints.max(axis=0)[0] < 60
    assert next(extractor.runtime([image[:, :88]]))['score_map'].shape == (72, 96)
    assert gpu.builds == 3
    with pytest.raises(ValueError, match=r'reach the network at 136x64, larger than engine_sizes \(128x128, 96x72'):
        extractor(np.zeros((64, 130), np.uint8))


def test_precision_is_in_the_graph_and_tf32_in_the_build(gpu, model, images, tmp_path):
    for precision, used, tf32 in (('auto', 'fp16', False), ('fp32', 'fp32', False), ('tf32', 'tf32', True)):
        runtime = load(model, precision=precision)
        run(runtime, images)
        assert (runtime.precision, gpu.tf32) == (used, tf32)
    assert [path.name[:18] for path in engines(tmp_path)] == [f'small-1x64x96-{p}' for p in ('fp16', 'fp32', 'tf32')]
    with pytest.raises(ValueError, match='precision bf16: not supported by back end tensorrt; available: fp32, tf32'):
        load(model, precision='bf16')


def test_quantized_graphs_are_refused_with_the_alternative(gpu, model, tmp_path):
    with pytest.raises(
        ValueError, match=r'precision int8: not supported .* use the graph in float32 with precision fp16'
    ):
        load(model, precision='int8')
    graph = onnx.load(model.graph)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.1), 'scale'))
    first = graph.graph.node[0]
    quantize = onnx.helper.make_node('QuantizeLinear', ['image', 'scale'], ['levels'])
    dequantize = onnx.helper.make_node('DequantizeLinear', ['levels', 'scale'], ['pixels'])
    first.input[0] = 'pixels'
    for node in (dequantize, quantize):
        graph.graph.node.insert(0, node)
    onnx.save(graph, tmp_path / 'small_int8.onnx')
    with pytest.raises(ValueError, match=r'small_int8\.onnx: quantized: not supported by back end tensorrt'):
        load(Model('small_int8', None, tmp_path / 'small_int8.onnx'))


def test_engines_are_kept_with_a_note_of_what_they_depend_on(gpu, model, images, tmp_path):
    for _ in range(2):
        run(load(model), images)
    assert gpu.builds == 1
    (engine,) = engines(tmp_path)
    note = json.loads(engine.with_suffix('.json').read_text())
    assert (note['tensorrt'], note['driver'], note['batch']) == ('10.3.0', 12060, 1)
    assert (note['gpu'], note['compute capability'], note['multiprocessors']) == ('Orin', '8.7', 16)
    assert note['shapes'] == {'image': [1, 64, 96]}
    run(load(model, engine_batch=2), images)
    assert gpu.builds == 2


def test_an_engine_that_does_not_load_is_built_again(gpu, model, images, tmp_path, caplog, monkeypatch):
    run(load(model), images)
    (path,) = engines(tmp_path)
    path.write_bytes(b'damaged')
    deserialize = sys.modules['tensorrt'].Runtime.deserialize_cuda_engine
    monkeypatch.setattr(
        sys.modules['tensorrt'].Runtime,
        'deserialize_cuda_engine',
        lambda self, plan: None if plan == b'damaged' else deserialize(self, plan),
    )
    run(load(model), images)
    assert gpu.builds == 2
    assert 'is not used but built again' in caplog.text


def test_running_out_of_memory_does_not_condemn_an_engine(gpu, model, images):
    run(load(model), images)
    reason = 'Error Code 2: OutOfMemory (no further information)'
    runtime = load(model)
    for name in ('deserialize_cuda_engine', 'create_execution_context', 'cudaMalloc'):
        gpu.failing = {name: reason}
        with pytest.raises(MemoryError, match=r'of memory|OfMemory'):
            run(runtime, images)
    gpu.failing = {}
    assert len(run(runtime, images)) == 3
    assert gpu.builds == 1


@pytest.mark.parametrize(
    ('failing', 'message'),
    [
        ('Builder', 'made no Builder: CUDA error'),
        ('create_builder_config', 'made no builder configuration: CUDA error'),
        ('parse', 'cannot read the graph: node 0: CUDA error; node 1: CUDA error'),
        ('add_optimization_profile', 'refuses the shapes 1x64x96: CUDA error'),
        ('build_serialized_network', 'made no engine: CUDA error'),
        ('deserialize_cuda_engine', 'made no engine: CUDA error'),
        ('set_input_shape', r'does not take image of \(1, 1, 64, 96\): CUDA error'),
        ('set_tensor_address', 'refuses the memory for image: CUDA error'),
        ('execute_async_v3', 'did not run: CUDA error'),
    ],
)
def test_failures_of_tensorrt_are_reported_and_not_repeated(gpu, model, images, tmp_path, failing, message):
    gpu.failing = {failing: 'CUDA error'}
    runtime = load(model)
    for _ in range(2):
        with pytest.raises(EngineError, match=message):
            run(runtime, images)
    assert gpu.builds <= 1
    assert not engines(tmp_path)


def test_a_run_that_fails_later_does_not_affect_the_next(gpu, model, images):
    runtime = load(model)
    expected = run(runtime, images)
    gpu.failing = {'execute_async_v3': 'CUDA error'}
    with pytest.raises(EngineError, match='did not run'):
        run(runtime, images[::-1])
    gpu.failing = {}
    np.testing.assert_array_equal(run(runtime, images)[0]['score_map'], expected[0]['score_map'])


def test_memory_is_released_with_the_runtime(gpu, model, images):
    runtime = load(model)
    heads = next(runtime(images))
    gc.disable()
    try:
        del runtime
        assert len(gpu.memory) == 2, 'the views of two outputs keep their host memory'
        del heads
        assert not gpu.memory
    finally:
        gc.enable()


@pytest.mark.parametrize(('spoil', 'message'), [(1, 'disagrees with its graph'), (np.nan, 'is not finite')])
def test_a_miscompiled_engine_is_not_kept(gpu, model, images, tmp_path, spoil, message):
    gpu.spoil = spoil
    with pytest.raises(EngineError, match=f'{message}.*; try precision fp32'):
        run(load(model), images)
    assert not engines(tmp_path)


def test_an_engine_that_cannot_be_checked_is_not_built_again(gpu, model, images, monkeypatch):
    def read(data):
        raise cv2.error('Unsupported data type: FLOAT16')  # of OpenCV before 4.8

    monkeypatch.setattr(cv2.dnn, 'readNetFromONNX', read)
    runtime = load(model)
    for _ in range(2):
        with pytest.raises(EngineError, match=r'cannot be checked, because OpenCV .* use a graph in float32'):
            run(runtime, images)
    assert gpu.builds == 1


def test_progress_is_reported_and_logged(gpu, model, images, caplog):
    reports = []
    caplog.set_level(logging.INFO)
    run(load(model, Watch(lambda what, fraction: reports.append((what, fraction)))), images)
    assert {what for what, _ in reports} == {'building a TensorRT engine for 1x64x96: Tactics'}
    assert [fraction for _, fraction in reports] == pytest.approx([step / 20 for step in range(1, 21)])
    percents = [record.getMessage()[-5:] for record in caplog.records if record.getMessage().endswith(' %')]
    assert percents == [f'{10 * tens} %'.rjust(5) for tens in range(1, 11)]


def test_a_report_that_raises_does_not_stop_a_build(gpu, model, images):
    def report(what, fraction):
        raise RuntimeError

    assert len(run(load(model, Watch(report)), images)) == 3


def test_a_build_can_be_cancelled_and_started_again(gpu, model, images, tmp_path):
    watch = Watch()
    steps = []

    def step():
        steps.append(1)
        if len(steps) == 3:
            watch.cancel.set()

    gpu.on_step = step
    runtime = load(model, watch)
    with pytest.raises(BuildCancelledError, match='for 1x64x96 was not built: cancelled'):
        run(runtime, images)
    assert len(steps) == 3
    assert not engines(tmp_path)
    watch.cancel.clear()
    assert len(run(runtime, images)) == 3


def test_an_interrupt_cancels_a_build(gpu, model, tmp_path):
    steps = []

    def step():
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # until the main thread has noticed

    gpu.on_step = step
    with pytest.raises(KeyboardInterrupt):
        load(model, engine_sizes=('96x64', '64x64'))
    assert len(steps) < 10
    assert not engines(tmp_path)


def test_export_keeps_engines_or_writes_one_to_a_file(gpu, model, tmp_path):
    config = RuntimeConfig(engine_sizes=('96x64', '64x60'), engine_batch=2)
    written = export_command(str(model.graph), format='tensorrt', runtime=config)
    assert sorted(written.splitlines()) == [str(path) for path in engines(tmp_path)]
    load(model, engine_sizes=('64x64',), engine_batch=2)
    assert gpu.builds == 2
    output = tmp_path / 'out' / 'small.plan'
    one = RuntimeConfig(engine_sizes=('96x64',), engine_batch=2)
    assert export_command(str(model.graph), output, 'tensorrt', one) == str(output)
    assert output.read_bytes() in [path.read_bytes() for path in engines(tmp_path)]
    gpu.failing['serialize'] = 'no memory left'
    with pytest.raises(EngineError, match='made no plan: no memory left'):
        export_command(str(model.graph), output, 'tensorrt', one)
    for sizes in ((), ('96x64', '64x60')):
        with pytest.raises(ValueError, match='engine_sizes: give the size to build for'):
            export_command(str(model.graph), output, 'tensorrt', RuntimeConfig(engine_sizes=sizes))


def test_export_says_if_engines_cannot_be_kept(gpu, model, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(OSError, match='could not be kept'):
        export_command(str(model.graph), format='tensorrt', runtime=RuntimeConfig(engine_sizes=('96x64',)))


@pytest.mark.parametrize('version', ['8.6.1', '9.3.0.post12.dev1'])
def test_old_versions_are_refused(gpu, model, version, monkeypatch):
    monkeypatch.setattr(sys.modules['tensorrt'], '__version__', version)
    with pytest.raises(ImportError, match=rf'needs tensorrt 10\.0 or newer, found {version}'):
        load(model)


@pytest.mark.parametrize('error', [ImportError('no module'), OSError('libnvdla_compiler.so: cannot open')])
def test_a_tensorrt_that_does_not_load_names_the_reason(model, monkeypatch, error):
    real = importlib.import_module

    def fail(name, *args):
        if name == 'tensorrt':
            raise error
        return real(name, *args)

    monkeypatch.setattr(importlib, 'import_module', fail)
    with pytest.raises(ImportError, match=rf'needs tensorrt, which does not load \({error}\); .*docs/jetson\.md'):
        load(model)


def test_a_gpu_that_does_not_exist_is_refused():
    cuda = pytest.importorskip('superpoint_ros.runtimes.cuda', reason='needs cuda-python')
    with pytest.raises(ValueError, match=r"device 'cpu': expected cuda, or cuda:0, cuda:1, …"):
        cuda.find_device('cpu')
    with pytest.raises(ValueError, match=r'device cuda:99: (no NVIDIA GPU can be used|CUDA finds)'):
        cuda.find_device('cuda:99')
