"""Network and decoding as one captured piece of work."""

import logging
import threading
import types
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from superpoint_ros import runtimes
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.networks import decode
from superpoint_ros.runtimes import RuntimeConfig, pipeline

cuda = pytest.mark.cuda
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device was found')


class Recorded(TorchDispatchMode):
    """The operations that torch runs."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('masked', [False, True])
def test_decoding_looks_at_no_value_and_takes_none_from_the_host(interpolation, masked):
    # Meta tensors have no values, so whatever would wait for one raises; lift_fresh is a constant from the host.
    outputs = {
        'logits': torch.empty(2, 65, 8, 12, device='meta'),
        'descriptors': torch.empty(2, 32, 8, 12, device='meta'),
    }
    sizes = torch.empty(2, 2, dtype=torch.int64, device='meta')
    masks = torch.empty(2, 64, 96, dtype=torch.bool, device='meta') if masked else None
    with torch.inference_mode(), Recorded() as recorded:
        batch = decode.decode_superpoint(outputs, sizes, DecodeConfig(interpolation=interpolation), masks)
    assert batch.keypoints.shape == (2, 1024, 2)
    assert batch.descriptors.shape == (2, 1024, 32)
    assert not recorded.names & {'aten::lift_fresh', 'aten::_local_scalar_dense', 'aten::copy_', 'aten::_to_copy'}


def corners(shape, calls):
    """A network that finds the pixels which are white, and counts its bindings."""
    calls.append(shape)

    def heads(images):
        cells = torch.nn.functional.pixel_unshuffle(images[:, None].float() / 255, 8)
        return {'logits': torch.cat([cells * 20, torch.full_like(cells[:, :1], 5)], dim=1)}

    return heads


def run(runner, images, config, calls, masks=None):
    height, width = images.shape[1:]
    sizes = [(width, height)] * len(images)
    return runner(lambda shape: corners(shape, calls), images, sizes, config, masks or [None] * len(images))


def test_a_shape_is_bound_once_and_the_oldest_is_forgotten():
    runner, calls = pipeline.Pipeline(torch.device('cpu')), []
    images = np.zeros((1, 64, 96), np.uint8)
    images[0, 30, 40] = 255
    config = DecodeConfig(subpixel=False)
    for _ in range(3):
        (found,) = run(runner, images, config, calls)
        np.testing.assert_array_equal(found.keypoints, [[40, 30]])
        assert found.descriptors.shape == (1, 0)
    assert calls == [(1, 64, 96)]
    for rows in range(1, pipeline.STAGES_KEPT + 1):
        run(runner, np.zeros((1, 8 * rows, 96), np.uint8), config, calls)
    assert len(calls) == 1 + pipeline.STAGES_KEPT
    run(runner, images, config, calls)
    assert len(calls) == 2 + pipeline.STAGES_KEPT


def test_other_sizes_masks_and_configurations_are_taken_up():
    runner, calls = pipeline.Pipeline(torch.device('cpu')), []
    images = np.zeros((2, 64, 96), np.uint8)
    images[:, 30, 40] = images[:, 30, 80] = 255
    left = np.arange(96) < 60 + np.zeros((64, 1))
    counts = [len(one.scores) for one in run(runner, images, DecodeConfig(), calls, [None, left])]
    assert counts == [2, 1]
    counts = [len(one.scores) for one in run(runner, images, DecodeConfig(), calls, [left, None])]
    assert counts == [1, 2]
    assert [len(one.scores) for one in run(runner, images, DecodeConfig(max_keypoints=1), calls)] == [1, 1]
    assert [len(one.scores) for one in run(runner, images, DecodeConfig(), calls)] == [2, 2]
    small = runner(lambda shape: corners(shape, calls), images, [(50, 64), (96, 20)], DecodeConfig(), [None, None])
    assert [len(one.scores) for one in small] == [1, 0]


def test_more_rounds_are_taken_where_the_first_are_not_enough(monkeypatch):
    monkeypatch.setattr(pipeline, 'ROUNDS', 1)
    images = np.tile(np.arange(40, 136, dtype=np.uint8), (1, 64, 1))  # a slope
    config = DecodeConfig(threshold=0)
    few = run(pipeline.Pipeline(torch.device('cpu')), images, config, [])[0]
    monkeypatch.setattr(pipeline, 'ROUNDS', 64)
    many = run(pipeline.Pipeline(torch.device('cpu')), images, config, [])[0]
    assert len(few.scores) > 100
    for found, expected in zip(few, many, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def graphs(monkeypatch):
    """torch's CUDA graphs, without CUDA: what was asked of them."""
    seen = types.SimpleNamespace(captured=[], replays=0, error=None)

    class CUDAGraph:
        def replay(self):
            seen.replays += 1

    @contextmanager
    def graph(cuda_graph, pool=None, stream=None, capture_error_mode='global'):
        seen.captured.append((pool, stream, capture_error_mode))
        yield
        if seen.error:
            raise seen.error

    monkeypatch.setattr(torch.cuda, 'CUDAGraph', CUDAGraph)
    monkeypatch.setattr(torch.cuda, 'graph', graph)
    return seen


