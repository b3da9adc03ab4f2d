import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from superpoint_ros.features import Features
from superpoint_ros.ros import detector_topics
from superpoint_ros.ros.detector_config import DetectorConfig
from superpoint_ros.ros.detector_topics import DetectorTopics

EXTRACTOR = SimpleNamespace(info=lambda *_: '{}')


def features():
    return Features(np.full((1, 2), 5, np.float32), np.ones(1, np.float32), np.eye(1, 4, dtype=np.float32), (20, 20))


def test_nothing_is_drawn_without_a_subscriber(node, monkeypatch):
    drawn = []
    monkeypatch.setattr(detector_topics, 'draw_keypoints', lambda image, found: drawn.append(found) or image)
    eye = DetectorTopics(node, 'eye', None, DetectorConfig(), EXTRACTOR)
    eye.publish(features(), np.zeros((20, 20), np.uint8), Header(), time.monotonic())
    assert not drawn
    subscription = node.create_subscription(Image, 'eye/features/image', lambda _: None, 1)
    end = time.monotonic() + 15
    while not drawn and time.monotonic() < end:
        eye.publish(features(), np.zeros((20, 20), np.uint8), Header(), time.monotonic())
        time.sleep(0.05)
    assert drawn
    node.destroy_subscription(subscription)


@pytest.mark.parametrize('reliability', [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_the_features_offer_the_configured_quality_of_service(node, reliability):
    config = DetectorConfig(output_reliability=reliability.name.lower(), output_depth=3)
    DetectorTopics(node, 'quality', None, config, EXTRACTOR)
    [publisher] = node.get_publishers_info_by_topic('quality/features')
    assert publisher.qos_profile.reliability == reliability
