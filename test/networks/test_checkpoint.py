"""Checkpoints: what was saved is loaded, what is broken is refused before memory is taken."""

import json
import stat
import struct

import pytest
import torch
from safetensors.torch import save_file

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig

SMALL = SuperPointConfig((8, 8, 16, 16), head_channels=16, descriptor_size=24)


def trained(config):
    """A network whose batch norm has seen data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SuperPoint(config).train()
        for _ in range(3):
            network(torch.rand(2, 1, 32, 32) * 3 - 1)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.weight)
                torch.nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize('norm', ['before_relu', 'after_relu', 'none'])
@pytest.mark.parametrize('depth', [24, 0])
def test_saved_loaded_and_folded_networks_compute_the_same(norm, depth, tmp_path):
    network = trained(SuperPointConfig((8, 8, 16, 16), head_channels=16, descriptor_size=depth, norm=norm))
    path = tmp_path / 'new folder' / 'network.safetensors'
    checkpoint.save(path, network)
    loaded = checkpoint.load(path)
    folded = checkpoint.fold(loaded)
    assert loaded.config == network.config
    assert not loaded.training
    assert not folded.training
    image = torch.rand(2, 1, 24, 40)
    with torch.no_grad():
        for expected, same, close in zip(*(one(image).values() for one in (network, loaded, folded)), strict=True):
            assert torch.equal(expected, same)
            torch.testing.assert_close(close, expected, rtol=1e-4, atol=1e-4)
    norms = [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert bool(norms) == (norm == 'after_relu')


def test_a_matcher_comes_back_with_the_extractor_it_was_trained_for(tmp_path):
    path = tmp_path / 'matcher.safetensors'
    network = LightGlue(LightGlueConfig(8, 16, 2, 1, extractor='superpoint', extractor_checksum='0a1b'))
    checkpoint.save(path, network)
    loaded = checkpoint.load_matcher(path)
    assert loaded.config == network.config
    inputs = torch.rand(1, 2, 5, 2), torch.rand(1, 2, 5, 8), torch.ones(1, 2, 5), torch.rand(1, 2, 5)
    with torch.no_grad():
        assert torch.equal(loaded(*inputs)['log_assignment'], network(*inputs)['log_assignment'])


def test_extractors_and_matchers_are_not_taken_for_each_other(tmp_path):
    path = tmp_path / 'network.safetensors'
    checkpoint.save(path, LightGlue(LightGlueConfig(8, 16, 2, 1)))
    refused(path, r'expected .* a model \(superpoint, unsuperpoint\)')
    checkpoint.save(path, SuperPoint(SMALL))
    with pytest.raises(ValueError, match=r'expected .* a model \(lightglue\)'):
        checkpoint.load_matcher(path)


def test_everyone_may_read_the_file(tmp_path):
    path = tmp_path / 'network.safetensors'
    checkpoint.save(path, SuperPoint(SMALL))
    ordinary = tmp_path / 'ordinary'
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, ordinary.name}


def test_folding_leaves_the_network_alone():
    network = trained(SMALL).train()
    checkpoint.fold(network)
    assert network.training
    assert isinstance(network.encoder[0].norm, torch.nn.BatchNorm2d)


def refused(path, match):
    with pytest.raises(ValueError, match=match) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)


def test_truncated_files(tmp_path):
    path = tmp_path / 'network.safetensors'
    checkpoint.save(path, SuperPoint(SMALL))
    whole = path.read_bytes()
    for content in (b'', b'hello', whole[:7], whole[:500], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        refused(path, 'not a complete')


@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_weights_that_are_not_finite(value, tmp_path):
    path, network = tmp_path / 'network.safetensors', SuperPoint(SMALL)
    with torch.no_grad():
        next(network.parameters()).view(-1)[-1] = value
    checkpoint.save(path, network)
    refused(path, r'tensor encoder\.0\.conv\.weight has values that are NaN or infinite')


@pytest.mark.parametrize('kind', [torch.int8, torch.bool, torch.complex64])
def test_weights_of_another_kind(kind, tmp_path):
    path, network = tmp_path / 'network.safetensors', SuperPoint(SMALL)
    state = network.state_dict() | {'detector.1.bias': torch.zeros(65, dtype=kind)}
    save_file(state, path, checkpoint.metadata_of(network))
    refused(path, rf'tensor detector\.1\.bias: expected torch\.float32, found {kind}')


@pytest.mark.parametrize('kind', [torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_become_single_precision(kind, tmp_path):
    path, network = tmp_path / 'network.safetensors', SuperPoint(SMALL)
    state = {
        name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }
    save_file(state, path, checkpoint.metadata_of(network))
    loaded = checkpoint.load(path).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32, torch.int64}
    assert torch.equal(loaded['detector.1.weight'], state['detector.1.weight'].float())


def test_headers_that_lie(tmp_path):
    path = tmp_path / 'network.safetensors'
    huge = {'encoder.0.conv.weight': {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 1 << 42]}}
    header = json.dumps(huge).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header)
    refused(path, 'not a complete')
    path.write_bytes(struct.pack('<Q', 1 << 60) + header)
    refused(path, 'not a complete')


@pytest.mark.parametrize(
    'config',
    [
        '{',
        '[]',
        '{"color": 3}',
        '{"channels": [8, 8, 16]}',
        '{"channels": [8, 8, 16, 1000000000]}',
        '{"channels": 5}',
        '{"head_channels": "16"}',
        '{"descriptor_size": -1}',
        '{"norm": "sideways"}',
        '{"stem_stride": 1.0}',
        '[' * 100_000,
    ],
)
def test_configs_that_are_none(config, tmp_path):
    path = tmp_path / 'network.safetensors'
    save_file(SuperPoint(SMALL).state_dict(), path, {'model': 'superpoint', 'config': config})
    refused(path, 'the config in its metadata is missing or wrong')


def test_tensors_that_do_not_fit_the_config(tmp_path):
    path = tmp_path / 'network.safetensors'
    metadata = {'model': 'superpoint', 'config': json.dumps({'channels': [8, 8, 16, 16]})}
    save_file(SuperPoint(SMALL).state_dict(), path, metadata)
    refused(path, r'detector\.0\.conv\.weight: expected \(256, 16, 3, 3\), found \(16, 16, 3, 3\)')
    save_file({'a': torch.zeros(1)}, path, metadata)
    refused(path, r'encoder\.0\.conv\.weight: expected \(8, 1, 3, 3\), found no such tensor')


def test_files_of_others(tmp_path):
    path = tmp_path / 'network.safetensors'
    save_file({'a': torch.zeros(1)}, path, {'notes': 'x' * 10_000})
    refused(path, "expected a checkpoint of superpoint_ros, .{0,100} found metadata {'notes': 'x{180,200}$")
    with pytest.raises(FileNotFoundError, match='no such file'):
        checkpoint.load(tmp_path / 'none.safetensors')
