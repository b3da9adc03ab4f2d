import signal

import pytest

# Tests interrupt; a shell that starts them in the background has SIGINT ignored, by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
