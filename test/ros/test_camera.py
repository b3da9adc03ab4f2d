import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from superpoint_ros.features import Features
from superpoint_ros.ros import camera
from superpoint_ros.ros.camera import Camera
from superpoint_ros.ros.detector_config import DetectorConfig

EXTRACTOR = SimpleNamespace(
    model=SimpleNamespace(name='none'), runtime=SimpleNamespace(checksum='0' * 64, descriptor_size=4)
)


@pytest.fixture
def node(context):
    made = rclpy.create_node('with_camera', context=context)
    yield made
    made.destroy_node()


def features():
    return Features(np.full((1, 2), 5, np.float32), np.ones(1, np.float32), np.eye(1, 4, dtype=np.float32), (20, 20))


def test_nothing_is_drawn_until_someone_subscribes(node, monkeypatch):
    drawn = []
    monkeypatch.setattr(camera, 'draw_keypoints', lambda image, found: drawn.append(found) or image)
    eye = Camera(node, 'eye', None, DetectorConfig(), EXTRACTOR)
    eye.publish(features(), np.zeros((20, 20), np.uint8), Header(), time.monotonic())
    assert not drawn
    subscription = node.create_subscription(Image, 'eye/features/image', lambda _: None, 1)
    end = time.monotonic() + 15
    while not drawn and time.monotonic() < end:
        eye.publish(features(), np.zeros((20, 20), np.uint8), Header(), time.monotonic())
        time.sleep(0.05)
    assert drawn
    node.destroy_subscription(subscription)
    eye.destroy()


@pytest.mark.parametrize('reliability', [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_the_features_offer_the_quality_of_service_that_is_asked_for(node, reliability):
    config = DetectorConfig(output_reliability=reliability.name.lower(), output_depth=3)
    eye = Camera(node, 'quality', None, config, EXTRACTOR)
    [publisher] = node.get_publishers_info_by_topic('quality/features')
    assert publisher.qos_profile.reliability == reliability
    eye.destroy()


def test_a_mask_of_another_size_is_said(node):
    eye = Camera(node, 'masked', np.zeros((10, 30), np.uint8), DetectorConfig(), EXTRACTOR)
    message = camera.image_message(np.zeros((20, 20), np.uint8), Header())
    with pytest.raises(ValueError, match='the image has 20×20 pixels and the mask 30×10'):
        eye.convert(message)
    eye.destroy()
