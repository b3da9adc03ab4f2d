"""The TensorRT back end against a strict stand-in of the module tensorrt, in two versions."""

import gc
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from superpoint_ros import runtimes
from superpoint_ros.decode import DecodeConfig, decode
from superpoint_ros.extractor import Extractor
from superpoint_ros.models import Model, resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPointConfig
from superpoint_ros.runtimes import RuntimeConfig, Watch, export
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError

from .conftest import lively
from .fake_tensorrt import VERSIONS, rising

CONFIG = DecodeConfig(max_keypoints=100)


@pytest.fixture(params=VERSIONS)
def control(request, install):
    return install(request.param)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 96), np.uint8)


def load(model, watch=None, **options):
    return runtimes.load(model, RuntimeConfig(backend='tensorrt', **options), watch)


def run(runtime, images, masks=None):
    height, width = images.shape[1:]
    heads = runtime(images)
    return [decode(h, (width, height - 3), CONFIG, m) for h, m in zip(heads, masks or [None] * 3, strict=False)]


def engines(tmp_path):
    return sorted((tmp_path / 'cache').rglob('*.engine'))


@pytest.mark.parametrize(('batch', 'masked'), [(1, False), (2, True), (4, False)])
def test_the_same_features_as_torch(control, model, images, batch, masked):
    masks = [np.arange(96) > 40 + np.zeros((64, 1)), None, None] if masked else None
    torch_runtime = runtimes.load(model, RuntimeConfig(backend='torch', device='cpu', precision='fp32'))
    runtime = load(model, precision='fp32', engine_batch=batch)
    assert (runtime.name, runtime.device, runtime.precision) == ('tensorrt', 'Orin', 'fp32')
    assert runtime.descriptor_size == torch_runtime.descriptor_size == 32
    assert runtime.checksum == torch_runtime.checksum
    for _ in range(2):
        for found, expected in zip(run(runtime, images, masks), run(torch_runtime, images, masks), strict=True):
            assert len(expected.scores) > 20
            np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
            np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=1e-3)
    assert control.builds == 1
    assert control.runs == 1 + 2 * -(-3 // batch)  # the check of the engine, and each part of each batch


def test_magicpoint_has_no_descriptors(control, images, tmp_path):
    network = lively(SuperPointConfig((8, 8, 16, 16), head_channels=32, descriptor_size=0))
    checkpoint.save(tmp_path / 'points.safetensors', network)
    export.export(tmp_path / 'points.safetensors', tmp_path / 'points.onnx')
    for found in run(load(resolve(str(tmp_path / 'points.onnx'))), images):
        assert found.descriptors.shape == (len(found.scores), 0)
        assert len(found.scores) > 20


def test_the_extractor_runs_on_it(control, model):
    image = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    expected, found = (
        Extractor(str(model.graph), backend=backend, precision='fp32')(image) for backend in ('openvino', 'tensorrt')
    )
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=1e-3)


def test_precision_is_in_the_graph_and_tf32_in_the_build(control, model, images):
    for precision, used, tf32 in (('auto', 'fp16', False), ('fp16', 'fp16', False), ('tf32', 'tf32', True)):
        runtime = load(model, precision=precision)
        run(runtime, images)
        assert runtime.precision == used
        if precision != 'fp16':  # which is in the cache by now
            assert control.tf32 == tf32
    strongly_typed = 1 << sys.modules['tensorrt'].NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert control.flags == [strongly_typed] * 2
    with pytest.raises(ValueError, match='precision bf16: back end tensorrt has fp32, tf32 and fp16'):
        load(model, precision='bf16')


def test_engines_are_kept_with_a_note_of_what_they_depend_on(control, model, images, tmp_path):
    run(load(model), images)
    run(load(model), images)
    assert control.builds == 1
    (engine,) = engines(tmp_path)
    assert engine.name.startswith('small-96x64-fp16-')
    note = json.loads(engine.with_suffix('.json').read_text())
    assert note['tensorrt'] == sys.modules['tensorrt'].__version__
    assert (note['gpu'], note['compute capability'], note['multiprocessors']) == ('Orin', '8.7', 16)
    assert note['shapes'] == [[1, 1, 64, 96], [1, 1, 64, 96]]
    assert len(note['graph']) == len(note['sha256']) == 64


