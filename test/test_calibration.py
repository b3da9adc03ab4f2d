from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from superpoint_ros.calibration import read_camera_info

K = np.array([[400, 0, 320], [0, 410, 240], [0, 0, 1.0]])
SPACE = np.random.default_rng(0).uniform((-1, -1, 4), (1, 1, 8), (50, 3))


def camera_info(model, distortion, k=K, binning=(0, 0), offset=(0, 0)):
    p = np.hstack([K + np.diag([5, 5, 0]), np.zeros((3, 1))])
    return SimpleNamespace(
        k=k.ravel(),
        p=p.ravel(),
        d=distortion,
        distortion_model=model,
        binning_x=binning[0],
        binning_y=binning[1],
        roi=SimpleNamespace(x_offset=offset[0], y_offset=offset[1]),
    )


@pytest.mark.parametrize(
    ('model', 'project', 'distortion'),
    [
        ('plumb_bob', cv2.projectPoints, [-0.3, 0.1, 0.001, 0.002, 0.0]),
        ('equidistant', cv2.fisheye.projectPoints, [0.05, -0.01, 0.002, 0.0]),
    ],
)
def test_undistorted_points_are_those_of_a_pinhole_camera(model, project, distortion):
    calibration = read_camera_info(camera_info(model, distortion), rectified=False)
    arguments = (SPACE[:, None], np.zeros(3), np.zeros(3), K, np.array(distortion))
    seen = project(*arguments)[0].reshape(-1, 2)
    expected = (SPACE / SPACE[:, 2:]) @ K.T
    assert np.abs(seen - expected[:, :2]).max() > 1
    np.testing.assert_allclose(calibration.undistort(seen), expected[:, :2], atol=0.01)
    assert calibration.undistort(seen[:0]).shape == (0, 2)


def test_rectified_images_have_the_matrix_of_p_and_no_distortion():
    calibration = read_camera_info(camera_info('plumb_bob', [-0.3, 0.1, 0, 0, 0]), rectified=True)
    np.testing.assert_array_equal(calibration.matrix, K + np.diag([5, 5, 0]))
    points = np.array([[1.0, 2.0]])
    np.testing.assert_array_equal(calibration.undistort(points), points)


@pytest.mark.parametrize('rectified', [False, True])
def test_a_binned_region_of_interest_is_calibrated_in_its_own_pixels(rectified):
    info = camera_info('plumb_bob', [-0.3, 0.1, 0.001, 0.002, 0.0])
    full = read_camera_info(info, rectified)
    part = camera_info('plumb_bob', info.d, binning=(2, 4), offset=(100, 40))
    points = np.array([[101, 43], [320, 240], [500, 300.0]])
    # Pixel 0 of the part covers columns 100 and 101 and rows 40 to 43 of the sensor.
    binned = (points - (100.5, 41.5)) / (2, 4)
    expected = (full.undistort(points) - (100.5, 41.5)) / (2, 4)
    calibration = read_camera_info(part, rectified)
    np.testing.assert_allclose(calibration.undistort(binned), expected, atol=1e-4)
    rays = [np.linalg.solve(c.matrix, np.append(p, 1)) for c, p in ((full, points[0]), (calibration, binned[0]))]
    np.testing.assert_allclose(*rays)


def test_a_camera_that_is_not_calibrated_is_refused():
    with pytest.raises(ValueError, match='focal length 0: the camera is not calibrated'):
        read_camera_info(camera_info('plumb_bob', [], np.zeros((3, 3))), rectified=False)


@pytest.mark.parametrize(
    ('model', 'distortion', 'k', 'reason'),
    [
        ('plumb_bob', [0.1, 0.2, 0.3], K, "3 coefficients of 'plumb_bob', expected 4 or 5 or 8 or 12 or 14"),
        ('equidistant', [0.1] * 5, K, "5 coefficients of 'equidistant', expected 4"),
        ('plumb_bob', [np.nan] * 5, K, 'not finite'),
        ('plumb_bob', [], K * np.nan, 'not finite'),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(model, distortion, k, reason):
    with pytest.raises(ValueError, match=reason):
        read_camera_info(camera_info(model, distortion, k), rectified=False)
