import functools
import os
import signal

import hypothesis
import numpy as np
import pytest

from superpoint_ros.features import Features

# Tests interrupt; a shell that starts them in the background has SIGINT ignored, by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# On a busy machine, an example may take any time.
hypothesis.settings.register_profile('busy', deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile('busy')
# Processes that tests start say where they crashed.
os.environ['PYTHONFAULTHANDLER'] = '1'


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory):
    """A small network of random weights, as .safetensors and, of that name, .onnx; it finds hundreds of keypoints."""
    torch = pytest.importorskip('torch', reason='needs torch to make a model')
    pytest.importorskip('openvino', reason='needs OpenVINO to run a model')
    from superpoint_ros.networks import checkpoint
    from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
    from superpoint_ros.runtimes.export import export

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SuperPoint(SuperPointConfig(channels=(8, 8, 8, 8), head_channels=16, descriptor_size=32)).eval()
        with torch.no_grad():
            network.state_dict()['detector.1.weight'].mul_(30)  # so that the score map has peaks
    path = tmp_path_factory.mktemp('model') / 'tiny.safetensors'
    checkpoint.save(path, network)
    export(path, path.with_suffix('.onnx'))
    return path.with_suffix('.onnx')


@pytest.fixture(scope='session')
def make_matcher(tmp_path_factory):
    """Writes a small matcher of random weights and its graph; similar descriptors match with a high probability.

    Takes options of LightGlueConfig, and returns the path of the .safetensors file, which tests must not change.
    """
    torch = pytest.importorskip('torch', reason='needs torch to make a model')
    pytest.importorskip('openvino', reason='needs OpenVINO to run a model')
    from superpoint_ros.networks import checkpoint
    from superpoint_ros.networks.lightglue import LightGlue
    from superpoint_ros.networks.lightglue_config import LightGlueConfig
    from superpoint_ros.runtimes.export import export

    @functools.cache
    def make(**options):
        config = LightGlueConfig(**{'descriptor_size': 16, 'width': 32, 'heads': 2, 'layers': 2} | options)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            network = LightGlue(config).eval()
            for attention in (*network.self_attention, *network.cross_attention):
                torch.nn.init.normal_(attention.update[3].weight, std=0.05)
            for assignment in network.assignment:
                torch.nn.init.constant_(assignment.matchability.bias, 4)
        path = tmp_path_factory.mktemp('matcher') / 'matcher.safetensors'
        checkpoint.save(path, network)
        export(path, path.with_suffix('.onnx'))
        return path

    return make


@pytest.fixture(scope='session')
def random_features():
    """Makes features of an image of 640×480 pixels, with descriptors of 16 elements."""

    def make(count, seed=0, **changes):
        rng = np.random.default_rng(seed)
        descriptors = rng.normal(size=(count, 16))
        arrays = {
            'keypoints': rng.uniform(0, [639, 479], (count, 2)),
            'scores': np.sort(rng.random(count))[::-1],
            'descriptors': descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        }
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
        return Features(**arrays | {'image_size': (640, 480)} | changes)

    return make


def features_of_size(size, count=5):
    """Features of an image of 100×100 pixels, with descriptors of this size."""
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(count, size)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.uniform(0, 100, (count, 2)).astype(np.float32)
    return Features(keypoints, np.linspace(1, 0.1, count, dtype=np.float32), descriptors, (100, 100))
