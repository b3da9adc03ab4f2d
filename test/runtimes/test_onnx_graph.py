"""The graphs that TensorRT gets, run by ONNX's evaluator, OpenVINO and ONNX Runtime."""

import importlib.util

import numpy as np
import onnx
import onnx.reference
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from superpoint_ros import runtimes
from superpoint_ros.commands.export import export as export_command
from superpoint_ros.decode import score_map
from superpoint_ros.models import Model
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.runtimes import RuntimeConfig, export, onnx_graph

from .conftest import lively


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).random((2, 1, 48, 64), np.float32)


@pytest.fixture(scope='module')
def network(model):
    return checkpoint.fold(checkpoint.load(model.weights))


@pytest.fixture(scope='module')
def graphs(model):
    graph, _ = onnx_graph.read_image_network(model.graph)
    return {'fp32': graph, 'fp16': onnx_graph.with_precision(graph, 'fp16')}


def evaluator(graph, images):
    return onnx.reference.ReferenceEvaluator(graph).run(None, {'image': images})


def by_openvino(graph, images):
    exact = {openvino.properties.hint.inference_precision: openvino.Type.f32}
    compiled = openvino.compile_model(openvino.Core().read_model(graph.SerializeToString()), 'CPU', exact)
    return list(compiled(images).values())


def by_onnx_runtime(graph, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run(None, {'image': images})


def copied(graph):
    return onnx.ModelProto.FromString(graph.SerializeToString())


RUNNERS = [
    evaluator,
    by_openvino,
    pytest.param(
        by_onnx_runtime,
        marks=pytest.mark.skipif(not importlib.util.find_spec('onnxruntime'), reason='onnxruntime is not installed'),
    ),
]


@pytest.mark.parametrize('runner', RUNNERS)
@pytest.mark.parametrize(('precision', 'tolerance'), [('fp32', 1e-5), ('fp16', 1e-2)])
def test_graphs_and_the_network_give_the_same(graphs, network, images, runner, precision, tolerance):
    with torch.inference_mode():
        expected = [tensor.numpy() for tensor in network(torch.from_numpy(images)).values()]
    found = runner(graphs[precision], images)
    for one, reference in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, reference, atol=tolerance * np.abs(reference).max())


@pytest.mark.parametrize('runner', RUNNERS)
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_graphs_with_heads_take_bytes_and_give_heads(graphs, runner, precision):
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 48, 64), np.uint8)
    logits, descriptors = runner(graphs[precision], images.astype(np.float32) / 255)
    heads = runner(onnx_graph.with_heads(graphs[precision]), images)
    assert [head.dtype for head in heads] == [np.float32, np.float16]
    for one, raw in zip(heads[0], logits, strict=True):
        np.testing.assert_allclose(one, score_map(raw), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(heads[1], descriptors.transpose(0, 2, 3, 1), atol=1e-3 * np.abs(descriptors).max())


def test_half_precision_agrees_with_torch(graphs, network, images):
    class Halves(torch.nn.Module):
        """The network in half precision between casts, as torch computes it."""

        def __init__(self):
            super().__init__()
            self.network = checkpoint.fold(network).half()

        def forward(self, image):
            return tuple(tensor.float() for tensor in self.network(image.half()).values())

    with torch.inference_mode():
        expected = [tensor.numpy() for tensor in Halves()(torch.from_numpy(images))]
    halved, full = evaluator(graphs['fp16'], images), evaluator(graphs['fp32'], images)
    for one, other, reference in zip(halved, full, expected, strict=True):
        scale = np.abs(reference).max()
        assert np.abs(one - reference).mean() < 2e-3 * scale
        assert 1e-6 * scale < np.abs(one - other).mean() < 5e-3 * scale  # it is computed in half precision


def test_only_inputs_and_outputs_of_a_half_precision_graph_are_float32(graphs, model):
    graph = onnx.shape_inference.infer_shapes(graphs['fp16'], strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in graph.graph.value_info}
    assert set(types.values()) == {TensorProto.FLOAT16}
    assert {weights.data_type for weights in graph.graph.initializer} == {TensorProto.FLOAT16}
    assert [node.op_type for node in graph.graph.node if node.op_type == 'Cast'] == ['Cast'] * 3
    for ends in (graph.graph.input, graph.graph.output):
        assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    assert onnx_graph.precision_of(graph) == 'fp16'
    assert onnx_graph.with_precision(graph, 'fp16') is graph
    assert graph.metadata_props == onnx.load(model.graph).metadata_props


def test_an_output_that_other_nodes_use_stays_correct():
    image = helper.make_tensor_value_info('image', TensorProto.FLOAT, ['b', 1, 'h', 'w'])
    ends = [
        helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['b', 1, 'h', 'w']),
        helper.make_tensor_value_info('twice', TensorProto.FLOAT, ['b', 1, 'h', 'w']),
    ]
    nodes = [helper.make_node('Relu', ['image'], ['logits']), helper.make_node('Add', ['logits', 'logits'], ['twice'])]
    graph = helper.make_model(helper.make_graph(nodes, 'g', [image], ends), opset_imports=[helper.make_opsetid('', 17)])
    values = np.float32([[[[1, -2]]]])
    found = evaluator(onnx_graph.with_precision(graph, 'fp16'), values)
    np.testing.assert_array_equal(found, [values.clip(0), 2 * values.clip(0)])


