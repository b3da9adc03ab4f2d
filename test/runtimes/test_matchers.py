"""Matcher networks on the back ends: the same weights, the same matches."""

import numpy as np
import onnx
import pytest
import torch

from superpoint_ros import runtimes
from superpoint_ros.learned_matching import LearnedMatcher
from superpoint_ros.models import checksum, resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig
from superpoint_ros.runtimes import RuntimeConfig, export, onnx_graph


@pytest.mark.parametrize('use_scores', [True, False])
@pytest.mark.parametrize(
    ('backend', 'precision'), [('openvino', 'fp32'), ('tensorrt', 'fp32'), ('torch', 'fp32'), ('torch', 'bf16')]
)
def test_back_ends_give_what_the_network_gives(backend, precision, use_scores, make_matcher, gpu):
    path = make_matcher(use_scores=use_scores)
    network = checkpoint.load_matcher(path)
    runtime = runtimes.load_matcher(resolve(str(path)), RuntimeConfig(backend=backend, precision=precision))
    assert (runtime.name, runtime.network.precision) == (backend, precision)
    assert runtime.config == network.config
    for count in (3, 40):
        inputs = {name: tensor.numpy() for name, tensor in export._pair(network.config, 1, count).items()}
        (outputs,) = runtime.network([{name: array[0] for name, array in inputs.items()}])
        with torch.no_grad():
            expected = network(**{name: torch.from_numpy(array) for name, array in inputs.items()})['log_assignment']
        valid = slice(0, count - 1)
        tolerance = 1e-3 if precision == 'fp32' else 0.1
        found = outputs['log_assignment'][valid, valid]
        np.testing.assert_allclose(np.exp(found), expected[0].exp().numpy()[valid, valid], atol=tolerance)


def test_the_graph_names_its_weights_and_its_extractor(make_matcher):
    path = make_matcher(extractor='superpoint', extractor_checksum='0a1b')
    graph, info = onnx_graph.read(path.with_suffix('.onnx'))
    config = info.matcher_config()
    assert (config.extractor, config.extractor_checksum) == ('superpoint', '0a1b')
    assert info.checksum_of_weights == checksum(path)
    assert onnx_graph.opset(graph) == 17


def test_int8_is_refused(make_matcher):
    with pytest.raises(ValueError, match='precision int8: not supported for matchers; use auto'):
        LearnedMatcher(str(make_matcher()), precision='int8')


def test_a_miscompiled_matcher_is_refused(make_matcher, random_features, gpu):
    gpu.spoil = np.nan
    matcher = LearnedMatcher(str(make_matcher()), backend='tensorrt')
    with pytest.raises(RuntimeError, match=r'assignment of the TensorRT engine \(fp32\) is not finite'):
        matcher(random_features(30, 0), random_features(30, 1))
    with pytest.raises(ValueError, match='precision fp16: not supported by back end tensorrt for matchers'):
        LearnedMatcher(str(make_matcher()), backend='tensorrt', precision='fp16')


def test_an_extractor_is_no_matcher(model):
    with pytest.raises(ValueError, match=r'small\.onnx: not the graph of a matcher'):
        LearnedMatcher(str(model.graph), backend='openvino')
    with pytest.raises(ValueError, match=r'small\.safetensors: expected .* a model \(lightglue\)'):
        LearnedMatcher(str(model.graph), backend='torch')


def test_a_matcher_is_no_extractor(make_matcher):
    path = resolve(str(make_matcher()))
    with pytest.raises(ValueError, match=r'matcher\.onnx: expected one input, image'):
        runtimes.load(path, RuntimeConfig(backend='openvino'))
    with pytest.raises(ValueError, match=r'expected .* a model \(superpoint, unsuperpoint\)'):
        runtimes.load(path, RuntimeConfig(backend='torch'))


@pytest.mark.parametrize(
    ('metadata', 'message'),
    [
        ({}, 'not the graph of a matcher: no such configuration in its metadata'),
        ({'config': '{"layers": -1}'}, 'not the graph of a matcher: no such configuration in its metadata'),
        ({'config': '{"descriptor_size": 16, "use_scores": false}'}, r'expected the inputs \{.*\} of float32, found'),
    ],
)
def test_graphs_that_contradict_their_metadata_are_refused(metadata, message, make_matcher, tmp_path):
    path = tmp_path / 'changed.onnx'
    graph = onnx.load(make_matcher().with_suffix('.onnx'))
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, metadata)
    onnx.save(graph, path)
    with pytest.raises(ValueError, match=message) as error:
        LearnedMatcher(str(path), backend='openvino')
    assert str(path) in str(error.value)


def test_truncated_files_are_refused(make_matcher, tmp_path):
    for suffix, backend in (('.safetensors', 'torch'), ('.onnx', 'openvino')):
        whole = make_matcher().with_suffix(suffix).read_bytes()
        path = tmp_path / f'matcher{suffix}'
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match='not a complete'):
            LearnedMatcher(str(path), backend=backend)


def test_a_model_without_a_graph_says_how_to_make_one(tmp_path):
    path = tmp_path / 'matcher.safetensors'
    checkpoint.save(path, LightGlue(LightGlueConfig(8, 16, 2, 1)))
    with pytest.raises(FileNotFoundError, match=f'superpoint export {path}'):
        LearnedMatcher(str(path), backend='openvino')


def test_matches_do_not_depend_on_the_back_end(make_matcher, random_features):
    path = str(make_matcher())
    features = random_features(60, 0), random_features(60, 1)
    found = [
        LearnedMatcher(path, 0.0, backend=backend, precision='fp32')(*features) for backend in ('openvino', 'torch')
    ]
    assert len(found[0]) > 5
    assert np.array_equal(found[0].indices, found[1].indices)
    np.testing.assert_allclose(found[0].similarities, found[1].similarities, atol=1e-4)