def test_a_capture_comes_after_warm_ups_and_replays(graphs):
    calls, waits = [], []
    stream = types.SimpleNamespace(synchronize=lambda: waits.append(len(calls)))
    replay = pipeline.captured(lambda: calls.append(1) or len(calls), stream, 'pool')
    assert waits == [pipeline.WARM_UPS]
    assert graphs.captured == [('pool', stream, 'thread_local')]
    assert [replay(), replay()] == [pipeline.WARM_UPS + 1] * 2
    assert graphs.replays == 2
    assert len(calls) == pipeline.WARM_UPS + 1


def test_what_cannot_be_captured_runs_as_it_is(graphs, caplog):
    graphs.error = RuntimeError('operation not permitted when stream is capturing\nmore')
    calls = []
    stream = types.SimpleNamespace(synchronize=lambda: None)
    function = pipeline.captured(lambda: calls.append(1) or len(calls), stream)
    assert function() == len(calls) == pipeline.WARM_UPS + 2
    assert graphs.replays == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == ('no CUDA graph, running without: operation not permitted when stream is capturing')


@cuda
@needs_cuda
@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'bf16'])
def test_the_gpu_gives_what_the_cpu_gives(model, precision, caplog):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 96), np.uint8)
    sizes = [(96, 64), (90, 60), (96, 64)]
    masks = [None, np.arange(96) > 40 + np.zeros((64, 1)), None]
    on_cpu, on_gpu = (
        runtimes.load(model, RuntimeConfig(backend='torch', device=device, precision=p))
        for device, p in (('cpu', 'fp32'), ('cuda', precision))
    )
    config = DecodeConfig(max_keypoints=50)
    for _ in range(3):
        for found, expected in zip(
            on_gpu(images, sizes, config, masks), on_cpu(images, sizes, config, masks), strict=True
        ):
            if precision == 'fp32':
                np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.01)
                np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=1e-3)
            else:
                nearest = np.abs(found.keypoints[:, None] - expected.keypoints).max(-1).min(1)
                assert (nearest < 1).mean() > 0.9
    assert 'no CUDA graph' not in caplog.text


@cuda
@needs_cuda
def test_capture_while_another_thread_takes_gpu_memory(model, caplog):
    going = threading.Event()

    def allocate():
        while not going.is_set():
            torch.empty(1 << 22, device='cuda')
            torch.cuda.empty_cache()

    thread = threading.Thread(target=allocate)
    thread.start()
    try:
        runtime = runtimes.load(model, RuntimeConfig(backend='torch', device='cuda'))
        for height in (64, 72, 80):
            runtime(np.zeros((1, height, 96), np.uint8), [(96, height)], DecodeConfig(), [None])
    finally:
        going.set()
        thread.join()
    assert 'no CUDA graph' not in caplog.text


@cuda
@needs_cuda
def test_a_function_that_waits_for_the_host_is_not_captured(caplog):
    stream = torch.cuda.Stream()
    values = torch.ones(4, device='cuda')
    with torch.cuda.stream(stream):
        function = pipeline.captured(lambda: values.sum().item(), stream)
        assert function() == 4
    assert 'no CUDA graph' in caplog.text