def quantized(graph):
    """The graph with its first convolution's input quantized to 8 bits and back."""
    graph = copied(graph)
    first = next(node for node in graph.graph.node if node.op_type == 'Conv')
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(1 / 127), 'scale'),
            numpy_helper.from_array(np.int8(0), 'zero'),
        ]
    )
    around = [
        helper.make_node('QuantizeLinear', ['image', 'scale', 'zero'], ['image_q']),
        helper.make_node('DequantizeLinear', ['image_q', 'scale', 'zero'], ['image_dq']),
    ]
    first.input[0] = 'image_dq'
    nodes = [*around, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def test_a_quantized_graph_stays_as_it_is(graphs):
    graph = quantized(graphs['fp32'])
    assert onnx_graph.precision_of(graph) == 'int8'
    for precision in ('fp32', 'fp16'):
        with pytest.raises(ValueError, match=f'precision {precision}: the graph is int8 and cannot be converted'):
            onnx_graph.with_precision(graph, precision)


def test_a_graph_is_exported_in_half_precision(model, graphs, tmp_path):
    assert export_command(str(model.graph), tmp_path / 'half.onnx', 'onnx-fp16') == str(tmp_path / 'half.onnx')
    assert onnx_graph.read(tmp_path / 'half.onnx')[0].graph == graphs['fp16'].graph


def test_old_graphs_are_refused(graphs, tmp_path):
    graph = copied(graphs['fp32'])
    graph.opset_import[0].version = 12
    onnx.save(graph, tmp_path / 'old.onnx')
    with pytest.raises(ValueError, match=r'old\.onnx: ONNX opset 12, expected 13 or newer'):
        onnx_graph.read(tmp_path / 'old.onnx')


def test_weights_outside_the_range_of_half_precision_are_refused(graphs):
    graph = copied(graphs['fp32'])
    weights = graph.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + 1e5, weights.name))
    with pytest.raises(ValueError, match=f'precision fp16: {weights.name} has weights outside its range; use fp32'):
        onnx_graph.with_precision(graph, 'fp16')


def test_weights_in_a_separate_file_are_read(graphs, tmp_path, images):
    graph = copied(graphs['fp32'])
    onnx.save(graph, tmp_path / 'split.onnx', save_as_external_data=True, location='weights', size_threshold=0)
    assert (tmp_path / 'weights').stat().st_size > 1000
    found, _ = onnx_graph.read(tmp_path / 'split.onnx')
    for one, other in zip(evaluator(found, images), evaluator(graphs['fp32'], images), strict=True):
        np.testing.assert_array_equal(one, other)


def exported(network, folder):
    checkpoint.save(folder / 'm.safetensors', network)
    export.export(folder / 'm.safetensors', folder / 'm.onnx')
    return onnx_graph.read(folder / 'm.onnx')[0]


def test_magicpoint_has_no_descriptors(tmp_path):
    graph = exported(SuperPoint(SuperPointConfig((4, 4, 4, 4), 8, 0)), tmp_path)
    assert onnx_graph.read_image_network(tmp_path / 'm.onnx')[1].descriptor_size == 0
    assert [value.name for value in onnx_graph.with_precision(graph, 'fp16').graph.output] == ['logits']


def test_batch_norm_after_the_relu_runs_in_half_precision(tmp_path, images):
    network = lively(SuperPointConfig((8, 8, 16, 16), 32, 32, norm='after_relu'))
    graph = exported(network, tmp_path)
    assert 'BatchNormalization' in {node.op_type for node in graph.graph.node}
    with torch.inference_mode():
        expected = [tensor.numpy() for tensor in network(torch.from_numpy(images)).values()]
    for found, reference in zip(by_openvino(onnx_graph.with_precision(graph, 'fp16'), images), expected, strict=True):
        np.testing.assert_allclose(found, reference, atol=1e-2 * np.abs(reference).max())


@pytest.mark.parametrize('backend', ['onnx', 'openvino'])
def test_graphs_that_are_not_image_networks_are_refused(graphs, model, tmp_path, backend):
    def read(path):
        if backend == 'onnx':
            return onnx_graph.read_image_network(path)
        return runtimes.load(Model('x', None, path), RuntimeConfig(backend='openvino'))

    path = tmp_path / 'x.onnx'
    whole = model.graph.read_bytes()
    for content in (b'', b'not a graph', whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'not a complete \.onnx file'):
            read(path)

    def changed(change):
        graph = copied(graphs['fp32'])
        change(graph.graph)
        onnx.save(graph, path)
        return path

    def still(graph):
        graph.input[0].type.tensor_type.shape.dim[2].dim_value = 480

    with pytest.raises(ValueError, match=r"height and width free, found \{'image': \(None, 1, 480, None\)\}"):
        read(changed(still))

    def custom(graph):
        graph.node[0].domain = 'com.example'

    with pytest.raises(ValueError, match=r'x\.onnx: expected standard ONNX operators only, found com\.example\.'):
        read(changed(custom))

    def not_a_number(graph):
        weights = numpy_helper.to_array(graph.initializer[0]).copy()
        weights.flat[-1] = np.nan
        graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, graph.initializer[0].name))

    with pytest.raises(ValueError, match=r'x\.onnx: tensor .* has values that are NaN or infinite'):
        read(changed(not_a_number))

    def finer(graph):
        pooling = next(node for node in graph.node if node.op_type == 'MaxPool')
        next(a for a in pooling.attribute if a.name == 'strides').ints[:] = [1, 1]

    with pytest.raises(ValueError, match=r'output logits: expected a cell for each 8×8 pixels, found \d+×'):
        read(changed(finer))

    def renamed(graph):
        graph.output[0].name = 'heatmap'
        last = next(node for node in graph.node if 'logits' in node.output)
        last.output[0] = 'heatmap'

    with pytest.raises(ValueError, match=r'expected the outputs .*, found heatmap.descriptors'):
        read(changed(renamed))
