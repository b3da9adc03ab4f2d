"""What counts as agreement between an engine and the network."""

import numpy as np
import pytest
import torch

from superpoint_ros.networks import checkpoint
from superpoint_ros.runtimes.engine_cache import EngineError
from superpoint_ros.runtimes.engine_check import check_agreement, picture

SHAPE = (1, 64, 96)


@pytest.fixture(scope='module')
def network(model):
    return checkpoint.fold(checkpoint.load(model.weights)).requires_grad_(requires_grad=False)


def check(network, change, precision='fp32'):
    def heads(images):
        return change(network(images[:, None].float() / 255))

    check_agreement(heads, network, SHAPE, precision, torch.device('cpu'))


def test_the_network_agrees_with_itself(network):
    check(network, lambda outputs: outputs)


def test_half_precision_agrees(network):
    half = checkpoint.fold(network).half()

    def heads(images):
        return {name: output.float() for name, output in half(images[:, None].half() / 255).items()}

    check_agreement(heads, network, SHAPE, 'fp16', torch.device('cpu'))


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
@pytest.mark.parametrize(
    'change',
    [
        lambda o: o | {'logits': o['logits'].roll(1, dims=3)},
        lambda o: o | {'logits': o['logits'].roll(1, dims=1)},
        lambda o: o | {'descriptors': o['descriptors'].roll(1, dims=1)},
        lambda o: o | {'descriptors': torch.zeros_like(o['descriptors'])},
    ],
    ids=['cells moved', 'pixels moved', 'channels mixed', 'zeros'],
)
def test_wrong_values_do_not_agree(network, change, precision):
    with pytest.raises(
        EngineError, match=f'engine \\({precision}\\) disagrees with the network: correlation of scores'
    ):
        check(network, change, precision)


def test_what_is_the_same_everywhere_does_not_hide_wrong_values(network):
    def shifted(images):
        outputs = network(images)
        return outputs | {'descriptors': outputs['descriptors'] + 100}

    class Shifted(torch.nn.Module):
        def forward(self, images):
            return shifted(images)

    def heads(images):
        outputs = shifted(images[:, None].float() / 255)
        return outputs | {'descriptors': outputs['descriptors'].roll(1, dims=3)}

    with pytest.raises(EngineError, match='disagrees with the network'):
        check_agreement(heads, Shifted(), SHAPE, 'int8', torch.device('cpu'))


@pytest.mark.parametrize('name', ['logits', 'descriptors'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_not_finite_do_not_agree(network, name, value):
    def change(outputs):
        outputs[name][0, 0, 0, 0] = value
        return outputs

    with pytest.raises(EngineError, match=f'gives {name} that are not finite; try precision fp16 or fp32'):
        check(network, change, 'int8')


def test_the_picture_is_the_same_each_time_and_has_corners():
    one = picture((2, 50, 70))
    np.testing.assert_array_equal(one, picture((2, 50, 70)))
    assert one.dtype == np.uint8
    assert one.shape == (2, 50, 70)
    assert len(np.unique(one)) > 10
    assert (one[:, :20, :20] == one[:, :1, :1]).all()