@pytest.mark.parametrize('damage', ['cut short', 'other bytes', 'another version of TensorRT', 'no note'])
def test_a_bad_engine_is_built_again_once(control, model, images, tmp_path, damage, caplog):
    run(load(model), images)
    (engine,) = engines(tmp_path)
    note = engine.with_suffix('.json')
    whole = engine.read_bytes()
    if damage == 'cut short':
        engine.write_bytes(whole[:-10])
    elif damage == 'no note':
        note.unlink()
    else:
        import hashlib

        version = sys.modules['tensorrt'].__version__.encode()
        content = b'x' * 100 if damage == 'other bytes' else whole.replace(version, b'10.0.9')
        engine.write_bytes(content)
        told = json.loads(note.read_text()) | {'sha256': hashlib.sha256(content).hexdigest()}
        note.write_text(json.dumps(told))
    assert len(run(load(model), images)) == 3
    assert control.builds == 2
    assert engine.read_bytes() == whole
    run(load(model), images)
    assert control.builds == 2
    if damage in ('other bytes', 'another version of TensorRT'):
        assert 'is no good, building it again' in caplog.text


def test_what_never_loads_is_built_once_and_not_kept(control, model, images, tmp_path):
    control.failing = {'deserialize_cuda_engine'}
    runtime = load(model)
    for _ in range(2):
        with pytest.raises(EngineError, match=r'made no engine: .*magicTagRead'):
            run(runtime, images)
    assert control.builds == 1
    assert not engines(tmp_path)


@pytest.mark.parametrize(
    ('failing', 'message'),
    [
        ('Builder', 'made no Builder: CUDA initialization failure'),
        ('create_network', 'made no network'),
        ('create_builder_config', 'made no builder configuration'),
        ('add_optimization_profile', 'refuses the size 96×64'),
        ('build_serialized_network', 'cannot build an engine for 96×64: Could not find any implementation for node'),
        ('get_tensor_dtype', 'image of the TensorRT engine is .*, expected float32'),
        ('infer_shapes', 'wants more inputs than image'),
        ('set_tensor_address', 'refuses the memory for image'),
        ('execute_async_v3', 'did not run'),
    ],
)
def test_each_failure_is_told(control, model, images, failing, message):
    control.failing = {failing}
    with pytest.raises(EngineError, match=message):
        run(load(model), images)


def test_lack_of_memory_does_not_condemn_an_engine(control, model, images):
    run(load(model), images)
    runtime = load(model)
    control.failing = {'create_execution_context'}
    with pytest.raises(MemoryError, match='no execution context'):
        run(runtime, images)
    control.failing = set()
    assert len(run(runtime, images)) == 3
    assert control.builds == 1


def test_all_is_freed_with_the_runtime(control, model, images):
    runtime = load(model)
    run(runtime, images)
    engine = weakref.ref(next(iter(runtime._engines.values())))
    gc.disable()
    try:
        del runtime
        assert engine() is None
    finally:
        gc.enable()


def test_a_run_that_fails_later_is_told_and_the_next_works(control, model, images):
    runtime = load(model)
    run(runtime, images)
    control.failing = {'execute_async_v3'}
    with pytest.raises(EngineError, match='did not run'):
        run(runtime, images)
    control.failing = set()
    assert len(run(runtime, images)) == 3


def test_memory_that_is_not_aligned_is_refused(control, model, images, monkeypatch):
    module = importlib.import_module('superpoint_ros.runtimes.tensorrt')
    good = module.buffer
    monkeypatch.setattr(module, 'buffer', lambda shape, device: good((*shape[:-1], shape[-1] + 1), device)[..., 1:])
    with pytest.raises(EngineError, match='contiguous and start at a multiple of 256'):
        run(load(model), images)


def test_sizes_that_were_not_configured_are_refused(control, model, images):
    runtime = load(model, engine_sizes=('640x480', '91x64'))  # the network sees multiples of 8
    assert len(run(runtime, images)) == 3
    with pytest.raises(ValueError, match='images reach the network at 96x72, and engine_sizes has only 640x480, 96x64'):
        run(runtime, np.zeros((1, 72, 96), np.uint8))
    with pytest.raises(ValueError, match="engine_sizes: expected WIDTHxHEIGHT as 640x480, got '640×480'"):
        RuntimeConfig(engine_sizes=('640×480',))


def test_an_interrupt_ends_a_build_ahead(control, model, tmp_path):
    steps = []

    def step():
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # until the main thread has noticed

    control.on_step = step
    build_engines = importlib.import_module('superpoint_ros.runtimes.tensorrt').build_engines
    with pytest.raises(KeyboardInterrupt):
        build_engines(model, RuntimeConfig(backend='tensorrt', engine_sizes=('96x64', '64x64')))
    assert len(steps) < 30
    assert not engines(tmp_path)


def test_the_export_command_makes_engines(control, model, tmp_path, install):
    from superpoint_ros.runtimes.command import export as command

    config = RuntimeConfig(backend='tensorrt', engine_sizes=('96x64',))
    assert command(str(model.graph), format='tensorrt', runtime=config) == str(engines(tmp_path)[0])
    install('8.6.1')
    with pytest.raises(ImportError, match=r'needs tensorrt 10\.0 or newer'):
        command(str(model.graph), format='tensorrt', runtime=config)


