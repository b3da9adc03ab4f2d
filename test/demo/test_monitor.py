import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from superpoint_ros import clouds
from superpoint_ros.demo.monitor import MonitorNode
from superpoint_ros.features import Features
from superpoint_ros.ros.messages import cloud_message, image_message
from superpoint_ros.tracking import Tracks


@pytest.fixture
def node():
    rclpy.init()
    node = MonitorNode('/monitor_test', 'image', None)
    yield node
    node.destroy_node()
    rclpy.shutdown()


def take(node, seconds):
    """Give a node the image, features and tracks of a stamp."""
    header = Header(stamp=Time(sec=seconds))
    points, scores = np.array([[4, 5]], np.float32), np.array([0.5], np.float32)
    features = Features(points, scores, np.ones((1, 128), np.float32) / np.sqrt(128).astype(np.float32), (8, 6))
    tracks = Tracks(np.array([1], np.uint32), np.array([2], np.uint32), points, scores)
    node._take_image(image_message(np.zeros((6, 8), np.uint8), header))
    node._take_features(cloud_message(clouds.encode_features(features), header))
    node._take_tracks(cloud_message(clouds.encode_tracks(tracks), header))


def test_the_newest_frames_are_kept_when_a_bag_starts_again(node):
    for seconds in (*range(100, 150), *range(1, 6)):
        take(node, seconds)
    assert list(node.frames)[-6:] == [10**9 * seconds for seconds in (149, 1, 2, 3, 4, 5)]
    assert len(node.frames) < 30
    assert not node.counts.latencies, 'the stamps are of another clock'
