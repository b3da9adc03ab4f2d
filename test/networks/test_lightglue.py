"""LightGlue: what must hold for any weights, on small networks with random ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig

SMALL = LightGlueConfig(descriptor_size=8, width=16, heads=2, layers=2)


@pytest.fixture(scope='module')
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trained_like(LightGlue(SMALL))


def trained_like(network):
    """The network with random weights where an untrained one has zeros."""
    with torch.no_grad():
        for attention in (*network.self_attention, *network.cross_attention):
            torch.nn.init.normal_(attention.update[3].weight, std=0.2)
        for assignment in network.assignment:
            torch.nn.init.normal_(assignment.matchability.weight, std=0.1)
        torch.nn.init.normal_(network.input.weight)
    return network.eval()


def keypoints(count, seed=0, pairs=1):
    """Inputs of a network: random keypoints of some pairs of images."""
    random = torch.Generator().manual_seed(seed)
    return {
        'keypoints': torch.rand(pairs, 2, count, 2, generator=random) * 2 - 1,
        'descriptors': F.normalize(torch.randn(pairs, 2, count, 8, generator=random), dim=-1),
        'valid': torch.ones(pairs, 2, count),
        'scores': torch.rand(pairs, 2, count, generator=random),
    }


@torch.no_grad()
def assign(network, inputs):
    return network(**inputs)['log_assignment']


def test_probabilities_are_those_of_equation_8():
    """Similarities 0 and log 3, one way; matchability 1/2 and 3/4."""
    network = LightGlue(LightGlueConfig(descriptor_size=1, width=2, heads=1, layers=1))
    assignment = network.assignment[0]
    with torch.no_grad():
        assignment.projection.weight.copy_(torch.eye(2))
        assignment.matchability.weight.copy_(torch.tensor([[0.0, 1.0]]))
        for parameter in (assignment.projection.bias, assignment.matchability.bias):
            parameter.zero_()
        scale = 2**0.25
        states = torch.zeros(2, 2, 2)
        states[:, 0, 0] = torch.tensor([scale * np.log(3), scale])
        states[0, 1, 1] = np.log(3)  # orthogonal to the other states
        log_assignment, logits = assignment(states, torch.ones(1, 2, 2))
    torch.testing.assert_close(logits[0].sigmoid(), torch.tensor([[0.5, 0.75], [0.5, 0.5]]))
    # Similarities [[log 3, 0], [0, 0]]: softmax over rows [[3/4, 1/4], [1/2, 1/2]], over columns its transpose.
    expected = torch.tensor([[9 / 16, 1 / 8], [1 / 8, 1 / 4]]) * torch.tensor([[0.5 * 0.5], [0.75 * 0.5]])
    torch.testing.assert_close(log_assignment[0].exp(), expected)


def test_probabilities_of_each_keypoint_add_up_to_at_most_1(network):
    probabilities = assign(network, keypoints(20)).exp()
    assert probabilities.max() > 0.05
    assert probabilities.sum(dim=1).max() <= 1
    assert probabilities.sum(dim=2).max() <= 1


@pytest.mark.parametrize('size', [8, 16, 24])
def test_an_untrained_network_matches_by_cosines(size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LightGlue(LightGlueConfig(size, width=16, heads=2, layers=2)).eval()
        inputs = keypoints(12) | {'descriptors': F.normalize(torch.randn(1, 2, 12, size), dim=-1)}
    cosines = inputs['descriptors'][0, 0] @ inputs['descriptors'][0, 1].T
    expected = (20 * cosines).log_softmax(dim=0) + (20 * cosines).log_softmax(dim=1)
    found = assign(network, inputs)[0]
    if size <= 16:
        torch.testing.assert_close(found.exp(), expected.exp() / 4, rtol=1e-3, atol=1e-4)
    else:  # a projection to fewer dimensions keeps them about
        assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > 0.7


def test_permuting_the_keypoints_permutes_the_assignment(network):
    inputs = keypoints(20)
    order0, order1 = torch.randperm(20), torch.randperm(20)
    permuted = {name: torch.stack([value[:, 0, order0], value[:, 1, order1]], dim=1) for name, value in inputs.items()}
    expected = assign(network, inputs)[0, order0][:, order1]
    torch.testing.assert_close(assign(network, permuted)[0], expected, rtol=1e-4, atol=1e-4)


def test_exchanging_the_images_transposes_the_assignment(network):
    inputs = keypoints(20, pairs=3)
    exchanged = {name: value[:, [1, 0]] for name, value in inputs.items()}
    torch.testing.assert_close(assign(network, exchanged), assign(network, inputs).mT, rtol=1e-4, atol=1e-4)


def test_the_pairs_of_a_batch_do_not_influence_each_other(network):
    inputs = keypoints(20, pairs=2)
    second = {name: value[1:] for name, value in inputs.items()}
    torch.testing.assert_close(assign(network, second), assign(network, inputs)[1:], rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing(network):
    inputs, other = keypoints(20), keypoints(12, seed=1)
    padded = {name: torch.cat([inputs[name], other[name]], dim=2) for name in inputs}
    padded['valid'][..., 20:] = 0
    result = assign(network, padded)[:, :20, :20]
    torch.testing.assert_close(result, assign(network, inputs), rtol=1e-4, atol=1e-4)


def test_only_relative_positions_count(network):
    inputs = keypoints(20)
    moved = inputs | {'keypoints': inputs['keypoints'] + torch.tensor([[[[0.3, -0.2]], [[-0.5, 0.1]]]])}
    torch.testing.assert_close(assign(network, moved), assign(network, inputs), rtol=1e-4, atol=1e-4)
    stretched = inputs | {'keypoints': inputs['keypoints'] * 2}
    assert not torch.allclose(assign(network, stretched), assign(network, inputs), atol=1e-2)


@pytest.mark.parametrize('count', [0, 1])
def test_images_with_no_or_one_keypoint_have_finite_probabilities(network, count):
    inputs = keypoints(4)
    inputs['valid'][0, 0, count:] = 0
    result = assign(network, inputs)[0]
    assert result.isfinite().all()
    assert result[:count].exp().sum() <= 1


def test_gradients_are_finite(network):
    inputs = keypoints(10)
    inputs['valid'][0, 0] = 0
    inputs['valid'][0, 1, 5:] = 0
    outputs = [network.assignment[0](state, inputs['valid']) for state in network.states(**inputs)]
    sum(log_assignment.mean() + logits.mean() for log_assignment, logits in outputs).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert 'input.weight' in gradients
    assert 'frequencies.weight' in gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    network.zero_grad()


def test_scores_are_an_input_only_if_the_configuration_says_so(network):
    inputs = keypoints(10)
    without = trained_like(LightGlue(LightGlueConfig(8, 16, 2, 2, use_scores=False)))
    changed = inputs | {'scores': inputs['scores'] * 0.5}
    assert torch.equal(assign(without, changed), assign(without, inputs))
    assert not torch.equal(assign(network, changed), assign(network, inputs))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'width': 12, 'heads': 4}, 'width: expected a multiple of 8, twice the heads, got 12'),
        ({'layers': 0}, 'layers: expected a number from 1 to 64, got 0'),
        ({'heads': 1.5}, 'heads: expected int, got 1.5'),
        ({'use_scores': 1}, 'use_scores: expected bool, got 1'),
        ({'descriptor_size': 10**9}, 'descriptor_size: expected a number from 1 to 4096'),
        ({'extractor': None}, 'extractor: expected str, got None'),
    ],
)
def test_a_wrong_configuration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LightGlueConfig(**options)
