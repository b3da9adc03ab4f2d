import numpy as np
import pytest

from superpoint_ros.evaluation.noise import CAMERA, EVERYTHING, photometric


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(60, 190, (48, 64), np.uint8)


def test_is_reproducible_and_does_not_change_its_input(image):
    before = image.copy()
    first, again, other = (photometric(image, np.random.default_rng(seed), EVERYTHING) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(image, before)
    assert first.dtype == np.uint8
    assert first.shape == image.shape


@pytest.mark.parametrize('change', EVERYTHING)
def test_every_change_grows_with_its_strength(image, change):
    gray = image.astype(np.float32)
    weak, strong = (np.abs(change(gray, np.random.default_rng(3), s) - gray).mean() for s in (0.2, 1.0))
    assert 0 <= weak < strong


def test_blurs_do_not_move_points():
    """The center of mass of a dot stays in place."""
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    y, x = np.mgrid[:41, :41]
    for change in EVERYTHING:
        if 'blur' in change.__name__:
            for seed in range(10):
                blurred = change(dot.astype(np.float32), np.random.default_rng(seed), 1.0)
                center = np.array([(x * blurred).sum(), (y * blurred).sum()]) / blurred.sum()
                np.testing.assert_allclose(center, [20, 20], atol=0.05)


def test_strength_zero_changes_almost_nothing(image):
    assert set(CAMERA) < set(EVERYTHING)
    for seed in range(5):
        changed = photometric(image, np.random.default_rng(seed), EVERYTHING, strength=0.0)
        assert np.abs(changed.astype(int) - image).max() <= 1
