import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.geometry import transform_points
from superpoint_ros.training.homography import HomographyConfig, sample_homography
from superpoint_ros.training.losses import (
    DUSTBIN,
    IGNORED,
    DescriptorLossConfig,
    HingeConfig,
    cell_labels,
    contrastive_descriptor_loss,
    descriptor_loss,
    detector_loss,
    hinge_descriptor_loss,
    localization_loss,
    shown,
)
from superpoint_ros.training.photometric import generators

ROWS, COLUMNS, DEPTH = 4, 5, 6
SIZE = (COLUMNS * 8, ROWS * 8)


def everywhere(batch=1):
    return torch.ones(batch, 1, ROWS * 8, COLUMNS * 8, dtype=torch.bool)


BOTH = everywhere(), everywhere()


def pair(seed, batch=2):
    """Random descriptors and homographies of a batch of pairs."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    config = HomographyConfig(crop=1.0, scale=0.3, rotation=0.5)
    homographies = torch.from_numpy(np.stack([sample_homography(rng, SIZE, config) for _ in range(batch)]))
    descriptors = torch.randn(2, batch, DEPTH, ROWS, COLUMNS, generator=generator, requires_grad=True)
    return descriptors, homographies


def test_points_become_the_classes_of_their_pixels():
    points = torch.tensor([[[0.0, 0.0], [13.4, 9.6], [39.0, 31.0], [float('nan')] * 2, [-3.0, 4.0], [40.0, 5.0]]])
    labels = cell_labels(points, everywhere())[0]
    expected = torch.full((ROWS, COLUMNS), DUSTBIN)
    expected[0, 0], expected[1, 1], expected[3, 4] = 0, 8 * 2 + 5, 63
    assert torch.equal(labels, expected)


@given(st.permutations([(0.0, 0.0), (3.0, 2.0), (7.0, 7.0)]))
def test_of_several_points_in_a_cell_the_first_counts(order):
    label = cell_labels(torch.tensor([order]), everywhere())[0, 0, 0]
    assert label == 8 * order[0][1] + order[0][0]


def test_cells_with_a_pixel_that_is_not_valid_are_ignored():
    valid = everywhere()
    valid[0, 0, 10, 17] = False
    labels = cell_labels(torch.tensor([[[16.0, 8.0]]]), valid)[0]
    assert labels[1, 2] == IGNORED
    assert (labels != IGNORED).sum() == ROWS * COLUMNS - 1


def test_an_image_without_points_is_all_dustbin():
    assert (cell_labels(torch.empty(1, 0, 2), everywhere()) == DUSTBIN).all()


def test_detector_loss_is_the_mean_cross_entropy_of_the_cells_that_count():
    logits = torch.randn(2, 65, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 65, (2, ROWS, COLUMNS), generator=torch.Generator().manual_seed(1))
    labels[0, 1, 2] = labels[1, 0, 0] = IGNORED
    terms = []
    for b in range(2):
        for i in range(ROWS):
            for j in range(COLUMNS):
                if labels[b, i, j] != IGNORED:
                    exponentials = [math.exp(v) for v in logits[b, :, i, j].tolist()]
                    terms.append(-math.log(exponentials[labels[b, i, j]] / sum(exponentials)))
    assert detector_loss(logits, labels).item() == pytest.approx(np.mean(terms), rel=1e-5)


def bump(x, y):
    """Logits (1, 65, ROWS, COLUMNS) of a keypoint at a position between pixels: a Gaussian, and dustbins elsewhere."""
    columns, rows = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing='xy')
    pixels = -((columns - x) ** 2 + (rows - y) ** 2) / 2
    return torch.cat([F.pixel_unshuffle(pixels[None, None], 8), torch.full((1, 1, ROWS, COLUMNS), 6.0)], dim=1)


SHIFT = torch.tensor([[[1.0, 0, 4.4], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)


@pytest.mark.parametrize(('off', 'distance'), [(0.0, 0.0), (0.5, 0.5), (-1.0, 1.0)])
def test_localization_loss_is_the_distance_between_the_peaks(off, distance):
    points = torch.tensor([[[16.3, 15.8], [float('nan')] * 2, [1.0, 9.0], [37.0, 9.0]]])  # the last two: near an edge
    loss = localization_loss(bump(16.3, 15.8), bump(20.7 + off, 15.8), points, SHIFT, BOTH)
    assert loss.item() == pytest.approx(distance, abs=0.05)


def test_localization_loss_draws_the_peaks_together():
    points = torch.tensor([[[16.0, 15.0]]])
    logits = [bump(16, 15).requires_grad_(), bump(21.4, 14).requires_grad_()]
    before = localization_loss(*logits, points, SHIFT, BOTH)
    steps = torch.autograd.grad(before, logits)
    after = localization_loss(*(a - b for a, b in zip(logits, steps, strict=True)), points, SHIFT, BOTH)
    assert 0.5 < after < before < 1.6


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31))
def test_hinge_loss_is_the_papers_sum_over_all_pairs_of_cells(seed):
    descriptors, homographies = pair(seed)
    config = HingeConfig()
    total, count = 0.0, 0
    unit = F.normalize(descriptors.detach(), dim=2)
    for b in range(2):
        for i0, j0 in np.ndindex(ROWS, COLUMNS):
            center = transform_points(homographies[b].numpy(), np.array([8 * j0 + 3.5, 8 * i0 + 3.5]))
            for i1, j1 in np.ndindex(ROWS, COLUMNS):
                similarity = float(unit[0, b, :, i0, j0] @ unit[1, b, :, i1, j1])
                count += 1
                if np.hypot(*(center - [8 * j1 + 3.5, 8 * i1 + 3.5])) <= 8:
                    total += 250 * max(0.0, 1 - similarity)
                else:
                    total += max(0.0, similarity - 0.2)
    loss = hinge_descriptor_loss(descriptors[0], descriptors[1], homographies, (everywhere(2),) * 2, config)
    assert loss.item() == pytest.approx(total / count, rel=1e-4)


def read(descriptors, x, y):
    """A map (D, rows, columns) between its cells' centers; beyond the outermost it goes on with its edge."""
    row, column = (np.clip((v - 3.5) / 8, 0, n - 1) for v, n in ((y, ROWS), (x, COLUMNS)))
    i, j = min(int(row), ROWS - 2), min(int(column), COLUMNS - 2)
    u, v = row - i, column - j
    return (
        descriptors[:, i, j] * (1 - u) * (1 - v)
        + descriptors[:, i + 1, j] * u * (1 - v)
        + descriptors[:, i, j + 1] * (1 - u) * v
        + descriptors[:, i + 1, j + 1] * u * v
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31))
def test_contrastive_loss_is_the_cross_entropy_among_points_of_the_whole_other_view(seed):
    descriptors, homographies = pair(seed)
    shifts = torch.rand(2, 2, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    terms = []
    for b, direction in itertools.product(range(2), range(2)):
        own, other = descriptors.detach()[[direction, 1 - direction], b]
        mapping = homographies[b].numpy() if direction == 0 else np.linalg.inv(homographies[b].numpy())
        own_shift, other_shift = shifts[b, [direction, 1 - direction], 0].numpy()
        for i, j in np.ndindex(SIZE[1] // 12, SIZE[0] // 12):
            point = np.array([12 * j + 5.5, 12 * i + 5.5]) + 12 * own_shift
            x, y = transform_points(mapping, point)
            if not (-0.5 <= x <= SIZE[0] - 0.5 and -0.5 <= y <= SIZE[1] - 0.5):
                continue
            query = F.normalize(read(own, *point), dim=0)
            right = torch.exp(query @ F.normalize(read(other, x, y), dim=0) / 0.1)
            rivals = [np.array([8 * u + 3.5, 8 * v + 3.5]) + 8 * other_shift for v, u in np.ndindex(ROWS, COLUMNS)]
            wrong = [
                torch.exp(query @ F.normalize(read(other, *rival), dim=0) / 0.1)
                for rival in rivals
                if np.abs(rival - [x, y]).max() >= 6
            ]
            terms.append(-torch.log(right / (right + sum(wrong))).item())
    loss = contrastive_descriptor_loss(descriptors[0], descriptors[1], homographies, (everywhere(2),) * 2, shifts, 0.1)
    assert loss.item() == pytest.approx(np.mean(terms) if terms else 0, rel=1e-3)


def test_alternating_signs_in_neighboring_cells_do_not_lower_the_contrastive_loss():
    # They cancel where descriptors are read between cells, so they say where one was read, not what is there.
    maps = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    signs = 1.0 - 2 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2)
    shift = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    shift[:, :2, 2] = 4
    config, whole = DescriptorLossConfig(temperature=0.1), (torch.ones(4, 1, 128, 128, dtype=torch.bool),) * 2
    plain, marked = (
        np.mean([descriptor_loss(m, m, shift, whole, config, generators(torch.arange(4) + 4 * i)) for i in range(10)])
        for m in (maps, torch.cat([maps, signs.expand(4, 1, -1, -1)], dim=1))
    )
    assert marked > plain


def test_points_that_only_one_view_shows_teach_nothing():
    descriptors, _ = pair(0, batch=1)
    away = torch.tensor([[[1.0, 0, 80], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    loss = contrastive_descriptor_loss(*descriptors, away, BOTH, torch.zeros(1, 2, 1, 2), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert not descriptors.grad.any()


def test_points_are_shown_at_visible_pixels_inside_of_the_image():
    visible = everywhere(2)
    visible[1, 0, :, :10] = False
    points = torch.tensor([[9.4, 3.0], [9.6, 3.0], [-0.4, 0], [-0.6, 0], [39.4, 31.4], [39.6, 31], [torch.inf, 0]])
    expected = [[True, True, True, False, True, False, False], [False, True, False, False, True, False, False]]
    assert shown(points.expand(2, -1, -1), visible).tolist() == expected


@pytest.mark.parametrize('kind', ['hinge', 'contrastive'])
@pytest.mark.parametrize('covered', [0, 1])
def test_descriptors_in_black_borders_teach_nothing(kind, covered):
    descriptors, _ = pair(0, batch=1)
    eye = torch.eye(3, dtype=torch.float64)[None]
    config = DescriptorLossConfig(kind)

    def loss(*visible):
        return descriptor_loss(*descriptors, eye, visible, config, generators(torch.tensor([0])))

    half, nothing = everywhere(), ~everywhere()
    half[..., : SIZE[0] // 2] = False
    views = [everywhere(), everywhere()]
    whole = loss(*views)
    views[covered] = half
    assert loss(*views).item() != pytest.approx(whole.item())
    views[covered] = nothing
    assert loss(*views).item() == 0


def test_localization_ignores_points_in_black_borders():
    points = torch.tensor([[[16.3, 15.8]]])
    for covered in (0, 1):
        views = [everywhere(), everywhere()]
        views[covered] = ~everywhere()
        assert localization_loss(bump(16.3, 15.8), bump(22.0, 15.8), points, SHIFT, tuple(views)).item() == 0


def test_losses_and_gradients_are_finite_where_there_is_nothing_to_learn():
    descriptors = torch.zeros(2, 1, DEPTH, ROWS, COLUMNS, requires_grad=True)
    logits = torch.zeros(1, 65, ROWS, COLUMNS, requires_grad=True)
    eye = torch.eye(3, dtype=torch.float64)[None]
    losses = [
        detector_loss(logits, cell_labels(torch.empty(1, 0, 2), ~everywhere())),
        localization_loss(logits, logits, torch.full((1, 3, 2), torch.nan), eye, BOTH),
        hinge_descriptor_loss(*descriptors, eye, BOTH, HingeConfig()),
        contrastive_descriptor_loss(*descriptors, eye, BOTH, torch.zeros(1, 2, 1, 2), 0.07),
    ]
    sum(losses).backward()
    assert [loss.item() for loss in losses[:2]] == [0, 0]
    assert all(torch.isfinite(loss) for loss in losses)
    assert torch.isfinite(descriptors.grad).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('kind', ['hinge', 'contrastive'])
def test_descriptor_losses_keep_nothing_larger_than_cells_times_cells(kind):
    batch, depth, side = 2, 256, 12
    descriptors = torch.randn(2, batch, depth, side, side, requires_grad=True)
    eye = torch.eye(3, dtype=torch.float64).repeat(batch, 1, 1)
    whole = (torch.ones(batch, 1, 8 * side, 8 * side, dtype=torch.bool),) * 2
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        descriptor_loss(*descriptors, eye, whole, DescriptorLossConfig(kind), generators(torch.arange(batch)))
    assert max(sizes) <= batch * side**2 * max(side**2, depth)


@pytest.mark.parametrize('kind', ['hinge', 'contrastive'])
def test_descriptors_that_agree_cost_less_than_descriptors_that_do_not(kind):
    alike = torch.randn(1, 32, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    other = torch.randn(1, 32, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    eye = torch.eye(3, dtype=torch.float64)[None]
    config = DescriptorLossConfig(kind, hinge=HingeConfig(reach=4))

    def cost(second):
        return descriptor_loss(alike, second, eye, BOTH, config, generators(torch.tensor([0]))).item()

    assert cost(alike) < 0.05
    assert cost(other) > 1