def test_the_command_makes_them_ahead_or_says_why_not(control, model, tmp_path, monkeypatch):
    build_engines = importlib.import_module('superpoint_ros.runtimes.tensorrt').build_engines
    config = RuntimeConfig(backend='tensorrt', engine_sizes=('96x64', '64x60'))
    assert sorted(build_engines(model, config)) == engines(tmp_path)
    assert [path.name[:12] for path in engines(tmp_path)] == ['small-64x64-', 'small-96x64-']
    with pytest.raises(ValueError, match='engine_sizes: give the sizes'):
        build_engines(model, RuntimeConfig(backend='tensorrt'))
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(OSError, match='could not be kept'):
        build_engines(model, config)


def test_engines_can_be_made_ahead(control, model, images, tmp_path):
    runtime = load(model, engine_sizes=('96x64', '64x64'))
    paths = [runtime.prepare(96, 64), runtime.prepare(64, 64)]
    assert sorted(paths) == engines(tmp_path)
    assert control.builds == 2
    run(load(model), images)
    assert control.builds == 2


@pytest.mark.parametrize(
    ('spoil', 'message'), [(True, 'disagrees with the network: correlation of'), ('nan', 'not finite')]
)
def test_a_miscompiled_engine_is_noticed(control, model, images, tmp_path, spoil, message):
    control.spoil = spoil
    with pytest.raises(EngineError, match=f'{message}.*try precision fp32, or the back end torch'):
        run(load(model), images)
    assert not engines(tmp_path)


def test_without_weights_only_finite_values_are_asked_for(control, model, images, caplog):
    run(load(Model('small', None, model.graph)), images)
    assert 'has no .safetensors file' in caplog.text


def test_progress_is_told(control, model, images, caplog):
    told = []
    caplog.set_level(logging.INFO)
    run(load(model, Watch(lambda what, fraction: told.append((what, fraction)))), images)
    whats, fractions = zip(*told, strict=True)
    assert set(whats) == {'building a TensorRT engine for 96×64'}
    assert len(fractions) > 20
    assert rising(fractions)
    assert fractions[-1] == 1
    lines = [record.getMessage() for record in caplog.records if '%' in record.getMessage()]
    assert [line.rpartition(': ')[2] for line in lines] == [f'{tens}0 %' if tens else '0 %' for tens in range(11)]


def test_a_build_can_be_cancelled_and_begun_again(control, model, images, tmp_path):
    watch = Watch()
    steps = []

    def after_three():
        steps.append(1)
        if len(steps) == 3:
            watch.cancel.set()

    control.on_step = after_three
    runtime = load(model, watch)
    with pytest.raises(BuildCancelledError, match='for 96×64 was not built: cancelled'):
        run(runtime, images)
    assert len(steps) == 3
    assert not engines(tmp_path)
    watch.cancel.clear()
    assert len(run(runtime, images)) == 3


def test_a_report_that_raises_does_not_stop_the_build(control, model, images):
    def report(what, fraction):
        raise RuntimeError

    assert len(run(load(model, Watch(report)), images)) == 3


def test_the_callers_thread_builds_while_others_go_on(control, model, images):
    going = threading.Event()
    ticked = threading.Event()

    def step():
        going.set()
        assert ticked.wait(30)

    control.on_step = step
    runtime = load(model)
    results = []
    worker = threading.Thread(target=lambda: results.append(run(runtime, images)))
    worker.start()
    assert going.wait(30)
    ticked.set()
    worker.join()
    assert len(results[0]) == 3


@pytest.mark.parametrize('version', ['8.6.1', '9.3.0.post12.dev1'])
def test_old_versions_are_refused(install, model, version):
    install(version)
    with pytest.raises(ImportError, match=rf'needs tensorrt 10\.0 or newer, found {version}'):
        load(model)


@pytest.mark.parametrize('error', [ImportError('no module'), OSError('libnvdla_compiler.so: cannot open')])
def test_a_tensorrt_that_does_not_load_is_told(model, monkeypatch, error):
    real = importlib.import_module

    def fail(name, *args):
        if name == 'tensorrt':
            raise error
        return real(name, *args)

    monkeypatch.setattr(importlib, 'import_module', fail)
    with pytest.raises(ImportError, match=rf'needs tensorrt, which does not load \({error}\); .*docs/jetson\.md'):
        load(model)


def test_without_a_gpu_it_is_told(control, model, monkeypatch):
    module = importlib.import_module('superpoint_ros.runtimes.tensorrt')
    monkeypatch.undo()
    assert torch.cuda.device_count() == 0 or pytest.skip('a CUDA device was found')
    with pytest.raises(ValueError, match=r'device cuda: back end tensorrt needs an NVIDIA GPU, and torch .* sees 0'):
        module.cuda_device('')
    with pytest.raises(ValueError, match='device cpu'):
        module.cuda_device('cpu')
