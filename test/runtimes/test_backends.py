"""All back ends find the same keypoints, and refuse what they cannot run."""

import gc
import importlib
import logging
import shutil
import subprocess
import sys
import weakref

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper

from superpoint_ros.extractor import Extractor
from superpoint_ros.models import resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPointConfig
from superpoint_ros.runtimes import RuntimeConfig, Watch, load

from .conftest import lively


def runtime(model, backend, precision='fp32', **options):
    return load(model, RuntimeConfig(backend=backend, precision=precision, **options))


def pairs(first, second, tolerance):
    """Rows of two sets of keypoints that lie within a tolerance in pixels of each other, the nearest."""
    distance = np.abs(first.keypoints[:, None] - second.keypoints).max(axis=2)
    nearest = distance.argmin(axis=1)
    rows = np.flatnonzero(distance.min(axis=1) <= tolerance)
    return rows, nearest[rows]


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('limit', [40, 1000])
def test_the_same_keypoints_on_all_back_ends(model, picture, interpolation, limit):
    mask = np.ones_like(picture)
    mask[40:80, 60:120] = 0
    options = {'interpolation': interpolation, 'max_keypoints': limit, 'precision': 'fp32'}
    backends = ('openvino', 'torch')
    images, masks = [picture, picture[::-1].copy(), picture[:100, :160]], [mask, None, None]
    results = [Extractor(str(model.graph), backend=name, **options).batch(images, masks) for name in backends]
    for first, second in zip(*results, strict=True):
        rows, others = pairs(first, second, 0.02)
        assert len(first) > 25
        assert len(rows) >= 0.97 * max(len(first), len(second))  # the rest: scores that rounding puts in another order
        np.testing.assert_allclose(first.scores[rows], second.scores[others], rtol=1e-3)
        cosines = (first.descriptors[rows] * second.descriptors[others]).sum(axis=1)
        assert np.quantile(cosines, 0.02) > 0.9999


def test_bf16_hardly_changes_the_keypoints(model, picture):
    try:
        rough = Extractor(str(model.graph), backend='openvino', precision='bf16')(picture)
    except ValueError as error:
        pytest.skip(str(error))
    exact = Extractor(str(model.graph), backend='openvino', precision='fp32')(picture)
    rows, others = pairs(exact, rough, 1)
    assert len(rows) > 0.85 * len(exact)
    assert np.median((exact.descriptors[rows] * rough.descriptors[others]).sum(axis=1)) > 0.99


@pytest.mark.parametrize('backend', ['openvino', 'torch'])
def test_a_back_end_reports_its_name_device_precision_and_weights(model, backend):
    loaded = runtime(model, backend, threads=1)
    assert (loaded.name, loaded.precision, loaded.descriptor_size) == (backend, 'fp32', 32)
    assert loaded.device
    assert loaded.checksum == runtime(model, 'torch').checksum  # of the graph, and of the weights that it is made from


@pytest.mark.parametrize(
    ('backend', 'options'),
    [('openvino', {}), ('openvino', {'performance': 'throughput', 'pinning': False}), ('torch', {})],
)
def test_a_batch_gives_the_same_as_single_images(model, picture, backend, options):
    extract = Extractor(str(model.graph), backend=backend, precision='fp32', **options)
    images = [picture, picture[:, ::-1], picture.T, picture, picture[:64, :64]]
    for together, image in zip(extract.batch(images), images, strict=True):
        alone = extract(image)
        rows, others = pairs(together, alone, 0.02)
        assert len(rows) >= 0.97 * len(alone)
        np.testing.assert_allclose(together.scores[rows], alone.scores[others], rtol=1e-3)
    assert extract.batch([]) == []


