"""The code in the page for SLAM authors runs on our messages."""

import re
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros import clouds
from superpoint_ros.features import Features

PAGE = Path(__file__).resolve().parents[1] / 'docs/integrating-a-slam-node.md'


@pytest.fixture
def names():
    found = {}
    for block in re.findall(r'^```python\n(.*?)^```', PAGE.read_text(encoding='utf-8'), re.M | re.S):
        exec(block, found)
    return found


@pytest.mark.parametrize('descriptor_type', ['int8', 'float32'])
def test_features_are_read(names, descriptor_type):
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(5, 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.uniform(0, 100, (5, 2)).astype(np.float32)
    features = Features(keypoints, np.linspace(1, 0.1, 5, dtype=np.float32), descriptors, (100, 100))
    message = SimpleNamespace(data=clouds.encode_features(features, descriptor_type).tobytes())
    info = SimpleNamespace(data=clouds.features_info('superpoint', '0' * 64, 64, descriptor_type, (100, 100)))
    dtype = names['feature_dtype'](info)
    assert dtype == clouds.feature_dtype(64, descriptor_type)
    found = names['on_features'](message, dtype)
    np.testing.assert_array_equal(found[0], keypoints)
    np.testing.assert_allclose(found[1], descriptors, atol=0.01 if descriptor_type == 'int8' else 1e-6)


def test_layouts_of_tracks_and_matches(names):
    assert (names['TRACK'], names['MATCH']) == (clouds.TRACK, clouds.MATCH)
    cloud = np.array([(7, 2, 3.5, 4.5, 0.5)], clouds.TRACK)
    ids, points = names['on_tracks'](SimpleNamespace(data=cloud.tobytes()))
    assert (ids.tolist(), points.tolist()) == ([7], [[3.5, 4.5]])


def test_descriptors_packed_for_rtabmap_are_zlib_rows_columns_and_type(names):
    class KeyPoint:
        def __init__(self, **values):
            vars(self).update(values, pt=SimpleNamespace())

    rgbd = SimpleNamespace(key_points=[], descriptors=[])
    descriptors = np.arange(12, dtype=np.float32).reshape(3, 4)
    names['fill'](rgbd, np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([1, 0.5, 0.25]), descriptors, KeyPoint)
    assert [(p.pt.x, p.pt.y, p.response) for p in rgbd.key_points] == [(1, 2, 1), (3, 4, 0.5), (5, 6, 0.25)]
    data = bytes(rgbd.descriptors)
    assert struct.unpack('<3i', data[-12:]) == (3, 4, 5)
    assert zlib.decompress(data[:-12]) == descriptors.tobytes()
