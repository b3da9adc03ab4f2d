"""Foreign checkpoints: built with random values here, and compared with a forward pass written for each layout."""

import pickle
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from superpoint_ros.commands.convert import convert
from superpoint_ros.networks import checkpoint, foreign

CHANNELS, HEAD, DEPTH = (8, 8, 12, 16), 20, 24


def random(generator, *shape):
    return torch.randn(shape, generator=generator) / (shape[1] * 9 if len(shape) == 4 else 4) ** 0.5


@pytest.fixture
def original():
    """A state dictionary of the original release's layout."""
    generator = torch.Generator().manual_seed(0)
    widths = [1, *(w for w in CHANNELS for _ in range(2))]
    layers = {f'conv{1 + i // 2}{"ab"[i % 2]}': (b, a, 3) for i, (a, b) in enumerate(pairwise(widths))}
    layers |= {'convPa': (HEAD, CHANNELS[-1], 3), 'convPb': (65, HEAD, 1)}
    layers |= {'convDa': (HEAD, CHANNELS[-1], 3), 'convDb': (DEPTH, HEAD, 1)}
    state = {}
    for name, (after, before, side) in layers.items():
        state[f'{name}.weight'] = random(generator, after, before, side, side)
        state[f'{name}.bias'] = random(generator, after)
    return state


def original_forward(state, x):
    def conv(x, name, padding):
        return F.conv2d(x, state[f'{name}.weight'], state[f'{name}.bias'], padding=padding)

    for stage in '1234':
        x = F.relu(conv(x, f'conv{stage}a', 1))
        x = F.relu(conv(x, f'conv{stage}b', 1))
        if stage != '4':
            x = F.max_pool2d(x, 2, 2)
    return conv(F.relu(conv(x, 'convPa', 1)), 'convPb', 0), conv(F.relu(conv(x, 'convDa', 1)), 'convDb', 0)


@pytest.fixture
def port():
    """A state dictionary of the layout of rpautrat/SuperPoint's PyTorch port."""
    generator = torch.Generator().manual_seed(1)
    state = {}

    def block(name, before, after, side):
        state[f'{name}.conv.weight'] = random(generator, after, before, side, side)
        state[f'{name}.conv.bias'] = random(generator, after)
        state[f'{name}.bn.weight'] = 1 + random(generator, after)
        state[f'{name}.bn.bias'] = random(generator, after)
        state[f'{name}.bn.running_mean'] = random(generator, after)
        # As small as the epsilon, so that a wrong epsilon shows.
        state[f'{name}.bn.running_var'] = torch.rand(after, generator=generator) * 0.01
        state[f'{name}.bn.num_batches_tracked'] = torch.tensor(7)

    before = 1
    for i, width in enumerate(CHANNELS):
        block(f'backbone.{i}.0', before, width, 3)
        block(f'backbone.{i}.1', width, width, 3)
        before = width
    block('detector.0', before, HEAD, 3)
    block('detector.1', HEAD, 65, 1)
    block('descriptor.0', before, HEAD, 3)
    block('descriptor.1', HEAD, DEPTH, 1)
    return state


