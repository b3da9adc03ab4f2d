from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.features import Features
from superpoint_ros.matching import MatchConfig, match, verify

ANYTHING = MatchConfig(min_similarity=-1.0)


def features(keypoints, descriptors):
    """Features whose descriptors are scaled to unit length."""
    keypoints = np.asarray(keypoints, np.float32).reshape(-1, 2)
    descriptors = np.asarray(descriptors, np.float32)
    descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(keypoints, np.ones(len(keypoints), np.float32), descriptors, (640, 480))


def random_features(rng, count, size=8):
    return features(rng.uniform(0, 100, (count, 2)), rng.normal(size=(count, size)))


def at_angles(degrees, keypoints=None):
    """Features with descriptors in a plane: the similarity of two is the cosine of the angle between them."""
    radians = np.deg2rad(degrees)
    keypoints = np.zeros((len(degrees), 2)) if keypoints is None else keypoints
    return features(keypoints, np.stack([np.cos(radians), np.sin(radians)], axis=1))


def pairs(matches):
    return [tuple(map(int, row)) for row in matches.indices]


def reference(features0, features1, config, predicted):
    """A slow reference implementation that compares every pair."""

    def allowed(i, j):
        dx, dy = features1.keypoints[j] - predicted[i]
        if config.window and max(abs(dx), abs(dy)) > config.window:
            return False
        return not config.epipolar_band or (abs(dy) <= config.epipolar_band and dx <= config.epipolar_band)

    count0, count1 = len(features0), len(features1)
    similarity = {
        (i, j): float(features0.descriptors[i].astype(float) @ features1.descriptors[j].astype(float))
        for i in range(count0)
        for j in range(count1)
        if allowed(i, j)
    }
    found = []
    for (i, j), s in similarity.items():
        row = [v for (k, m), v in similarity.items() if k == i and m != j]
        column = [v for (k, m), v in similarity.items() if m == j and k != i]
        mutual = all(s > v for v in row + column)
        distinct = not row or np.sqrt(2 - 2 * s) <= config.max_ratio * np.sqrt(2 - 2 * max(row))
        if mutual and s >= config.min_similarity and (config.max_ratio == 1 or distinct):
            found.append((i, j))
    return found


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count0=st.integers(0, 300),
    count1=st.integers(0, 20),
    config=st.builds(
        MatchConfig,
        min_similarity=st.sampled_from([-1.0, 0.3]),
        max_ratio=st.sampled_from([1.0, 0.8]),
        window=st.sampled_from([0.0, 5.0, 30.0]),
        epipolar_band=st.sampled_from([0.0, 2.0, 40.0]),
    ),
    shifted=st.booleans(),
)
def test_results_equal_those_of_a_comparison_of_every_pair(seed, count0, count1, config, shifted):
    rng = np.random.default_rng(seed)
    features0, features1 = random_features(rng, count0), random_features(rng, count1)
    predicted = features0.keypoints + (rng.normal(0, 20, (count0, 2)).astype(np.float32) if shifted else 0)
    matches = match(features0, features1, config, predicted if shifted else None)
    assert pairs(matches) == reference(features0, features1, config, predicted)
    dots = np.sum(features0.descriptors[matches.indices[:, 0]] * features1.descriptors[matches.indices[:, 1]], axis=1)
    np.testing.assert_allclose(matches.similarities, dots, atol=1e-5)


def test_a_permutation_is_recovered():
    rng = np.random.default_rng(1)
    first = random_features(rng, 500, 64)
    order = rng.permutation(500)
    matches = match(first, first[order])
    np.testing.assert_array_equal(order[matches.indices[:, 1]], np.arange(500))
    np.testing.assert_array_equal(matches.indices[:, 0], np.arange(500))
    assert matches.indices.dtype == np.uint32


