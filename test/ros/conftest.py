import os

import numpy as np
import pytest

DOMAIN = os.getpid() % 100 + 100
"""ROS_DOMAIN_ID of these tests, so that others on this machine do not hear them."""


@pytest.fixture(scope='session')
def domain():
    return DOMAIN


@pytest.fixture(scope='session')
def context():
    """A ROS context in the tests' domain."""
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    made = rclpy.Context()
    rclpy.init(context=made, domain_id=DOMAIN)
    yield made
    made.try_shutdown()


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
def photo():
    """(240, 320) grey, with texture."""
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    return np.kron(coarse, np.ones((8, 8), np.uint8))
