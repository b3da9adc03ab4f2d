"""UnSuperPoint's losses against answers worked out by hand, and a short training that must not collapse."""

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.training import train
from superpoint_ros.training.unsuperpoint import (
    Correspondences,
    correspondences,
    decorrelation_loss,
    matching_loss,
    points_of,
    uniformity_loss,
    usp_loss,
)

from .runs import arguments, losses

FIGURES = ('loss', 'loss/position', 'spread/scores', 'spread/positions', 'repeats/high', 'repeats/low')
EYE = torch.eye(3, dtype=torch.float64)[None]
SIZE = (24, 16)


def everywhere(size=SIZE):
    """The visible pixels of two views of this (width, height) without borders."""
    return (torch.ones(1, 1, *size[::-1], dtype=torch.bool),) * 2


def test_points_lie_in_their_cells():
    positions = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    points = points_of(positions)[0]
    # Half a cell from its left edge, which is half a pixel left of its first pixel's center: the cell's center.
    assert points.tolist() == [[3.5, 1.5], [11.5, 1.5], [19.5, 1.5], [3.5, 9.5], [11.5, 9.5], [19.5, 9.5]]


def test_correspondences_are_mutual_nearest_neighbors_within_reach_that_both_views_show():
    points0 = torch.tensor([[[2.0, 2.0], [10.0, 2.0], [22.0, 2.0], [11.0, 8.5]]])
    points1 = torch.tensor([[[5.0, 2.0], [13.0, 6.0], [13.0, 20.0], [40.0, 2.0]]])
    shift = EYE.clone()
    shift[0, 0, 2] = 3
    found = correspondences(points0, points1, shift, everywhere(), reach=4)
    assert found.partners.tolist() == [[0, 1, 1, 1]]
    np.testing.assert_allclose(found.distances, [[0, 4, np.hypot(12, 4), np.hypot(1, 2.5)]], rtol=1e-6)
    assert found.close.tolist() == [[True, False, False, True]], 'the second has a rival, the third leaves the view'


def test_matching_loss_by_hand():
    # Three cells side by side; the points are their centers. The second view is the first, moved by a cell.
    points = torch.tensor([[[3.5, 3.5], [11.5, 3.5], [19.5, 3.5]]])
    shift = EYE.clone()
    shift[0, 0, 2] = 8
    first = torch.eye(4)[:3].T.reshape(1, 4, 1, 3)
    second = torch.eye(4)[[3, 0, 2]].T.reshape(1, 4, 1, 3)  # the first cell is found again, the third one where it was
    scores = torch.tensor([[0.9, 0.6, 0.2]]), torch.tensor([[0.3, 0.8, 0.5]])
    loss = matching_loss(scores, (points, points), (first, second), shift, everywhere((24, 8)))
    # Both views show the first two cells of the first, and the last two of the second.
    expected = -np.log([0.9, 1 - 0.6, 0.8, 1 - 0.5]).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_points_in_black_borders_have_no_correspondences_and_low_scores():
    points = torch.tensor([[[3.5, 3.5], [11.5, 3.5], [19.5, 3.5]]])
    border = torch.ones(1, 1, 8, 24, dtype=torch.bool)
    border[..., :8] = False
    whole, _ = everywhere((24, 8))
    for visible in ((border, whole), (whole, border)):
        assert correspondences(points, points, EYE, visible, reach=4).close.tolist() == [[False, True, True]]
    descriptors = torch.eye(4)[:3].T.reshape(1, 4, 1, 3)
    garbage = torch.eye(4)[[3, 1, 2]].T.reshape(1, 4, 1, 3)  # what the border shows at the first point
    scores = torch.tensor([[0.9, 0.6, 0.2]])
    loss = matching_loss((scores, scores), (points, points), (garbage, descriptors), EYE, (border, whole))
    # The point in the border finds no partner; whether the other view's first point would is unknown.
    assert loss.item() == pytest.approx(-np.log([1 - 0.9, 0.6, 0.2, 0.6, 0.2]).mean(), rel=1e-5)