def matcher():
    """A graph and a module that multiply two sets of vectors, each with an array of its own shape."""
    names = {'first': ['b', 'n', 'd'], 'second': ['b', 'd', 'm']}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()]
    outputs = [
        helper.make_tensor_value_info('similarity', TensorProto.FLOAT, ['b', 'n', 'm']),
        helper.make_tensor_value_info('half', TensorProto.FLOAT, ['b', 'n', 'd']),
    ]
    nodes = [
        helper.make_node('MatMul', ['first', 'second'], ['similarity']),
        helper.make_node('Constant', [], ['two'], value_float=2.0),
        helper.make_node('Div', ['first', 'two'], ['half']),
    ]
    graph = helper.make_graph(nodes, 'matcher', inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


class Matcher(torch.nn.Module):
    def forward(self, first, second):
        return {'similarity': first @ second, 'half': first / 2}


@pytest.mark.parametrize('backend', ['openvino', 'tensorrt', 'torch'])
def test_a_network_with_several_inputs_runs_on_every_back_end(backend, gpu):
    config = RuntimeConfig(precision='fp32', device='cpu' if backend == 'torch' else '', engine_batch=2)
    if backend == 'openvino':
        graph = openvino.Core().read_model(matcher().SerializeToString())
        network = importlib.import_module('superpoint_ros.runtimes.openvino').OpenVINONetwork(graph, config)
    elif backend == 'torch':
        network = importlib.import_module('superpoint_ros.runtimes.pytorch').TorchNetwork(Matcher(), config)
    else:
        module = importlib.import_module('superpoint_ros.runtimes.tensorrt')
        network = module.TensorRTNetwork(matcher(), 'matcher', 'fp32', config, lambda *_: None, Watch())
    rng = np.random.default_rng(0)
    for n, m in ((4, 3), (5, 2)):
        items = [{'first': rng.random((n, 8), np.float32), 'second': rng.random((8, m), np.float32)} for _ in range(5)]
        outputs = [{name: array.copy() for name, array in one.items()} for one in network(items)]
        for item, found in zip(items, outputs, strict=True):
            np.testing.assert_allclose(found['similarity'], item['first'] @ item['second'], rtol=1e-5)
            np.testing.assert_array_equal(found['half'], item['first'] / 2)


def test_auto_logs_its_choice(model, caplog):
    with caplog.at_level(logging.INFO):
        chosen = load(model, RuntimeConfig())
    assert f'back end: {chosen.name}' in caplog.text
    assert f'precision: {chosen.precision}' in caplog.text


@pytest.mark.parametrize('backend', ['openvino', 'torch'])
def test_unknown_devices_are_refused(model, backend):
    with pytest.raises(ValueError, match="device 'cuda:7'"):
        runtime(model, backend, device='cuda:7')


def test_unsupported_precisions_are_refused(model):
    with pytest.raises(ValueError, match=r'precision tf32: not supported by .*; available: fp32, .*int8$'):
        runtime(model, 'openvino', precision='tf32')


def test_a_device_without_a_precision_of_its_own_is_refused_in_one_sentence(model):
    with pytest.raises(ValueError, match=r"^device 'AUTO': not supported; available: .*CPU$"):
        runtime(model, 'openvino', device='AUTO')


def test_a_device_that_fails_later_is_named_in_one_sentence(model):
    network = runtime(model, 'openvino', device='CPU.5').network
    with pytest.raises(ValueError, match=r"^device 'CPU\.5': cannot run the network: CPU plugin supports .*$"):
        next(iter(network([{'image': np.zeros((1, 16, 16), np.uint8)}])))


@pytest.mark.parametrize('suffix', ['.safetensors', '.onnx'])
def test_a_graph_of_earlier_weights_is_refused(suffix, model, tmp_path):
    graph = shutil.copy(model.graph, tmp_path / 'weights.onnx')
    checkpoint.save(tmp_path / 'weights.safetensors', lively(SuperPointConfig((8, 8, 8, 8), 16, 16)))
    with pytest.raises(ValueError, match=r'made from other weights than .*; make it again with: superpoint export '):
        runtime(resolve(str(graph.with_suffix(suffix))), 'openvino')


@pytest.mark.parametrize(
    ('backend', 'there', 'missing'), [('openvino', 'safetensors', 'graph'), ('torch', 'onnx', 'weights')]
)
def test_a_missing_kind_of_file_is_named(model, backend, there, missing, tmp_path):
    path = tmp_path / f'alone.{there}'
    path.write_bytes((model.graph if there == 'onnx' else model.weights).read_bytes())
    with pytest.raises(FileNotFoundError, match=f'model alone: this back end needs the {missing}'):
        runtime(resolve(str(path)), backend)


def test_broken_graphs_are_refused_and_openvino_writes_nothing(model, tmp_path, capfd):
    whole = model.graph.read_bytes()
    path = tmp_path / 'broken.onnx'
    for content in (
        b'',
        b'hello',
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-5],
        whole.replace(b'Conv', b'C\xfenv'),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'broken\.onnx: not a complete \.onnx file'):
            runtime(resolve(str(path)), 'openvino')
    assert capfd.readouterr() == ('', '')


def test_a_graph_with_a_custom_operator_names_it(model, tmp_path):
    graph = onnx.load(model.graph)
    graph.graph.node[0].domain, graph.graph.node[0].op_type = 'com.example', 'Special'
    onnx.save(graph, tmp_path / 'custom.onnx')
    with pytest.raises(ValueError, match=r'expected standard ONNX operators only, found com\.example\.Special'):
        runtime(resolve(str(tmp_path / 'custom.onnx')), 'openvino')


