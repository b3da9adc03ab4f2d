import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.geometry import transform_points
from superpoint_ros.training.homography import (
    HomographyConfig,
    sample_homography,
    warp_images,
    warp_points,
)

SIZE = (64, 48)
SEEDS = st.integers(0, 2**32 - 1)


def samples(count, size=SIZE):
    rng = np.random.default_rng(0)
    return np.stack([sample_homography(rng, size, HomographyConfig()) for _ in range(count)])


def test_images_are_warped_as_opencv_warps_them():
    homographies = samples(8)
    images = np.random.default_rng(1).random((8, 48, 64), np.float32)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in images])
    warped = warp_images(torch.from_numpy(images)[:, None], torch.from_numpy(homographies))[:, 0].numpy()
    expected = np.stack([cv2.warpPerspective(i, h, SIZE) for i, h in zip(images, homographies, strict=True)])
    np.testing.assert_allclose(warped, expected, atol=0.02)  # OpenCV reads at 1/32 pixel


def test_an_impulse_lands_where_its_point_lands():
    points = np.array([[20.0, 15.0], [40.0, 30.0], [31.0, 22.0]])
    y, x = np.mgrid[:48, :64]
    checked = 0
    for homography in samples(20):
        for point in points:
            target = transform_points(homography, point)
            if not ((target > 6) & (target < np.array(SIZE) - 7)).all():
                continue
            spot = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 2).astype(np.float32)
            warped = warp_images(torch.from_numpy(spot)[None, None], torch.from_numpy(homography)[None])[0, 0].numpy()
            center = (x * warped).sum() / warped.sum(), (y * warped).sum() / warped.sum()
            np.testing.assert_allclose(center, target, atol=0.15)
            np.testing.assert_allclose(
                warp_points(torch.from_numpy(point)[None], torch.from_numpy(homography)[None])[0, 0], target
            )
            checked += 1
    assert checked > 20


@given(SEEDS)
def test_the_horizon_is_outside_of_the_view(seed):
    homography = sample_homography(
        np.random.default_rng(seed), SIZE, HomographyConfig(crop=1, perspective=0.1, scale=0.4)
    )
    middle = transform_points(np.linalg.inv(homography), np.array([31.5, 23.5]))
    forth = warp_points(torch.from_numpy(middle)[None], torch.from_numpy(homography)[None])
    np.testing.assert_allclose(forth[0, 0], [31.5, 23.5], atol=1e-6)


def test_a_perspective_that_folds_the_view_over_is_refused():
    with pytest.raises(
        ValueError, match=r'perspective: 0\.2 is out of range, expected 0 to 0\.085; a view could fold over'
    ):
        HomographyConfig(perspective=0.2)


def test_sampling_is_reproducible():
    np.testing.assert_array_equal(samples(5), samples(5))


def test_a_horizon_across_the_picture_leaves_numbers_and_gradients():
    homography = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0.03, 0, -1]]], dtype=torch.float64)
    image = torch.rand(1, 1, 48, 64, requires_grad=True)
    warped = warp_images(image, homography)
    warped.sum().backward()
    assert torch.isfinite(warped).all()
    assert torch.isfinite(image.grad).all()
    points = warp_points(torch.tensor([[10.0, 10.0]]), homography)
    assert torch.isinf(points).all()


def test_missing_points_stay_missing():
    points = warp_points(torch.tensor([[[float('nan'), float('nan')], [3.0, 4.0]]]), torch.eye(3).double()[None])
    assert not torch.isfinite(points[0, 0]).any()
    assert points[0, 1].tolist() == pytest.approx([3, 4])
