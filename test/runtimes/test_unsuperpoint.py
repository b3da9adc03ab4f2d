"""UnSuperPoint on all back ends."""

import cv2
import numpy as np
import onnx
import pytest
import torch

from superpoint_ros.evaluation.quantization import last_convolutions
from superpoint_ros.extractor import Extractor
from superpoint_ros.models import resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.runtimes import export, onnx_graph
from superpoint_ros.runtimes.quantize import quantize


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A small UnSuperPoint of random weights: its .safetensors and .onnx files."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = UnSuperPoint(UnSuperPointConfig((8, 8, 16, 16), head_channels=16, descriptor_size=32)).train()
        for _ in range(50):
            network(torch.rand(4, 1, 32, 48))
    folder = tmp_path_factory.mktemp('model')
    checkpoint.save(folder / 'un.safetensors', network.eval())
    export.export(folder / 'un.safetensors', folder / 'un.onnx')
    return resolve(str(folder / 'un.onnx'))


def features(model, picture, **options):
    return Extractor(str(model.graph), **{'precision': 'fp32', **options})(picture)


def shared(first, second, tolerance):
    """The fraction of the first keypoints that are also among the second."""
    distances = np.abs(first.keypoints[:, None] - second.keypoints).max(axis=2)
    return (distances.min(axis=1) <= tolerance).mean()


@pytest.mark.parametrize('backend', ['torch', 'tensorrt'])
@pytest.mark.parametrize('radius', [0, 4])
def test_the_same_keypoints_on_all_back_ends(model, picture, backend, radius, gpu):
    expected = features(model, picture, backend='openvino', nms_radius=radius)
    found = features(model, picture, backend=backend, nms_radius=radius)
    assert len(expected) > 100
    assert shared(expected, found, 0.01) > 0.97
    assert shared(found, expected, 0.01) > 0.97
    assert found.descriptors.shape == (len(found), 32)
    assert (found.keypoints >= 3.5).all()
    assert (found.keypoints <= np.array([199, 149]) - 3.5).all(), 'the border is kept, to the nearest pixel'
    if radius:
        apart = np.abs(found.keypoints[:, None] - found.keypoints).max(axis=2)
        assert apart[~np.eye(len(found), dtype=bool)].min() > radius - 1


def test_half_precision_and_8_bits_find_nearly_the_same_keypoints(model, picture, tmp_path):
    expected = features(model, picture, backend='openvino')
    onnx.save(onnx_graph.with_precision(onnx_graph.read(model.graph)[0], 'fp16'), tmp_path / 'half.onnx')
    half = Extractor(str(tmp_path / 'half.onnx'), backend='openvino', precision='fp32')(picture)
    assert shared(expected, half, 0.1) > 0.95
    pytest.importorskip('nncf', reason='needs nncf to quantize')
    cv2.imwrite(str(tmp_path / 'picture.png'), picture)
    quantize(model.graph, tmp_path / 'un_int8.onnx', [tmp_path / 'picture.png'])
    eight = Extractor(str(tmp_path / 'un_int8.onnx'), backend='openvino', precision='int8')(picture)
    assert shared(expected, eight, 1) > 0.7


def test_a_graph_with_the_wrong_number_of_channels_is_refused(model, tmp_path):
    graph = onnx.load(model.graph)
    wrong = {'scores': 'positions', 'positions': 'scores'}
    for node in graph.graph.node:
        node.output[:] = [wrong.get(name, name) for name in node.output]
    for value in graph.graph.output:
        value.name = wrong.get(value.name, value.name)
    onnx.save(graph, tmp_path / 'wrong.onnx')
    with pytest.raises(ValueError, match=r'wrong\.onnx: output (scores|positions): expected'):
        features(resolve(str(tmp_path / 'wrong.onnx')), np.zeros((64, 64), np.uint8), backend='openvino')
    with pytest.raises(ValueError, match=r'wrong\.onnx: output (scores|positions): expected'):
        onnx_graph.read_image_network(tmp_path / 'wrong.onnx')


def test_the_last_convolution_of_each_head_is_found_before_its_activation(model):
    assert {name.split('/')[2] for name in last_convolutions(onnx.load(model.graph))} == {
        'score',
        'position',
        'descriptor',
    }
