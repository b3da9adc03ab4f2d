"""A small model with its files, and the stand-in for TensorRT."""

import importlib
import sys
import types

import pytest
import torch

from superpoint_ros.models import resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.runtimes import export

from . import fake_tensorrt


def lively(config):
    """A network of random weights that tells places apart: batch norm has seen pictures, and scores have peaks."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = SuperPoint(config).train()
        for _ in range(50):
            network(torch.rand(4, 1, 32, 48))
        network.detector[1].weight *= 5
    return network.eval()


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    """A small SuperPoint of random weights: its .safetensors and .onnx files."""
    network = lively(SuperPointConfig((8, 8, 16, 16), head_channels=32, descriptor_size=32))
    folder = tmp_path_factory.mktemp('model')
    checkpoint.save(folder / 'small.safetensors', network)
    export.export(folder / 'small.safetensors', folder / 'small.onnx')
    return resolve(str(folder / 'small.onnx'))


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Installs the stand-in for TensorRT, with a CPU for a GPU, and returns its control."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    stale = ('superpoint_ros.runtimes.tensorrt', 'superpoint_ros.runtimes.engine_build')

    def install(version=fake_tensorrt.VERSIONS[-1]):
        control = fake_tensorrt.Control()
        monkeypatch.setitem(sys.modules, 'tensorrt', fake_tensorrt.make(version, control))
        for name in stale:
            monkeypatch.delitem(sys.modules, name, raising=False)
        if version in fake_tensorrt.VERSIONS:
            runtime = importlib.import_module('superpoint_ros.runtimes.tensorrt')
            monkeypatch.setattr(runtime, 'cuda_device', lambda _: torch.device('cpu'))
            monkeypatch.setattr(runtime, 'buffer', aligned)
        gpu = types.SimpleNamespace(name='Orin', major=8, minor=7, multi_processor_count=16)
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda _: gpu)
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: types.SimpleNamespace(cuda_stream=7))
        return control

    yield install
    for name in stale:
        sys.modules.pop(name, None)


def aligned(shape, device):
    """Memory as CUDA gives it: it starts at a multiple of 256 bytes."""
    size = torch.Size(shape).numel()
    memory = torch.empty(size + 64, dtype=torch.float32)
    start = -memory.data_ptr() % 256 // 4
    return memory[start : start + size].view(shape)
