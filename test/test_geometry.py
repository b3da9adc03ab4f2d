"""Transforms of points: known answers, and agreement with OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.geometry import adapt_homography, crop_transform, resize_transform, transform_points

sizes = st.integers(8, 200)


def test_a_resize_keeps_the_outline():
    """The picture reaches from −0.5 to width − 0.5."""
    corners = np.array([[-0.5, -0.5], [39.5, 19.5]])
    halved = transform_points(resize_transform(0.5, 0.25), corners)
    np.testing.assert_allclose(halved, [[-0.5, -0.5], [19.5, 4.5]])


@given(sizes, sizes, sizes, sizes)
def test_a_resize_agrees_with_opencv(width, height, new_width, new_height):
    """The values of a ramp show where its pixels came from."""
    ramp = np.repeat(np.arange(width, dtype=np.float32)[None], height, axis=0)
    resized = cv2.resize(ramp, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    back = np.linalg.inv(resize_transform(new_width / width, new_height / height))
    x = np.arange(new_width, dtype=np.float64)
    origin = transform_points(back, np.stack([x, np.zeros_like(x)], axis=1))[:, 0]
    np.testing.assert_allclose(resized[0], origin.clip(0, width - 1), atol=0.01)


def test_a_crop_moves_the_origin():
    np.testing.assert_allclose(transform_points(crop_transform(10, -3), np.array([[12.0, 5.0]])), [[2, 8]])


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-50, 50), st.floats(-50, 50))
def test_an_adapted_homography_maps_between_the_transformed_images(scale_x, scale_y, left, top):
    homography = np.array([[1.1, 0.1, 5], [-0.05, 0.9, -3], [1e-4, -2e-4, 1]])
    first, second = resize_transform(scale_x, scale_y), crop_transform(left, top)
    points = np.array([[0.0, 0.0], [100, 20], [30, 200]])
    expected = transform_points(second, transform_points(homography, points))
    adapted = adapt_homography(homography, first, second)
    np.testing.assert_allclose(transform_points(adapted, transform_points(first, points)), expected, atol=1e-6)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_points_keep_their_type_and_shape(dtype):
    points = np.zeros((2, 5, 2), dtype)
    mapped = transform_points(np.eye(3), points)
    assert mapped.dtype == dtype
    assert mapped.shape == points.shape
    assert transform_points(np.eye(3), np.empty((0, 2), dtype)).shape == (0, 2)


def test_points_on_the_horizon_are_not_finite():
    horizon = np.array([[1, 0, 0], [0, 1, 0], [1, 0, -5]], float)
    assert not np.isfinite(transform_points(horizon, np.array([[5.0, 1.0]]))).any()