@pytest.mark.parametrize('counts', [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize('config', [MatchConfig(), MatchConfig(window=10.0)])
def test_no_features_give_no_matches(counts, config):
    rng = np.random.default_rng(0)
    matches = match(random_features(rng, counts[0]), random_features(rng, counts[1]), config)
    assert len(matches) == 0
    assert matches.indices.shape == (0, 2)


def test_a_single_point_matches_and_passes_the_ratio_test():
    matches = match(at_angles([0]), at_angles([10]), MatchConfig(max_ratio=0.1))
    assert pairs(matches) == [(0, 0)]
    assert matches.similarities[0] == pytest.approx(np.cos(np.deg2rad(10)))


def test_the_threshold_is_a_cosine():
    config = MatchConfig(min_similarity=0.7072)  # a little under 45°
    assert pairs(match(at_angles([0, 90]), at_angles([44, 130]), config)) == [(0, 0), (1, 1)]
    assert pairs(match(at_angles([0, 90]), at_angles([46, 130]), config)) == [(1, 1)]


def test_nearest_neighbors_must_be_mutual():
    """20° is nearest to 0°, but nearer to 15°."""
    assert pairs(match(at_angles([0, 15]), at_angles([20]))) == [(1, 0)]


def test_the_ratio_is_of_distances():
    """Chords of 10° and 30°: 2·sin(5°) / 2·sin(15°) = 0.3367."""
    first, second = at_angles([0]), at_angles([10, 30])
    assert len(match(first, second, MatchConfig(max_ratio=0.34))) == 1
    assert len(match(first, second, MatchConfig(max_ratio=0.33))) == 0


def test_equal_descriptors_match_once():
    same = at_angles([0, 0, 0])
    matches = match(same, same, MatchConfig(min_similarity=-1.0))
    assert len(set(matches.indices[:, 0])) == len(matches) == len(set(matches.indices[:, 1])) >= 1


def test_the_window_is_centered_at_the_prediction():
    first = at_angles([0], [(10, 10)])
    second = at_angles([0, 20], [(80, 10), (12, 9)])
    assert pairs(match(first, second)) == [(0, 0)]
    assert pairs(match(first, second, MatchConfig(window=5.0))) == [(0, 1)]
    moved = np.array([[78, 11]], np.float32)
    assert pairs(match(first, second, MatchConfig(window=5.0), moved)) == [(0, 0)]


def test_the_epipolar_band_limits_rows_and_the_sign_of_disparity():
    left = at_angles([0], [(50, 20)])
    band = MatchConfig(epipolar_band=1.5)
    assert pairs(match(left, at_angles([5], [(30, 21)]), band)) == [(0, 0)]
    assert pairs(match(left, at_angles([5], [(51, 20)]), band)) == [(0, 0)], 'a distant point with noise'
    assert pairs(match(left, at_angles([5], [(70, 20)]), band)) == [], 'behind the cameras'
    assert pairs(match(left, at_angles([5], [(30, 22)]), band)) == [], 'another row'


def test_features_of_two_models_are_refused():
    rng = np.random.default_rng(0)
    first, second = (replace(random_features(rng, 3), checksum=checksum * 64) for checksum in 'ab')
    with pytest.raises(ValueError, match='checksums aaaaaaaaaaaa and bbbbbbbbbbbb'):
        match(first, second)
    match(first, replace(second, checksum=first.checksum))
    match(first, replace(second, checksum=''))


def test_bad_input_raises_an_error_that_names_it():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match='different sizes, 8 and 4'):
        match(random_features(rng, 3, 8), random_features(rng, 3, 4))
    with pytest.raises(ValueError, match='without descriptors'):
        match(random_features(rng, 3, 0), random_features(rng, 3, 0))
    with pytest.raises(ValueError, match=r'predicted: expected shape \(3, 2\)'):
        match(random_features(rng, 3), random_features(rng, 3), MatchConfig(), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match='min_similarity'):
        MatchConfig(min_similarity=2.0)


def with_outliers(points0, points1, rng, count):
    """About a fifth of the pairs are wrong."""
    points1 = points1.copy()
    points1[:count] = rng.uniform(0, 480, (count, 2))
    return points0, points1


def test_a_homography_and_its_inliers_are_found():
    rng = np.random.default_rng(3)
    truth = np.array([[1.1, 0.05, -20], [-0.03, 0.95, 12], [1e-4, -5e-5, 1]])
    points0 = rng.uniform(0, 480, (200, 2))
    points1 = cv2.perspectiveTransform(points0[None], truth)[0] + rng.normal(0, 0.3, (200, 2))
    found = verify(*with_outliers(points0, points1, rng, 60), 'homography', threshold=2.0)
    corners = np.array([[[0, 0], [480, 0], [0, 480], [480, 480]]], float)
    mapped, wanted = (cv2.perspectiveTransform(corners, matrix) for matrix in (found.matrix, truth))
    assert np.abs(mapped - wanted).max() < 1.0
    assert found.inliers[60:].mean() > 0.98
    assert found.inliers[:60].mean() < 0.05


def two_views(rng, camera0, camera1):
    """Points in space seen by two cameras, and the true essential matrix."""
    points = rng.uniform((-2, -2, 4), (2, 2, 9), (200, 3))
    rotation, _ = cv2.Rodrigues(np.array([0.02, -0.1, 0.03]))
    translation = np.array([0.5, 0.05, 0.1])
    views = [camera0 @ points.T, camera1 @ (rotation @ points.T + translation[:, None])]
    cross = np.cross(np.eye(3), translation)
    return [(view[:2] / view[2]).T for view in views], cross.T @ rotation


def test_the_fundamental_and_essential_matrix_of_two_different_cameras_are_found():
    rng = np.random.default_rng(4)
    camera0 = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], float)
    camera1 = np.array([[620, 0, 300], [0, 610, 260], [0, 0, 1]], float)
    views, truth = two_views(rng, camera0, camera1)
    points0, points1 = with_outliers(*views, rng, 50)
    essential = verify(points0, points1, 'essential', 1.0, (camera0, camera1))
    difference = min(
        np.linalg.norm(essential.matrix / np.linalg.norm(essential.matrix) + sign * truth / np.linalg.norm(truth))
        for sign in (1, -1)
    )
    assert difference < 0.01
    fundamental = verify(points0, points1, 'fundamental', 1.0)
    for found in (essential, fundamental):
        assert found.inliers[50:].mean() > 0.95
        assert found.inliers[:50].mean() < 0.1


