import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.geometry import transform_points
from superpoint_ros.training.datasets import TRAINING, ShapesDataset
from superpoint_ros.training.homography import (
    HomographyConfig,
    sample_homography,
    valid_mask,
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


def test_valid_pixels_are_those_that_show_the_source():
    homographies = samples(8)
    valid = valid_mask(torch.from_numpy(homographies), SIZE)[:, 0].numpy()
    full = np.ones((48, 64), np.float32)
    for mask, homography in zip(valid, homographies, strict=True):
        seen = cv2.warpPerspective(full, homography, SIZE)
        assert not mask[seen < 0.9].any()
        assert mask[seen > 0.999].mean() > 0.98
    assert 0.2 < valid.mean() < 1


def test_erosion_takes_off_so_many_pixels_of_the_edge():
    shift = torch.tensor([[[1.0, 0, 10], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    valid = valid_mask(shift, SIZE, erosion=3)[0, 0]
    assert not valid[:, :13].any()
    assert valid[:, 13:].all()


@given(SEEDS)
def test_a_view_that_may_not_reach_beyond_the_source_sees_nothing_else(seed):
    config = HomographyConfig(beyond=False, perspective=0.08, scale=0.5, translation=0.5)
    homography = sample_homography(np.random.default_rng(seed), SIZE, config)
    corners = np.array([[-0.5, -0.5], [63.5, -0.5], [63.5, 47.5], [-0.5, 47.5]])
    seen = transform_points(np.linalg.inv(homography), corners)
    assert (seen > -0.51).all()
    assert (seen < np.array(SIZE) - 0.49).all()


@given(SEEDS)
def test_what_a_view_shows_lies_before_its_horizon(seed):
    homography = sample_homography(
        np.random.default_rng(seed), SIZE, HomographyConfig(crop=1, perspective=0.1, scale=0.4)
    )
    middle = transform_points(np.linalg.inv(homography), np.array([31.5, 23.5]))
    forth = warp_points(torch.from_numpy(middle)[None], torch.from_numpy(homography)[None])
    np.testing.assert_allclose(forth[0, 0], [31.5, 23.5], atol=1e-6)


def test_a_perspective_that_folds_the_view_over_is_refused():
    with pytest.raises(ValueError, match=r'perspective: 0\.2 is out of range, expected 0 to 0\.085'):
        HomographyConfig(perspective=0.2)


def test_sampling_is_reproducible():
    np.testing.assert_array_equal(samples(5), samples(5))


def test_pixels_beyond_the_horizon_are_black_and_not_nan():
    sample = ShapesDataset((160, 120), 0, TRAINING, HomographyConfig(), 0.7)[2659]
    image = torch.from_numpy(sample['image'])[None, None].float()
    assert torch.isfinite(warp_images(image, torch.from_numpy(sample['homography'])[None])).all()


def test_a_horizon_across_the_picture_leaves_numbers_and_gradients():
    homography = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0.03, 0, -1]]], dtype=torch.float64)
    image = torch.rand(1, 1, 48, 64, requires_grad=True)
    warped = warp_images(image, homography)
    warped.sum().backward()
    assert torch.isfinite(warped).all()
    assert torch.isfinite(image.grad).all()
    points = warp_points(torch.tensor([[10.0, 10.0]]), homography)
    assert torch.isinf(points).all()


def test_points_that_are_not_there_stay_so():
    points = warp_points(torch.tensor([[[float('nan'), float('nan')], [3.0, 4.0]]]), torch.eye(3).double()[None])
    assert not torch.isfinite(points[0, 0]).any()
    assert points[0, 1].tolist() == pytest.approx([3, 4])