def test_a_point_behind_the_horizon_corresponds_to_none():
    behind = torch.tensor([[[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]], dtype=torch.float64)
    points = torch.tensor([[[20.0, 5.0], [1.0, 1.0]]], requires_grad=True)
    found = correspondences(points, points.detach(), behind, everywhere(), reach=4)
    assert found.close.tolist() == [[False, True]]
    torch.where(found.close, found.distances, 0).sum().backward()
    assert points.grad.isfinite().all()


def test_usp_rewards_scores_of_points_that_repeat_well():
    found = Correspondences(
        torch.zeros(1, 3, dtype=torch.int64),
        torch.tensor([[1.0, 3.0, 100.0]], requires_grad=True),
        torch.tensor([[True, True, False]]),
    )
    scores = torch.full((1, 3), 0.5, requires_grad=True)
    loss = usp_loss(scores, torch.tensor([[0.5, 0.1, 1.0]]), found)
    # The mean distance is 2: ½(0.5 + 0.5)·(1 − 2) + ½(0.5 + 0.1)·(3 − 2), over two pairs.
    assert loss.item() == pytest.approx((-0.5 + 0.3) / 2)
    loss.backward()
    assert scores.grad.tolist() == [[-0.25, 0.25, 0]]
    # Points that score above the mean are drawn together more strongly than the others.
    np.testing.assert_allclose(found.distances.grad, [[(0.5 - 0.4) / 2, (0.3 - 0.4) / 2, 0]], rtol=1e-6)


def test_uniform_positions_cost_nothing_and_equal_ones_most():
    rng = np.random.default_rng(0)
    uniform = np.stack([rng.permutation(np.linspace(0, 1, 12)) for _ in range(4)]).reshape(2, 2, 3, 4)
    assert uniformity_loss(torch.from_numpy(uniform).float()).item() == pytest.approx(0, abs=1e-6)
    # Σ (½ − t)² over uniform t is that of variance: (M + 1) / (12·(M − 1)).
    assert uniformity_loss(torch.full((2, 2, 3, 4), 0.5)).item() == pytest.approx(13 / 12 / 11, rel=1e-5)


def test_decorrelation_is_the_mean_squared_correlation():
    rng = np.random.default_rng(1)
    descriptors = rng.standard_normal((2, 3, 4, 5))
    expected = [np.corrcoef(one.reshape(3, 20))[i, j] ** 2 for one in descriptors for i in range(3) for j in range(i)]
    assert decorrelation_loss(torch.from_numpy(descriptors)).item() == pytest.approx(np.mean(expected))
    assert torch.isfinite(decorrelation_loss(torch.ones(1, 3, 4, 5)))


def test_folded_and_saved_networks_compute_the_same(tmp_path):
    torch.manual_seed(0)
    network = UnSuperPoint(UnSuperPointConfig((4, 8, 8, 12), head_channels=8, descriptor_size=16)).train()
    for _ in range(5):
        network(torch.rand(2, 1, 32, 32))
    network.eval()
    checkpoint.save(tmp_path / 'un.safetensors', network)
    image = torch.rand(2, 1, 40, 24)
    with torch.no_grad():
        expected = network(image)
        assert {name: tuple(output.shape) for name, output in expected.items()} == {
            'scores': (2, 1, 5, 3),
            'positions': (2, 2, 5, 3),
            'descriptors': (2, 16, 5, 3),
        }
        for again in (checkpoint.load(tmp_path / 'un.safetensors'), checkpoint.fold(network)):
            for name, output in again(image).items():
                torch.testing.assert_close(output, expected[name], rtol=1e-4, atol=1e-5)


def corners(rng, size):
    """A picture with sharp corners here and there on an even ground."""
    picture = np.full((size, size), 110, np.uint8)
    for _ in range(12):
        x, y, w, h = rng.integers([0, 0, 12, 12], [size, size, 50, 50])
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(256)), -1)
    return picture


def test_training_does_not_collapse(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for i in range(6):
        cv2.imwrite(str(images / f'{i}.png'), corners(np.random.default_rng(i), 160))
    train.main(
        arguments(
            'unsuperpoint',
            tmp_path / 'run',
            200,
            '--model.network.channels=[8,16,24,32]',
            '--model.network.descriptor_size=16',
            '--model.lr=0.005',
            '--model.photometric.motion_blur=0',
            f'--data.images={images}',
            '--data.width=64',
            '--data.height=64',
            '--trainer.val_check_interval=200',
        )
    )
    curves = {name: np.array(losses(tmp_path / 'run', name)) for name in FIGURES}
    first, last = (
        {name: curve[part].mean() for name, curve in curves.items()} for part in (slice(20), slice(-20, None))
    )
    assert last['loss'] < 0.8 * first['loss']
    assert last['loss/position'] < first['loss/position']
    assert last['spread/scores'] > 0.05, 'scores are not all the same'
    assert 0.2 < last['spread/positions'] < 0.35, 'points leave the centers, and not all to the edges'
    assert last['repeats/high'] > last['repeats/low'] + 0.05