def test_all_exact_points_are_inliers_of_the_essential_matrix():
    """Points in space seen from two positions; a third of the matches are wrong."""
    rng = np.random.default_rng(0)
    camera = np.array([[400, 0, 320], [0, 400, 240], [0, 0, 1.0]])
    space = rng.uniform((-2, -1.5, 4), (2, 1.5, 8), (100, 3))
    points0, points1 = (((space - (x, y, 0)) @ camera.T) for x, y in ((0.3, 0), (0.6, 0.1)))
    points0, points1 = (points[:, :2] / points[:, 2:] for points in (points0, points1))
    points1[:30] += rng.choice([-40, 40], (30, 2))
    inliers = verify(points0, points1, 'essential', 1.0, (camera, camera)).inliers
    assert inliers[30:].all()
    assert inliers[:30].sum() <= 6


@pytest.mark.parametrize('count', [0, 1, 3])
@pytest.mark.parametrize('geometry', ['homography', 'fundamental', 'essential'])
def test_too_few_points_have_no_geometry(geometry, count):
    points = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    found = verify(points, points, geometry, camera_matrices=(np.eye(3), np.eye(3)))
    assert found.matrix is None
    assert found.inliers.shape == (count,)
    assert not found.inliers.any()


@pytest.mark.parametrize('geometry', ['homography', 'fundamental', 'essential'])
def test_degenerate_points_raise_no_error(geometry):
    points = np.zeros((20, 2), np.float32)
    found = verify(points, points, geometry, camera_matrices=(np.eye(3), np.eye(3)))
    assert found.inliers.shape == (20,)


def test_points_on_which_opencv_fails_have_no_geometry():
    """Six points that did not move and two that did fail an assertion of OpenCV 5 (!model.empty())."""
    points0 = np.array([[23, 16], [10, 7], [24, 25], [25, 18], [6, 3], [9, 0], [16, 11], [1, 23]], np.float32)
    points1 = points0.copy()
    points1[:2] = (279, 243), (71, 76)
    found = verify(points0, points1, 'fundamental')
    assert found.inliers.shape == (8,)


def test_verification_refuses_bad_arguments():
    points = np.zeros((8, 2))
    with pytest.raises(ValueError, match="'affine' is not one of homography, fundamental, essential"):
        verify(points, points, 'affine')
    with pytest.raises(ValueError, match='matrix K of each camera'):
        verify(points, points, 'essential')
    with pytest.raises(ValueError, match='two arrays of shape'):
        verify(points, points[:5], 'homography')


def test_verification_is_repeatable():
    rng = np.random.default_rng(5)
    points0, points1 = rng.uniform(0, 100, (2, 60, 2))
    first, second = (verify(points0, points1, 'fundamental') for _ in range(2))
    np.testing.assert_array_equal(first.inliers, second.inliers)
