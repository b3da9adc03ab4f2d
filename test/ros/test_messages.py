import struct

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from sensor_msgs.msg import Image, PointField
from std_msgs.msg import Header

from superpoint_ros import clouds, images
from superpoint_ros.features import Features
from superpoint_ros.ros.messages import features_from_message, features_message, image_message


def features(count=5, size=8, seed=0):
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, size)).astype(np.float32)
    if size:
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    scores = np.sort(rng.random(count, dtype=np.float32))[::-1].copy()
    return Features(rng.uniform(0, 99, (count, 2)).astype(np.float32), scores, descriptors, (100, 100))


def header():
    made = Header(frame_id='camera')
    made.stamp.sec, made.stamp.nanosec = 5, 6
    return made


def test_the_bytes_have_the_documented_layout():
    given = features(2, 3)
    message = features_message(given, header())
    assert message.header == header()
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        ('x', 0, PointField.FLOAT32, 1),
        ('y', 4, PointField.FLOAT32, 1),
        ('score', 8, PointField.FLOAT32, 1),
        ('descriptor', 12, PointField.INT8, 3),
    ]
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2, 15, 30)
    assert (message.is_bigendian, message.is_dense) == (False, True)
    expected = b''.join(
        struct.pack('<fff3b', *point, score, *(round(127 * float(d)) for d in descriptor))
        for point, score, descriptor in zip(given.keypoints, given.scores, given.descriptors, strict=True)
    )
    assert message.data.tobytes() == expected


@pytest.mark.parametrize(('kind', 'tolerance'), [('float32', 0), ('int8', 0.01)])
@pytest.mark.parametrize(('count', 'size'), [(7, 16), (0, 16), (7, 0), (0, 0)])
def test_features_survive_a_round_trip(kind, tolerance, count, size):
    given = features(count, size)
    info = clouds.features_info('superpoint', 'abc', size, kind, (100, 100))
    back = features_from_message(features_message(given, header(), kind), info)
    np.testing.assert_array_equal(back.keypoints, given.keypoints)
    np.testing.assert_array_equal(back.scores, given.scores)
    np.testing.assert_allclose(back.descriptors, given.descriptors, atol=tolerance)
    assert (back.image_size, back.checksum) == ((100, 100), 'abc')


@pytest.mark.parametrize(
    ('changed', 'expected'), [({'is_bigendian': True}, 'big-endian'), ({'width': 8}, '8 points'), ({'fields': []}, 'x')]
)
def test_an_inconsistent_message_is_refused(changed, expected):
    message = features_message(features(), header())
    for name, value in changed.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=expected):
        features_from_message(message)


@pytest.mark.parametrize(('shape', 'encoding'), [((6, 8), 'mono8'), ((6, 8, 3), 'bgr8')])
def test_image_messages_can_be_read_back(shape, encoding):
    pixels = np.full((8, 12, *shape[2:]), 100, np.uint8)[:6, :8]
    message = image_message(pixels, header())
    assert isinstance(message, Image)
    assert (message.encoding, message.header) == (encoding, header())
    np.testing.assert_array_equal(images.to_gray(message), np.full((6, 8), 100))
