"""Layouts of point clouds, round trips, and inconsistent messages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros import clouds
from superpoint_ros.features import Features, Matches
from superpoint_ros.tracking import Tracks


def features(count, depth, seed=0):
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((count, depth)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)
    keypoints = rng.uniform(0, 640, (count, 2)).astype(np.float32)
    scores = np.sort(rng.random(count, np.float32))[::-1].copy()
    return Features(keypoints, scores, descriptors, (640, 480))


def test_layouts_are_as_documented():
    fields = clouds.point_fields(clouds.feature_dtype(256))
    assert fields == [('x', 0, 7, 1), ('y', 4, 7, 1), ('score', 8, 7, 1), ('descriptor', 12, 1, 256)]
    assert clouds.feature_dtype(256).itemsize == 268
    assert clouds.point_fields(clouds.feature_dtype(64, 'float32'))[3] == ('descriptor', 12, 7, 64)
    assert clouds.point_fields(clouds.feature_dtype(0)) == [('x', 0, 7, 1), ('y', 4, 7, 1), ('score', 8, 7, 1)]
    assert [(f.name, f.offset, f.datatype) for f in clouds.point_fields(clouds.MATCH)] == [
        ('x0', 0, 7), ('y0', 4, 7), ('x1', 8, 7), ('y1', 12, 7), ('similarity', 16, 7),
        ('index0', 20, 6), ('index1', 24, 6),
    ]  # fmt: skip
    assert [(f.name, f.offset, f.datatype) for f in clouds.point_fields(clouds.TRACK)] == [
        ('id', 0, 6), ('age', 4, 6), ('x', 8, 7), ('y', 12, 7), ('score', 16, 7),
    ]  # fmt: skip


def test_int8_is_rounded_to_127ths():
    one = Features(
        np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.array([[0.6, -0.8, 0.0]], np.float32), (9, 9)
    )
    assert clouds.encode_features(one)['descriptor'].tolist() == [[76, -102, 0]]


def decode(cloud, **changes):
    info = clouds.features_info('superpoint', 'abc', 256, 'int8', (640, 480))
    return clouds.decode_features(message(cloud, **changes), changes.get('info', info))


def message(cloud, **changes):
    values = {'data': cloud.tobytes(), 'fields': clouds.point_fields(cloud.dtype), **clouds.message_values(cloud)}
    return SimpleNamespace(**(values | changes))


@pytest.mark.parametrize('count', [0, 1, 300])
@pytest.mark.parametrize('depth', [0, 256])
@pytest.mark.parametrize(('kind', 'tolerance'), [('float32', 0), ('int8', 0.008)])
def test_encoded_features_decode_to_the_same(count, depth, kind, tolerance):
    sent = features(count, depth)
    got = decode(clouds.encode_features(sent, kind))
    np.testing.assert_array_equal(got.keypoints, sent.keypoints)
    np.testing.assert_array_equal(got.scores, sent.scores)
    assert got.image_size == sent.image_size
    assert got.checksum == 'abc'
    np.testing.assert_allclose(got.descriptors, sent.descriptors, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(got.descriptors, axis=1), 1 if depth else 0, atol=1e-5)


def test_points_are_read_without_a_copy():
    cloud = clouds.encode_features(features(3, 8))
    data = bytearray(cloud.tobytes())
    points = clouds.read_cloud(message(cloud, data=data))
    assert np.shares_memory(points, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize('padding', [0, 7])
def test_several_rows_are_read_in_order(padding):
    cloud = clouds.encode_features(features(6, 8))
    rows = np.pad(cloud.view(np.uint8).reshape(2, -1), ((0, 0), (0, padding)), constant_values=255)
    several = {'width': 3, 'height': 2, 'row_step': rows.shape[1], 'data': rows.tobytes()}
    np.testing.assert_array_equal(clouds.read_cloud(message(cloud, **several)), cloud)
    with pytest.raises(ValueError, match='6 points of 20 bytes'):
        clouds.read_cloud(message(cloud, **several | {'data': rows.tobytes()[:-1]}))
    with pytest.raises(ValueError, match='6 points of 20 bytes in rows of 4294967295 need more'):
        clouds.read_cloud(message(cloud, **several | {'row_step': 2**32 - 1}))


def test_the_row_step_of_a_single_row_does_not_matter():
    cloud = clouds.encode_features(features(6, 8))
    for row_step in (0, 2**32 - 1):
        np.testing.assert_array_equal(clouds.read_cloud(message(cloud, row_step=row_step)), cloud)


def test_unknown_fields_are_ignored():
    wide = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f8'), ('score', '<f4'), ('descriptor', 'i1', (4,))])
    cloud = np.zeros(2, wide)
    cloud['score'], cloud['descriptor'] = 0.5, [0, 3, 4, 0]
    np.testing.assert_allclose(decode(cloud).descriptors, [[0, 0.6, 0.8, 0]] * 2)


def test_inconsistent_clouds_are_refused():
    cloud = clouds.encode_features(features(5, 16))
    fields = clouds.point_fields(cloud.dtype)
    with pytest.raises(ValueError, match='6 points'):
        decode(cloud, width=6)
    with pytest.raises(ValueError, match='bytes'):
        decode(cloud, data=cloud.tobytes()[:-1])
    with pytest.raises(ValueError, match='score'):
        decode(cloud, fields=[field for field in fields if field.name != 'score'])
    with pytest.raises(ValueError, match='x'):
        decode(cloud, fields=[fields[0]._replace(datatype=8), *fields[1:]])
    with pytest.raises(ValueError, match='datatype'):
        decode(cloud, fields=[fields[0]._replace(datatype=99), *fields[1:]])
    for change in ({'offset': 20}, {'offset': 1 << 31}, {'count': 1 << 31}, {'count': 1 << 62}):
        with pytest.raises(ValueError, match='descriptor'):
            decode(cloud, fields=[*fields[:3], fields[3]._replace(**change)])
    with pytest.raises(ValueError, match='descriptor'):
        decode(cloud, fields=[*fields[:3], fields[3]._replace(datatype=4, count=8)])
    with pytest.raises(ValueError, match='two fields x'):
        decode(cloud, fields=[*fields, fields[0]])
    for step in (0, -1, 3):
        with pytest.raises(ValueError, match=f'does not fit in a point of {step} bytes'):
            decode(cloud, point_step=step)


def test_matches_and_tracks_are_encoded():
    first, second = features(4, 8), features(6, 8, seed=1)
    matches = Matches(np.array([[0, 5], [3, 1]], np.uint32), np.array([0.9, 0.8], np.float32))
    cloud = clouds.encode_matches(first, second, matches)
    assert cloud.dtype == clouds.MATCH
    assert cloud['x1'].tolist() == second.keypoints[[5, 1], 0].tolist()
    assert cloud['y0'].tolist() == first.keypoints[[0, 3], 1].tolist()
    assert cloud['index0'].tolist() == [0, 3]
    assert cloud['similarity'].tolist() == matches.similarities.tolist()
    ids, ages = np.array([7, 9], np.uint32), np.array([1, 2], np.uint32)
    tracks = clouds.encode_tracks(Tracks(ids, ages, first.keypoints[:2], first.scores[:2]))
    assert tracks['id'].tolist() == [7, 9]
    assert tracks['age'].tolist() == [1, 2]
    assert tracks['y'].tolist() == first.keypoints[:2, 1].tolist()
    assert len(clouds.encode_tracks(Tracks(ids[:0], ages[:0], first.keypoints[:0], first.scores[:0]))) == 0


def test_info_is_json():
    assert isinstance(json.loads(clouds.features_info('superpoint', 'abc', 256, 'int8', (640, 480))), dict)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'ORB',
        '[]',
        '{}',
        '{"checksum": "abc", "image_size": 640}',
        '{"checksum": "abc", "image_size": [1e999, 480]}',
        '{"checksum": "abc", "image_size": [NaN, 480]}',
        f'{{"checksum": "abc", "image_size": [640, 1{400 * "0"}]}}',
        '[' * 100_000,
        '{"checksum": "\\ud800"}',
    ],
)
def test_info_of_other_detectors_identifies_the_model_by_its_whole_text(text):
    assert clouds.read_features_info(text) == (text, (0, 0))
