import cv2
import numpy as np
import pytest

from superpoint_ros.evaluation import baselines
from superpoint_ros.evaluation.metrics import nearest_neighbors
from superpoint_ros.evaluation.protocols import Setting

SETTING = Setting(size=(160, 120), keypoints=50, nms_radius=4)


@pytest.fixture(scope='module')
def image():
    """A texture in which every detector finds keypoints."""
    noise = np.random.default_rng(2).integers(0, 255, (240, 320), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize('name', baselines.detectors())
def test_detectors_return_the_best_keypoints_with_nms_and_border_applied(image, name):
    features = baselines.detectors()[name](SETTING)(image)
    assert len(features) == SETTING.keypoints
    assert (np.diff(features.scores) <= 0).all()
    assert features.descriptors.shape == (50, 0)
    apart = np.abs(features.keypoints[:, None] - features.keypoints[None]).max(axis=2) + 100 * np.eye(50)
    assert apart.min() > SETTING.nms_radius
    assert ((features.keypoints >= 4) & (features.keypoints < [316, 236])).all()


@pytest.mark.parametrize('name', ['FAST', 'Harris', 'Shi-Tomasi'])
def test_detectors_find_the_corners_of_a_square(name):
    picture = np.zeros((120, 160), np.uint8)
    picture[40:80, 50:110] = 200
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8)  # FAST suppresses all of several equally strong neighbors
    corners = np.array([[50, 40], [109, 40], [109, 79], [50, 79]])
    found = baselines.detectors()[name](SETTING)(picture).keypoints
    assert np.linalg.norm(corners[:, None] - found[None], axis=2).min(axis=1).max() <= 2.5


def test_random_keypoints_depend_on_the_image_but_not_on_the_run(image):
    extract = baselines.detectors()['random'](SETTING)
    np.testing.assert_array_equal(extract(image).keypoints, extract(image).keypoints)
    assert (extract(image).keypoints != extract(255 - image).keypoints).any()


@pytest.mark.parametrize('name', baselines.descriptors())
def test_features_have_unit_descriptors_and_respect_the_keypoint_limit(image, name):
    features = baselines.descriptors()[name](SETTING)(image)
    assert 0 < len(features) <= SETTING.keypoints
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert (np.diff(features.scores) <= 0).all()


def test_akaze_is_available_if_opencv_has_it():
    assert ('AKAZE' in baselines.descriptors()) == hasattr(cv2, 'AKAZE')


@pytest.mark.parametrize('name', [*baselines.detectors(), *baselines.descriptors()])
def test_a_blank_image_has_no_keypoints_but_random_ones(name):
    methods = {**baselines.detectors(), **baselines.descriptors()}
    features = methods[name](SETTING)(np.full((120, 160), 90, np.uint8))
    assert len(features) == (50 if name == 'random' else 0)


def test_nms_applies_to_features_if_the_protocol_asks_for_it(image):
    setting = Setting(size=(160, 120), keypoints=200, nms_radius=8, nms_all=True)
    keypoints = np.rint(baselines.descriptors()['ORB'](setting)(image).keypoints)
    apart = np.abs(keypoints[:, None] - keypoints[None]).max(axis=2) + 100 * np.eye(len(keypoints))
    assert apart.min() > 8


def test_binary_descriptors_rank_as_by_hamming_distance():
    rng = np.random.default_rng(4)
    bits0, bits1 = rng.integers(0, 256, (40, 32), np.uint8), rng.integers(0, 256, (50, 32), np.uint8)
    found, _ = nearest_neighbors(baselines._unit_rows(bits0), baselines._unit_rows(bits1))
    matches = cv2.BFMatcher(cv2.NORM_HAMMING).match(bits0, bits1)
    assert [m.trainIdx for m in matches] == found.indices[:, 1].tolist()
    np.testing.assert_allclose(found.similarities, [1 - 2 * m.distance / 256 for m in matches], atol=1e-6)
