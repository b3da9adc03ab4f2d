"""A small model with its files, an image, and stand-ins for TensorRT and CUDA."""

import sys

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros.models import resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.runtimes import export


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


@pytest.fixture(scope='session')
def picture():
    """Rectangles on noise, 200 × 150 pixels: both sides need padding."""
    rng = np.random.default_rng(0)
    picture = rng.integers(100, 130, (150, 200), np.uint8)
    for _ in range(80):
        x, y, w, h = (int(v) for v in rng.integers([0, 0, 4, 4], [196, 146, 30, 30]))
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(256)), -1)
    return picture


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Installs stand-ins for TensorRT and CUDA; the engines are kept in tmp_path / 'cache'."""
    pytest.importorskip('cuda.bindings', reason='needs cuda-python')
    from .fake_gpu import FakeGpu

    gpu = FakeGpu()
    gpu.install_cuda(monkeypatch)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setitem(sys.modules, 'tensorrt', gpu.tensorrt('10.3.0'))
    for name in ('tensorrt', 'engine_build'):
        monkeypatch.delitem(sys.modules, f'superpoint_ros.runtimes.{name}', raising=False)
    yield gpu
    for name in ('tensorrt', 'engine_build'):
        sys.modules.pop(f'superpoint_ros.runtimes.{name}', None)
