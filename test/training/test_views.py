"""Pairs of views show the same scene where their homography says, and differ as much as the configuration says."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.geometry import transform_points
from superpoint_ros.training.views import ViewConfig, cut, sample_frame, sample_views

PHOTOGRAPH, SIZE = (640, 480), (160, 120)
SEEDS = st.integers(0, 2**32 - 1)
RIGID = {'perspective': 0.0, 'stretch': 0.0, 'translation': 0.0}


def views_of(seed, photograph=PHOTOGRAPH, size=SIZE, **options):
    return sample_views(np.random.default_rng(seed), photograph, size, ViewConfig(**options))


def corners_of(view, size=SIZE):
    """The corners (4, 2) of a view in pixels of the photograph, from edge to edge."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size - 0.5
    return transform_points(np.linalg.inv(view), corners)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_both_views_show_the_same_gray_at_corresponding_pixels(seed):
    y, x = np.mgrid[:480, :640]
    photograph = (128 + 60 * np.sin(x / 17) + 60 * np.cos(y / 13)).astype(np.uint8)
    views = views_of(seed, zoom=(0.5, 1.0))
    images = [cut(photograph, view, SIZE).astype(np.float32) for view in views]
    points = np.random.default_rng(seed).uniform(0, np.array(SIZE) - 1, (300, 2)).astype(np.float32)
    there = transform_points(views[1] @ np.linalg.inv(views[0]), points)
    there = there[seen := ((there >= 0) & (there <= np.array(SIZE) - 1)).all(axis=1)]
    gray0, gray1 = (
        cv2.remap(image, *where.T[:, :, None], cv2.INTER_LINEAR)[:, 0]
        for image, where in zip(images, (points[seen], there), strict=True)
    )
    assert seen.sum() > 10
    # The half-pixel error would be 2 to 3 gray values in the median, times the zoom.
    assert np.median(np.abs(gray0 - gray1)) < 1.5
    assert abs(np.mean(gray0 - gray1)) < 1


@given(SEEDS)
def test_an_impulse_is_cut_where_its_point_goes(seed):
    view, _ = views_of(seed, zoom=(1.0, 1.5))
    target = np.random.default_rng(seed).uniform(10, np.array(SIZE) - 11)
    source = transform_points(np.linalg.inv(view), target)
    y, x = np.mgrid[:480, :640]
    spot = (250 * np.exp(-((x - source[0]) ** 2 + (y - source[1]) ** 2) / 2)).astype(np.uint8)
    image = cut(spot, view, SIZE).astype(float)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    image[np.hypot(x - target[0], y - target[1]) > 9] = 0  # the mirrored photograph has the spot, too
    if ((source > 10) & (source < np.array(PHOTOGRAPH) - 11)).all():
        center = np.array([(image * x).sum(), (image * y).sum()]) / image.sum()
        np.testing.assert_allclose(center, target, atol=0.3)


@given(SEEDS, st.floats(0.25, 1.0), st.floats(1.0, 2.0))
def test_zoom_and_turn_stay_in_their_ranges(seed, least, most):
    views = views_of(seed, zoom=(least, most), rotation=0.8, **RIGID)
    sides = [np.diff(corners_of(view)[:2], axis=0)[0] for view in views]
    for side in sides:
        assert least - 1e-6 <= SIZE[0] / np.linalg.norm(side) <= most + 1e-6
    (x0, y0), (x1, y1) = sides
    assert abs(np.arctan2(x0 * y1 - y0 * x1, x0 * x1 + y0 * y1)) <= 0.8 + 1e-6


@given(SEEDS)
def test_without_translation_the_coarser_view_shows_all_of_the_finer_one(seed):
    fine, coarse = sorted((corners_of(view) for view in views_of(seed, rotation=0, **RIGID)), key=np.ptp)
    assert (fine.min(axis=0) >= coarse.min(axis=0) - 1e-3).all()
    assert (fine.max(axis=0) <= coarse.max(axis=0) + 1e-3).all()


@given(SEEDS)
def test_views_of_a_small_photograph_show_little_beyond_it(seed):
    for view in views_of(seed, photograph=(160, 120), rotation=0, **RIGID):
        assert (np.ptp(corners_of(view), axis=0) <= np.array([160, 120]) / 0.75 + 1e-3).all()


def test_half_of_the_pairs_are_mirrored_and_both_views_are_alike():
    signs = [[np.sign(np.linalg.det(view)) for view in views_of(seed, **RIGID)] for seed in range(60)]
    assert all(one == other for one, other in signs)
    assert 15 < sum(one > 0 for one, _ in signs) < 45


def test_a_view_that_shrinks_the_photograph_has_no_aliasing():
    stripes = np.zeros((480, 640), np.uint8)
    stripes[:, ::2] = 255  # gray from afar
    for zoom in (0.26, 0.34):  # every fourth or third pixel
        view, _ = views_of(0, zoom=(zoom, zoom), rotation=0, **RIGID)
        assert cut(stripes, view, SIZE).std() < 8


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'zoom': (1.2, 0.5)}, r'zoom: expected two positive numbers, the smaller one first, got \(1\.2, 0\.5\)'),
        ({'zoom': (0.0, 0.5)}, 'zoom: expected two positive numbers'),
        ({'perspective': 0.2}, r'perspective: 0\.2 is out of range, expected 0 to 0\.1; a view could fold over'),
    ],
)
def test_impossible_views_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ViewConfig(**options)


@given(SEEDS)
def test_the_strongest_perspective_keeps_the_horizon_out_of_the_view(seed):
    for view in views_of(seed, perspective=0.1):
        back = np.linalg.inv(view)
        depths = [(back @ [x, y, 1])[2] for x in (-0.5, SIZE[0] - 0.5) for y in (-0.5, SIZE[1] - 0.5)]
        assert (np.sign(depths) == np.sign(depths[0])).all()


def test_frames_leave_borders_in_as_many_views_as_configured():
    rng = np.random.default_rng(0)
    assert all(sample_frame(rng, SIZE, 0.0).all() for _ in range(20))
    frames = [sample_frame(rng, SIZE, 0.5) for _ in range(200)]
    assert frames[0].shape == SIZE[::-1]
    assert 0.3 < np.mean([not frame.all() for frame in frames]) < 0.6
    assert min(frame.mean() for frame in frames) > 0.4
