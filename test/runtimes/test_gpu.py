"""The back ends on a real GPU: pytest -m cuda."""

import pytest
import torch

from superpoint_ros import runtimes
from superpoint_ros.runtimes import RuntimeConfig
from superpoint_ros.runtimes.engine_check import check_agreement, picture

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device was found')]


@pytest.mark.parametrize('precision', ['fp32', 'tf32', 'fp16'])
@pytest.mark.parametrize('backend', ['torch', 'tensorrt'])
def test_a_gpu_and_the_cpu_give_the_same_heads(model, backend, precision, monkeypatch, tmp_path):
    if backend == 'tensorrt':
        pytest.importorskip('tensorrt', reason='TensorRT is not installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    on_cpu = runtimes.load(model, RuntimeConfig(backend='openvino', precision='fp32'))
    on_gpu = runtimes.load(model, RuntimeConfig(backend=backend, precision=precision, engine_batch=2))
    images = [picture((320, 240)), picture((320, 240))[::-1].copy(), picture((320, 240))[:, ::-1].copy()]
    for found, expected in zip(on_gpu(images), on_cpu(images), strict=True):
        check_agreement(found, expected, precision)
