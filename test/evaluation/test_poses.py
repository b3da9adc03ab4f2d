import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.evaluation import pose_pairs, poses, poses_report, report
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.pose_pairs import PosePair
from superpoint_ros.features import Features

CAMERA = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])


def transform(rotation_vector, translation):
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array(rotation_vector, float))[0]
    pose[:3, 3] = translation
    return pose


POSE = transform([0, 0.1, 0], [1, 0, 0])


def project(points, pose, camera=CAMERA):
    """Pixels of points given in the coordinates of camera 0."""
    seen = (points @ pose[:3, :3].T + pose[:3, 3]) @ camera.T
    return seen[:, :2] / seen[:, 2:]


def known(pose, cameras=(CAMERA, CAMERA)):
    return PosePair(('a0.png', 'a1.png'), (0, 0), cameras, pose)


def scene(rng, count=200):
    return rng.uniform([-3, -2, 4], [3, 2, 10], (count, 3))


def line(names=('a0.png', 'a1.png'), rotations=(0, 0), cameras=(CAMERA, CAMERA), pose=POSE):
    numbers = [*cameras[0].ravel(), *cameras[1].ravel(), *pose.ravel()]
    return ' '.join([*names, *map(str, rotations), *map(repr, map(float, numbers))])


def test_a_pair_list_is_read(tmp_path):
    pose = transform([0.1, -0.2, 0.3], [1, 2, -0.5])
    path = tmp_path / 'pairs.txt'
    path.write_text(line(rotations=(0, 3), pose=pose) + '\n\n' + line(('x/9.png', 'x/12.png')) + '\n')
    first, second = pose_pairs.read_pairs(path)
    assert (first.names, first.turns, first.gap, second.gap) == (('a0.png', 'a1.png'), (0, 3), 1, 3)
    np.testing.assert_array_equal(first.pose, pose)
    np.testing.assert_array_equal(first.cameras[1], CAMERA)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no pairs'),
        ('a.png b.png 0 0', 'line 1: expected name0 name1 rot0 rot1 K0 K1 T_0to1, 38 fields, got 4'),
        (line() + '\n' + line(rotations=(0, 4)), 'line 2: rot0 and rot1: expected 0, 1, 2 or 3'),
        (line().replace('500.0', 'wide'), 'line 1: could not convert'),
        (line().replace('500.0', 'nan'), 'finite'),
        (line(cameras=(CAMERA, np.zeros((3, 3)))), 'camera matrices'),
        (line(pose=np.full((4, 4), 0.5)), 'rotation'),
        (line(pose=transform([0, 0.1, 0], [0, 0, 0])), 'translation that is not 0'),
    ],
)
def test_a_malformed_pair_list_names_the_line_and_the_mistake(tmp_path, text, message):
    path = tmp_path / 'pairs.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match='pairs.txt.*' + message):
        pose_pairs.read_pairs(path)


def test_the_error_of_a_missing_or_binary_pair_list_names_the_file(tmp_path):
    with pytest.raises(ValueError, match='missing'):
        pose_pairs.read_pairs(tmp_path / 'missing.txt')
    (tmp_path / 'binary.txt').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='binary'):
        pose_pairs.read_pairs(tmp_path / 'binary.txt')


@pytest.mark.parametrize(
    ('names', 'gap'),
    [(('s/04.png', 's/01.png'), 3), (('s/1.png', 't/2.png'), None), (('left.png', 'right.png'), None)],
)
def test_the_gap_of_two_images_is_read_from_their_names(names, gap):
    assert PosePair(names, (0, 0), (CAMERA, CAMERA), np.eye(4)).gap == gap


def test_the_epipolar_distance_of_a_camera_that_moves_sideways_is_the_difference_of_rows():
    pose = transform([0, 0, 0], [1, 0, 0])
    points0 = np.array([[100.0, 50], [400, 300], [10, 10]])
    points1 = np.add(points0, [[-30, 0], [-12, 2.5], [5, -4]])
    np.testing.assert_allclose(poses.epipolar_distances(points0, points1, known(pose)), [0, 2.5, 4])


angle = st.floats(-0.5, 0.5)


@settings(max_examples=30)
@given(st.tuples(angle, angle, angle), st.tuples(angle, angle, angle), st.integers(0, 2**32 - 1))
def test_projected_points_give_back_their_pose(rotation, direction, seed):
    rng = np.random.default_rng(seed)
    pose = transform(rotation, np.add(direction, [1, 0, 0]))
    cameras = (CAMERA, np.diag([0.8, 0.9, 1]) @ CAMERA)
    points = scene(rng)
    points0, points1 = project(points, np.eye(4)), project(points, pose, cameras[1])
    assert poses.epipolar_distances(points0, points1, known(pose, cameras)).max() < 1e-6
    assert poses.pose_error(points0, points1, known(pose, cameras)) < 0.1


@pytest.mark.parametrize('estimator', ['magsac', 'magsac-normalized', 'ransac-normalized'])
def test_the_pose_error_is_the_larger_of_the_two_angles(estimator):
    points, pose = scene(np.random.default_rng(0)), transform([0, 0.2, 0], [1, 0, 0])
    points0, points1 = project(points, np.eye(4)), project(points, pose)
    turned = transform([0, 0.2 + np.deg2rad(7), 0], [1, 0, 0])
    moved = transform([0, 0.2, 0], [np.cos(0.3), np.sin(0.3), 0])
    opposite = transform([0, 0.2, 0], [-1, 0, 0])
    assert poses.pose_error(points0, points1, known(turned), estimator) == pytest.approx(7, abs=0.1)
    assert poses.pose_error(points0, points1, known(moved), estimator) == pytest.approx(np.rad2deg(0.3), abs=0.1)
    assert poses.pose_error(points0, points1, known(opposite), estimator) < 0.1
    for count in range(5):
        assert poses.pose_error(points0[:count], points1[:count], known(pose), estimator) == np.inf
    same = np.zeros((20, 2))
    assert poses.pose_error(same, same, known(pose), estimator) >= 0  # degenerate, but no exception


