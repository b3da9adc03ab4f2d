import math

import pytest
import torch

from superpoint_ros.training.photometric import BLUR_SIZE, PhotometricConfig, augment, blur_along, generators

NOTHING = PhotometricConfig(
    motion_blur=0, shade=0, contrast=0, brightness=0, speckle=0, noise=0, dropout=0, gamma=0, vignette=0
)


def images(count=4):
    return torch.rand(count, 1, 40, 56, generator=torch.Generator().manual_seed(0))


def seeds(*values):
    return generators(torch.tensor(values))


def test_nothing_changes_at_strength_zero():
    torch.testing.assert_close(augment(images(), NOTHING, seeds(1, 2, 3, 4)), images(), atol=1e-5, rtol=0)


def test_an_image_changes_alike_in_any_batch():
    together = augment(images(), PhotometricConfig(), seeds(1, 2, 3, 4))
    alone = augment(images()[2:3], PhotometricConfig(), seeds(3))
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=0)
    again = augment(images(), PhotometricConfig(), seeds(1, 2, 3, 4))
    assert torch.equal(together, again)
    assert not torch.equal(together, augment(images(), PhotometricConfig(), seeds(5, 6, 7, 8)))


@pytest.mark.parametrize('field', vars(PhotometricConfig()))
def test_each_change_does_something_and_stays_in_range(field):
    config = PhotometricConfig(**{**vars(NOTHING), field: getattr(PhotometricConfig(), field) * 1.5})
    changed = augment(images(), config, seeds(1, 2, 3, 4))
    assert ((changed - images()).abs().amax(dim=(1, 2, 3)) > 0.01).any()
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_noise_is_as_strong_as_it_says():
    gray = torch.full((64, 1, 40, 56), 0.5)
    config = PhotometricConfig(**{**vars(NOTHING), 'noise': 0.1})
    deviations = augment(gray, config, generators(torch.arange(64))).std(dim=(1, 2, 3))
    assert deviations.max() <= 0.1 * 1.05
    assert deviations.mean() == pytest.approx(0.05, abs=0.012)  # uniform from 0 to 0.1


@pytest.mark.parametrize('angle', [0, 0.4, math.pi / 2, 2.5])
@pytest.mark.parametrize('length', [0.0, 3.0, 8.0])
def test_motion_blur_moves_nothing_and_spreads_along_its_path(angle, length):
    spot = torch.zeros(1, 1, 41, 41)
    spot[..., 20, 20] = 1
    blurred = blur_along(spot, torch.tensor([length]), torch.tensor([float(angle)]))[0, 0]
    steps = torch.arange(41.0)
    x, y = (blurred.sum(dim=0) * steps).sum(), (blurred.sum(dim=1) * steps).sum()
    assert (x.item(), y.item(), blurred.sum().item()) == pytest.approx((20, 20, 1), abs=1e-4)
    rows, columns = torch.nonzero(blurred > 1e-6, as_tuple=True)
    along = (columns - 20) * math.cos(angle) + (rows - 20) * math.sin(angle)
    across = (rows - 20) * math.cos(angle) - (columns - 20) * math.sin(angle)
    assert across.abs().max() < 1.5
    assert along.abs().max() <= length / 2 + 1.5
    if length == 8:
        assert along.abs().max() > BLUR_SIZE // 2 - 1.5


def test_a_motion_blur_that_the_kernel_cannot_hold_is_refused():
    PhotometricConfig(motion_blur=BLUR_SIZE - 1)
    with pytest.raises(ValueError, match='motion_blur: expected 0 to 8 pixels, got 12'):
        PhotometricConfig(motion_blur=12)
