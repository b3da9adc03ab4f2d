"""What counts as agreement between an engine and its graph."""

import numpy as np
import pytest

from superpoint_ros import runtimes
from superpoint_ros.runtimes import RuntimeConfig, onnx_graph
from superpoint_ros.runtimes.engine_cache import EngineError
from superpoint_ros.runtimes.engine_check import check_image_network, picture


@pytest.fixture(scope='module')
def graph(model):
    return onnx_graph.read(model.graph)[0]


@pytest.fixture(scope='module')
def network(model):
    return runtimes.load(model, RuntimeConfig(backend='openvino', precision='fp32')).network


def check(graph, network, change, precision='fp32'):
    def run(items):
        for heads in network(items):
            yield change({name: head.copy() for name, head in heads.items()})

    check_image_network(graph, precision, run, {'image': (1, 64, 96)})


def test_other_implementations_of_the_graph_agree(graph, network, model):
    check(graph, network, lambda heads: heads)
    half = runtimes.load(model, RuntimeConfig(backend='torch', device='cpu', precision='bf16')).network
    check(graph, half, lambda heads: heads, 'bf16')


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize(
    'change',
    [
        lambda heads: heads | {'score_map': np.roll(heads['score_map'], 8, axis=1)},
        lambda heads: heads | {'score_map': np.roll(heads['score_map'], 1, axis=0)},
        lambda heads: heads | {'descriptors': np.roll(heads['descriptors'], 1, axis=2)},
        lambda heads: heads | {'descriptors': np.roll(heads['descriptors'] + 100, 1, axis=0)},
        lambda heads: heads | {'descriptors': np.zeros_like(heads['descriptors'])},
    ],
    ids=['cells moved', 'pixels moved', 'channels mixed', 'moved with an offset', 'zeros'],
)
def test_wrong_values_do_not_agree(graph, network, change, precision):
    with pytest.raises(EngineError, match=rf'\({precision}\) disagrees with its graph: correlation of '):
        check(graph, network, change, precision)


@pytest.mark.parametrize('name', ['score_map', 'descriptors'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_not_finite_do_not_agree(graph, network, name, value):
    def change(heads):
        heads[name].flat[5] = value
        return heads

    with pytest.raises(EngineError, match=rf'{name} of the TensorRT engine \(fp16\) is not finite; try precision fp32'):
        check(graph, network, change, 'fp16')


def test_the_picture_has_corners_and_full_contrast():
    one = picture((640, 480))
    np.testing.assert_array_equal(one, picture((640, 480)))
    assert (one.dtype, one.shape) == (np.uint8, (480, 640))
    assert (one[:20, :20] == one[0, 0]).all()
    assert one.min() < 5
    assert one.max() > 250
