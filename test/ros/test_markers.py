"""Keypoints and tracks as annotations for viewers, over DDS."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Header
from visualization_msgs.msg import ImageMarker

from superpoint_ros.features import Features
from superpoint_ros.ros import markers
from superpoint_ros.ros.detector_config import DetectorConfig
from superpoint_ros.ros.detector_topics import DetectorTopics
from superpoint_ros.ros.feature_stream import FeatureStream
from superpoint_ros.ros.markers import TRAIL, Trails
from superpoint_ros.ros.matcher_config import Configs, MatcherConfig
from superpoint_ros.ros.matchers import CameraMatcher
from superpoint_ros.stream_tracker import Frame
from superpoint_ros.tracking import Tracks

EXTRACTOR = SimpleNamespace(info=lambda *_: '{}')


@pytest.fixture
def latest(node, context):
    """A function that returns the newest marker on a topic, while another function publishes."""
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def receive(topic, publish, condition=bool):
        received = []
        subscription = node.create_subscription(ImageMarker, topic, received.append, 5)
        end = time.monotonic() + 20
        while not (received and condition(received[-1])) and time.monotonic() < end:
            publish()
            executor.spin_once(timeout_sec=0.05)
        node.destroy_subscription(subscription)
        assert received, f'nothing came on {topic}'
        return received[-1]

    yield receive
    executor.shutdown()


def header(number):
    made = Header(frame_id='camera')
    made.stamp.sec = number
    return made


def features(shift=0.0):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(10, 90, (20, 2)).astype(np.float32) + np.float32([shift, 0])
    descriptors = rng.normal(size=(20, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(keypoints, np.linspace(1, 0.1, 20, dtype=np.float32), descriptors, (100, 100))


def points_of(marker):
    """Pixels whose center is at integers; those of the viewers have a corner there."""
    return np.array([(point.x, point.y) for point in marker.points]) - 0.5


def test_keypoints_are_dots_at_their_pixels(node, latest):
    eye = DetectorTopics(node, 'eye', None, DetectorConfig(), EXTRACTOR)
    image = np.zeros((100, 100), np.uint8)
    marker = latest('eye/features/markers', lambda: eye.publish(features(), image, header(7), time.monotonic()))
    assert marker.header == header(7)
    assert (marker.type, marker.action) == (ImageMarker.POINTS, ImageMarker.ADD)
    assert marker.outline_color.a == 1
    np.testing.assert_allclose(points_of(marker), features().keypoints)


def test_no_marker_is_made_while_nobody_subscribes(node, monkeypatch):
    monkeypatch.setattr(markers, 'Point', None)  # which every marker needs
    eye = DetectorTopics(node, 'eye', None, DetectorConfig(), EXTRACTOR)
    eye.publish(features(), np.zeros((100, 100), np.uint8), header(7), time.monotonic())
    config = MatcherConfig()
    stream = FeatureStream(node, 'eye', config)
    matcher = CameraMatcher(node, stream, Configs())
    for number in (1, 2):
        matcher.take(stream, Frame(header(number), features()), time.monotonic())


def test_tracks_are_lines_from_where_they_were(node, latest):
    config = MatcherConfig()
    stream = FeatureStream(node, 'eye', config)
    matcher = CameraMatcher(node, stream, Configs())
    number = 0

    def publish():
        nonlocal number
        number += 1
        matcher.take(stream, Frame(header(number), features(shift=float(number))), time.monotonic())

    marker = latest('eye/tracks/markers', publish, lambda m: len(m.points) == 40 and m.points[0].x < m.points[1].x - 2)
    assert marker.type == ImageMarker.LINE_LIST
    starts, ends = points_of(marker)[::2], points_of(marker)[1::2]
    shift = marker.header.stamp.sec
    np.testing.assert_allclose(ends, features(shift=shift).keypoints, rtol=1e-6)
    lengths = (ends - starts)[:, 0]
    np.testing.assert_allclose(lengths, lengths[0], atol=1e-4)
    assert 2 < lengths[0] <= TRAIL


def tracks(ids, x):
    ids = np.array(ids, np.uint32)
    keypoints = np.stack([np.full(len(ids), x, np.float32), ids.astype(np.float32)], axis=1)
    return Tracks(ids, np.ones(len(ids), np.uint32), keypoints, np.ones(len(ids), np.float32))


def test_a_trail_goes_back_to_the_oldest_frame_that_is_kept():
    trails = Trails()
    assert len(trails.add(tracks([1, 2], 0))[0]) == 0
    starts, ends = trails.add(tracks([3, 2, 1], 1))
    assert starts.tolist() == [[0, 2], [0, 1]]
    assert ends.tolist() == [[1, 2], [1, 1]]
    for x in range(2, 30):
        starts, ends = trails.add(tracks([1], x))
    assert (starts.tolist(), ends.tolist()) == ([[29 - TRAIL, 1]], [[29, 1]])
    trails.clear()
    assert len(trails.add(tracks([1], 30))[0]) == 0