@pytest.mark.parametrize('turns', [0, 1, 2, 3])
def test_keypoints_of_a_turned_image_are_given_in_the_stored_orientation(tmp_path, turns):
    """A bright spot is found in the upright, shrunk image."""
    image = np.zeros((400, 800), np.uint8)
    image[100:110, 300:310] = 255
    cv2.imwrite(str(tmp_path / 'image.png'), image)

    def brightest(upright):
        assert upright.shape == ((200, 400) if turns % 2 == 0 else (400, 200))
        y, x = np.argwhere(upright == upright.max()).mean(axis=0)
        return Features(np.array([[x, y]], np.float32), np.ones(1, np.float32), np.ones((1, 1), np.float32),
                        upright.shape[::-1])  # fmt: skip

    view = poses.view(tmp_path / 'image.png', turns, brightest, 400)
    np.testing.assert_allclose(view.points, [[(304.5 + 0.5) / 2 - 0.5, (104.5 + 0.5) / 2 - 0.5]])
    np.testing.assert_allclose(view.resize @ [304.5, 104.5, 1], [*view.points[0], 1])


@pytest.fixture
def synthetic(tmp_path):
    """Points seen by two cameras, of which a fifth is matched wrongly; the second image is stored on its side."""
    rng = np.random.default_rng(0)
    points, pose = scene(rng), transform([0, 0.1, 0.05], [1, 0.2, 0])
    stored = [project(points, np.eye(4)), project(points, pose)]
    descriptors = np.eye(200, dtype=np.float32)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f'a{i}.png'), np.full((480, 640), i, np.uint8))
    others = descriptors.copy()
    others[:40] = np.roll(others[:40], 20, axis=0)
    (tmp_path / 'pairs.txt').write_text(
        '\n'.join([line(rotations=(0, 1), pose=pose), line(('a0.png', 'a7.png')), line(('a2.png', 'a7.png'))])
    )

    def extract(image):
        first = image[0, 0] == 0
        keypoints = stored[0] if first else np.stack([stored[1][:, 1], 639 - stored[1][:, 0]], axis=1)
        return Features(
            keypoints.astype(np.float32),
            np.ones(200, np.float32),
            descriptors if first else others,
            (640, 480)[:: -1 if not first else 1],
        )

    return tmp_path, extract


def test_a_synthetic_pair_is_measured_and_the_oracle_drops_wrong_matches(synthetic):
    folder, extract = synthetic
    method = Method('synthetic', 'by hand', lambda _: extract, False, True)
    results = poses.evaluate(
        pose_pairs.read_pairs(folder / 'pairs.txt'), folder, [method], poses_report.ratio_tests(), orders=3
    )
    assert len(results.failed) == 1  # two pairs lack the same image
    assert 'a7.png' in next(iter(results.failed))
    rows = {row['matcher']: row for row in report.means(results.rows, ('method', 'matcher'))}
    assert list(rows) == ['nearest', 'ratio 0.95', 'ratio 0.9', 'ratio 0.85', 'oracle']
    assert all(row['pairs'] == 1 and row['auc_5'] > 0.95 for row in rows.values())
    assert rows['nearest']['matches'] == rows['ratio 0.9']['matches'] == 200
    assert 160 <= rows['oracle']['matches'] <= 168  # a wrong match may lie on its epipolar line by chance
    assert 0.8 <= rows['nearest']['right'] == rows['nearest']['right_1'] <= 0.84
    assert rows['oracle']['right'] > 0.97
    for row in rows.values():
        assert row['right_matches'] == row['right_matches_1'] == round(row['right'] * row['matches'])


def test_a_matcher_that_refuses_the_features_is_left_out_with_its_reason(synthetic):
    def refuse(features0, features1):
        raise ValueError('trained for other features')

    folder, extract = synthetic
    method = Method('synthetic', 'by hand', lambda _: extract, False, True)
    matchers = {'nearest': poses_report.ALL_NEAREST, 'learned': refuse}
    results = poses.evaluate(pose_pairs.read_pairs(folder / 'pairs.txt'), folder, [method], matchers, orders=1)
    assert [row['matcher'] for row in results.rows] == ['nearest', 'oracle']
    assert list(results.refused) == ['trained for other features']


def test_the_best_ratio_test_of_each_method_is_chosen():
    tests = {'nearest': None, 'ratio 0.9': None}
    summary = [
        {'method': method, 'matcher': matcher, 'auc_10': auc}
        for method, matcher, auc in [
            ('a', 'nearest', 0.5), ('a', 'oracle', 0.9), ('a', 'ratio 0.9', 0.6),
            ('b', 'nearest', 0.7), ('b', 'ratio 0.9', 0.2), ('b', 'learned', 0.1),
        ]
    ]  # fmt: skip
    best = [(row['method'], row['matcher']) for row in poses_report.at_best_ratio(summary, tests)]
    assert best == [('a', 'oracle'), ('a', 'ratio 0.9'), ('b', 'nearest'), ('b', 'learned')]