def port_forward(state, x):
    def block(x, name, relu=True):
        weight = state[f'{name}.conv.weight']
        x = F.conv2d(x, weight, state[f'{name}.conv.bias'], padding=weight.shape[-1] // 2)
        x = F.relu(x) if relu else x
        norm = [state[f'{name}.bn.{kind}'] for kind in ('running_mean', 'running_var', 'weight', 'bias')]
        return F.batch_norm(x, *norm, eps=1e-3)

    for i in range(4):
        x = block(block(x, f'backbone.{i}.0'), f'backbone.{i}.1')
        if i < 3:
            x = F.max_pool2d(x, 2, 2)
    heads = ('detector', 'descriptor')
    return tuple(block(block(x, f'{head}.0'), f'{head}.1', relu=False) for head in heads)


@pytest.mark.parametrize(('layout', 'forward'), [('original', original_forward), ('port', port_forward)])
def test_a_converted_network_computes_the_same(layout, forward, request, tmp_path):
    state = request.getfixturevalue(layout)
    torch.save(state, tmp_path / 'foreign.pth')
    network = foreign.read(tmp_path / 'foreign.pth')
    assert network.config.channels == CHANNELS
    checkpoint.save(tmp_path / 'ours.safetensors', network)
    image = torch.rand(2, 1, 40, 56, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = forward(state, image)
        for again in (network, checkpoint.load(tmp_path / 'ours.safetensors'), checkpoint.fold(network)):
            for found, wanted in zip(again(image).values(), expected, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_a_detector_alone_is_magicpoint(original, tmp_path):
    state = {name: tensor for name, tensor in original.items() if 'convD' not in name}
    torch.save(state, tmp_path / 'detector.pth')
    network = foreign.read(tmp_path / 'detector.pth')
    assert network.config.descriptor_size == 0
    with torch.no_grad():
        torch.testing.assert_close(
            network(torch.ones(1, 1, 16, 16))['logits'], original_forward(original, torch.ones(1, 1, 16, 16))[0]
        )


def refused(path, match):
    with pytest.raises(ValueError, match=match) as error:
        foreign.read(path)
    assert str(path) in str(error.value)


def test_other_networks_are_told_what_was_expected(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'layer1.0.weight': torch.zeros(3), 'fc.bias': torch.zeros(1)}, path)
    refused(path, r'conv1a\.weight.*backbone\.0\.0\.conv\.weight.*found layer1\.0\.weight, fc\.bias')
    torch.save({'epoch': 3, 'state': {'a': torch.zeros(1)}}, path)
    refused(path, 'expected a state dictionary of tensors, found epoch, state')
    torch.save([torch.zeros(1)], path)
    refused(path, 'found a list')


def test_a_key_that_is_not_a_name(original, tmp_path):
    path = tmp_path / 'key.pth'
    torch.save({**original, 3: torch.zeros(1)}, path)
    refused(path, 'expected a state dictionary of tensors, found conv1a')


def test_weights_that_are_not_finite(original, tmp_path):
    path = tmp_path / 'nan.pth'
    torch.save(original | {'conv1a.bias': torch.full_like(original['conv1a.bias'], torch.nan)}, path)
    refused(path, r'tensor encoder\.0\.conv\.bias has values that are NaN or infinite')


def test_wrong_layers_are_named(original, port, tmp_path):
    path = tmp_path / 'wrong.pth'
    torch.save({name: tensor for name, tensor in original.items() if name != 'conv3b.bias'}, path)
    refused(path, r'encoder\.7\.conv\.bias: expected \(12,\), found no such tensor')
    torch.save(original | {'conv2a.weight': torch.zeros(8, 8, 5, 5)}, path)
    refused(path, r'encoder\.3\.conv\.weight: expected \(8, 8, 3, 3\), found \(8, 8, 5, 5\)')
    torch.save({name: tensor for name, tensor in port.items() if name != 'descriptor.1.bn.running_var'}, path)
    refused(path, r'descriptor\.1 is not a convolution with batch norm')
    torch.save({name: tensor for name, tensor in port.items() if not name.startswith('detector.0')}, path)
    refused(path, r'a layer is missing: detector\.0\.conv\.weight')


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


def test_files_that_are_no_checkpoints(original, tmp_path):
    path = tmp_path / 'broken.pth'
    torch.save(original, path)
    whole = path.read_bytes()
    for content in (
        b'',
        b'hello',
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-10],
        pickle.dumps(Evil(tmp_path / 'never'), protocol=2),
    ):
        path.write_bytes(content)
        refused(path, r'not a checkpoint that torch can read without running code \([^.]*\)$')
    assert not (tmp_path / 'never').exists()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        foreign.read(tmp_path / 'none.pth')


def test_a_checkpoint_is_not_overwritten_by_its_conversion(tmp_path):
    path = tmp_path / 'theirs.pth'
    path.write_bytes(b'weights')
    with pytest.raises(ValueError, match=r'theirs\.pth: expected a name that ends in \.safetensors'):
        convert(path, output=path)
    assert path.read_bytes() == b'weights'
