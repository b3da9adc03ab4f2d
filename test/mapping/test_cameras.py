"""A CameraInfo and COLMAP's camera for it see a point at the same place."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from superpoint_ros.mapping.cameras import from_camera_info

MATRIX = np.array([[310.0, 0, 161.5], [0, 305, 118.25], [0, 0, 1]])
PROJECTION = np.array([[290.0, 0, 160, -30], [0, 291, 119, 0], [0, 0, 1, 0]])
POINTS = np.random.default_rng(0).uniform((-0.4, -0.3, 1), (0.4, 0.3, 1), (50, 3))


def info(model, distortion, upper=False, binning=0, offset=0):
    names = ('K', 'D', 'P') if upper else ('k', 'd', 'p')
    values = dict(zip(names, (MATRIX.ravel(), np.array(distortion), PROJECTION.ravel()), strict=True))
    roi = SimpleNamespace(x_offset=offset, y_offset=offset)
    return SimpleNamespace(distortion_model=model, binning_x=binning, binning_y=binning, roi=roi, **values)


@pytest.mark.parametrize('upper', [False, True], ids=['ROS 2', 'ROS 1'])
@pytest.mark.parametrize(
    ('model', 'distortion', 'colmap'),
    [
        ('plumb_bob', [0.0] * 5, 'PINHOLE'),
        ('', [], 'PINHOLE'),
        ('plumb_bob', [-0.2, 0.05, 1e-3, -2e-3, 0], 'OPENCV'),
        ('plumb_bob', [-0.2, 0.05, 1e-3, -2e-3, 0.01], 'FULL_OPENCV'),
        ('rational_polynomial', [0.3, -0.1, 1e-3, -2e-3, 0.02, 0.5, -0.05, 0.01], 'FULL_OPENCV'),
        ('equidistant', [0.02, -0.01, 0.003, -0.001], 'OPENCV_FISHEYE'),
    ],
)
def test_projections_agree(model, distortion, colmap, upper):
    pycolmap = pytest.importorskip('pycolmap', reason='needs pycolmap (the extra map)')
    config = from_camera_info(info(model, distortion, upper))
    assert config.camera_model == colmap
    params = [float(number) for number in config.camera_params.split(',')]
    camera = pycolmap.Camera(model=colmap, width=320, height=240, params=params)
    zero, d = np.zeros(3), np.array(distortion)
    if model == 'equidistant':
        pixels, _ = cv2.fisheye.projectPoints(POINTS[:, None], zero, zero, MATRIX, d)
    else:
        pixels, _ = cv2.projectPoints(POINTS, zero, zero, MATRIX, d if len(d) else None)
    np.testing.assert_allclose(camera.img_from_cam(POINTS), pixels.reshape(-1, 2) + 0.5, atol=1e-6)


def test_an_uncalibrated_camera_or_an_unknown_model_is_left_to_colmap():
    uncalibrated = SimpleNamespace(k=np.zeros(9), d=[], p=np.zeros(12), distortion_model='plumb_bob')
    assert from_camera_info(uncalibrated) is None
    assert from_camera_info(info('double_sphere', [0.1, 0.2])) is None


@pytest.mark.parametrize('upper', [False, True], ids=['ROS 2', 'ROS 1'])
def test_the_camera_of_rectified_images_is_their_projection_matrix(upper):
    config = from_camera_info(info('plumb_bob', [-0.2, 0.05, 1e-3, -2e-3, 0], upper), rectified=True)
    assert (config.camera_model, config.camera_params) == ('PINHOLE', '290.0,291.0,160.5,119.5')


def test_the_camera_of_cropped_and_binned_images_is_in_their_pixels():
    # The image starts at pixel (20, 20) of the sensor, and each of its pixels covers 2x2 of the sensor's.
    config = from_camera_info(info('plumb_bob', [0.0] * 5, binning=2, offset=20))
    params = [float(number) for number in config.camera_params.split(',')]
    assert params == pytest.approx([155, 152.5, (161.5 + 0.5 - 20) / 2, (118.25 + 0.5 - 20) / 2])
