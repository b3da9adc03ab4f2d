"""The bytes in a bag are those of a live node, except the padding between fields."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy to serialize as a live node does')

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, TimeReference
from std_msgs.msg import Header, String

from superpoint_ros import clouds
from superpoint_ros.bags.read import typestore
from superpoint_ros.bags.write import CLOUD, REFERENCE, STRING, bag_writer
from superpoint_ros.features import Features
from superpoint_ros.ros.messages import cloud_message, features_message
from superpoint_ros.tracking import Tracks

from . import conftest
from .conftest import contents


@pytest.mark.parametrize('frame', ['', 'a', 'camera', 'left_camera_optical_frame'])
@pytest.mark.parametrize('count', [0, 1, 7])
@pytest.mark.parametrize(('descriptor_size', 'descriptor_type'), [(0, 'int8'), (5, 'int8'), (32, 'float32')])
def test_messages_are_the_same_bytes(frame, count, descriptor_size, descriptor_type, tmp_path):
    rng = np.random.default_rng(count)
    descriptors = rng.standard_normal((count, descriptor_size)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    features = Features(rng.random((count, 2), np.float32), rng.random(count, np.float32), descriptors, (96, 64))
    ids = np.arange(count, dtype=np.uint32)
    tracks = clouds.encode_tracks(Tracks(ids, ids, features.keypoints, features.scores))
    header = conftest.header(typestore(), 12_000_000_034, frame)
    live = Header(frame_id=frame)
    live.stamp.sec, live.stamp.nanosec = 12, 34
    with bag_writer(tmp_path / 'bag') as writer:
        writer.cloud('/features', 0, clouds.encode_features(features, descriptor_type), header)
        writer.cloud('/tracks', 1, tracks, header)
        writer.reference('/matches/first', 2, header, header)
        writer.string('/features/info', 3, f'{{"model": "{frame}"}}')
    reference = TimeReference(header=live, time_ref=live.stamp, source=frame)
    expected = [
        features_message(features, live, descriptor_type),
        cloud_message(tracks, live),
        reference,
        String(data=f'{{"model": "{frame}"}}'),
    ]
    for message, (topic, _, data) in zip(expected, contents(tmp_path / 'bag'), strict=True):
        live_data = serialize_message(message)
        assert len(live_data) == len(data), topic
        # A live node does not set the padding between fields.
        kind = {PointCloud2: CLOUD, TimeReference: REFERENCE, String: STRING}[type(message)]
        assert typestore().serialize_cdr(typestore().deserialize_cdr(live_data, kind), kind).tobytes() == data, topic
        assert deserialize_message(data, type(message)) == message, topic
