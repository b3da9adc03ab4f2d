import cv2
import numpy as np
import pytest

from superpoint_ros.demo.scene import NOISE, ROUND, SIZE, Scene, photographs, view_transform
from superpoint_ros.geometry import transform_points

WIDTH, HEIGHT = SIZE


@pytest.fixture(scope='module')
def scene():
    pytest.importorskip('skimage', reason='needs scikit-image, whose photographs are shown')
    return Scene(photographs())


@pytest.mark.parametrize('photograph', [(741, 500), (512, 512), (300, 900)])
def test_the_camera_never_sees_beyond_the_photograph(photograph):
    corners = np.array([[0, 0], [WIDTH - 1, 0], [0, HEIGHT - 1], [WIDTH - 1, HEIGHT - 1]], float)
    for time in np.arange(0, ROUND, 0.05):
        seen = transform_points(view_transform(time, photograph), corners)
        assert (seen >= 0).all()
        assert (seen <= np.subtract(photograph, 1)).all()


def test_motion_predicts_the_positions_of_corners(scene):
    time0, time1 = 1000.3, 1000.4
    image0, image1 = (scene.image(time, np.random.default_rng(0)) for time in (time0, time1))
    corners = cv2.goodFeaturesToTrack(image0, 200, 0.02, 10)
    followed, status, _ = cv2.calcOpticalFlowPyrLK(image0, image1, corners, None)
    expected = transform_points(scene.motion(time0, time1), corners[:, 0])
    errors = np.linalg.norm(followed[:, 0] - expected, axis=1)[status[:, 0] == 1]
    assert len(errors) > 50
    assert np.median(errors) < 0.2
    moved = np.linalg.norm(expected - corners[:, 0], axis=1)
    assert np.median(moved) > 2


def test_there_is_no_motion_between_two_photographs(scene):
    assert scene.motion(ROUND - 0.1, ROUND - 0.05) is not None
    assert scene.motion(ROUND - 0.1, ROUND + 0.1) is None


def test_an_image_depends_only_on_time_and_noise(scene):
    first, again = (scene.image(5.0, np.random.default_rng(7)) for _ in range(2))
    assert (first == again).all()
    assert first.shape == (HEIGHT, WIDTH)
    assert first.dtype == np.uint8
    other = scene.image(5.0, np.random.default_rng(8))
    assert np.std(first.astype(float) - other) == pytest.approx(NOISE * np.sqrt(2), rel=0.1)