def graph_of(path, inputs, outputs, kernel=8):
    """A graph of one convolution with zero weights for each output."""
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    wanted = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
    weights = [
        helper.make_tensor(
            f'w{i}', TensorProto.FLOAT, [s[1], 1, kernel, kernel], np.zeros(s[1] * kernel**2, np.float32)
        )
        for i, s in enumerate(outputs.values())
    ]
    first = next(iter(inputs))
    nodes = [helper.make_node('Conv', [first, f'w{i}'], [n], strides=[8, 8]) for i, n in enumerate(outputs)]
    graph = helper.make_graph(nodes, 'other', given, wanted, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)


@pytest.mark.parametrize(
    ('inputs', 'outputs', 'message'),
    [
        ({'image': [1, 1, 64, 64]}, {'logits': [1, 65, 8, 8]}, 'expected one input, image'),
        (
            {'image': ['b', 1, 'h', 'w'], 'more': ['b', 1, 'h', 'w']},
            {'logits': ['b', 65, 'r', 'c']},
            'expected one input, image',
        ),
        ({'image': ['b', 1, 'h', 'w']}, {'boxes': ['b', 65, 'r', 'c']}, r'expected the outputs .*, found boxes'),
        (
            {'image': ['b', 1, 'h', 'w']},
            {'logits': ['b', 64, 'r', 'c']},
            r'output logits: expected float32 \(batch, 65, rows, columns\)',
        ),
    ],
)
def test_graphs_of_other_networks_are_refused(inputs, outputs, message, tmp_path):
    path = tmp_path / 'other.onnx'
    graph_of(path, inputs, outputs)
    with pytest.raises(ValueError, match=message) as error:
        runtime(resolve(str(path)), 'openvino')
    assert str(path) in str(error.value)


def test_a_graph_that_cannot_run_on_images_is_refused(tmp_path):
    path = tmp_path / 'other.onnx'
    graph_of(path, {'image': ['b', 1, 'h', 'w']}, {'logits': ['b', 65, 'r', 'c']}, kernel=60)
    with pytest.raises(ValueError, match=r'other\.onnx: cannot run on images of 80×48 pixels: .*larger than'):
        runtime(resolve(str(path)), 'openvino')


def test_a_graph_of_another_tool_with_our_outputs_runs(tmp_path, picture):
    path = tmp_path / 'other.onnx'
    graph_of(path, {'image': ['b', 1, 'h', 'w']}, {'logits': ['b', 65, 'r', 'c'], 'descriptors': ['b', 5, 'r', 'c']})
    features = Extractor(str(path), backend='openvino', threshold=0.01)(picture)
    assert features.descriptors.shape[1] == 5
    np.testing.assert_allclose(features.scores, 1 / 65, rtol=1e-5)


AFTER_TWO = """
import gc, os, signal, sys, time
from superpoint_ros.extractor import Extractor

signal.signal(signal.SIGINT, signal.default_int_handler)
extractors = [Extractor(sys.argv[1], backend='openvino') for _ in range(2)]
while extractors:
    del extractors[0]
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    print('interrupted')
"""


def test_a_dropped_network_leaves_memory_at_once(model):
    network = load(model, RuntimeConfig(backend='openvino', precision='fp32')).network
    for heads in network([{'image': np.zeros((1, 16, 16), np.uint8)}]):
        assert heads['score_map'].shape == (16, 16)
    memory = weakref.ref(network)
    gc.disable()
    try:
        del network, heads
        assert memory() is None
    finally:
        gc.enable()


def test_an_interrupt_after_extractors_are_deleted(model):
    """This was a segmentation fault: OpenVINO left signal handlers on the stack of a deleted Core."""
    process = subprocess.run(
        [sys.executable, '-c', AFTER_TWO, str(model.graph)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (process.returncode, process.stdout) == (0, 'interrupted\n'), process.stderr


@pytest.mark.parametrize('asked', [0, 10])
def test_networks_for_enough_sizes_are_kept_and_too_few_are_logged(model, caplog, asked):
    network = load(model, RuntimeConfig(backend='openvino', precision='fp32')).network
    network.keep(asked)
    caplog.set_level(logging.WARNING, 'superpoint_ros')
    for width in [*range(16, 16 + 8 * 10, 8)] * 2:
        for heads in network([{'image': np.zeros((1, 16, width), np.uint8)}]):
            assert heads['score_map'].shape == (16, width)
    expected = 'more than 8 sizes of images are in use, so that a network is compiled again for 16x16; use fewer sizes'
    assert [record.message for record in caplog.records][:1] == ([] if asked else [expected])
