"""Decoding, compared with a plain greedy reference, known answers and OpenCV."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.decode import (
    DecodeConfig,
    best_of_cells,
    decode,
    decode_superpoint,
    decode_unsuperpoint,
    find_peaks,
    refinement,
    sample_descriptors,
    score_map,
)


def greedy(scores, size, config, mask=None):
    """Non-maximum suppression as DecodeConfig documents it, one pixel at a time."""
    width, height = size
    left = {
        (y, x): scores[y, x] for y in range(height) for x in range(width) if scores[y, x] > np.float32(config.threshold)
    }
    found = []
    for y, x in sorted(left, key=lambda pixel: (-left[pixel], pixel)):
        if (y, x) not in left:
            continue
        r, b = config.nms_radius, config.border
        for v in range(y - r, y + r + 1):
            for u in range(x - r, x + r + 1):
                left.pop((v, u), None)
        if b <= x < width - b and b <= y < height - b and (mask is None or mask[y, x]):
            found.append((y, x))
    return found[: config.max_keypoints]


@st.composite
def score_maps(draw):
    """Maps with many ties and plateaus, or with none, or with long slopes; with their picture's size, and a mask."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 5)) * 8, draw(st.integers(1, 5)) * 8
    kind = draw(st.sampled_from(['levels', 'distinct', 'slope', 'sparse', 'constant']))
    if kind == 'levels':
        scores = rng.integers(0, draw(st.integers(2, 6)), (height, width)) / 8
    elif kind == 'distinct':
        scores = rng.random((height, width))
    elif kind == 'slope':
        scores = np.add.outer(np.arange(height), np.arange(width)) / 100
    elif kind == 'sparse':
        scores = rng.random((height, width)) * (rng.random((height, width)) < 0.05)
    else:
        scores = np.full((height, width), 0.5)
    size = (width - draw(st.integers(0, 7)), height - draw(st.integers(0, 7)))
    mask = rng.random((height, width)) < 0.7 if draw(st.booleans()) else None
    config = DecodeConfig(
        threshold=draw(st.sampled_from([0.0, 0.005, 0.25])),
        max_keypoints=draw(st.sampled_from([1, 5, 1000])),
        nms_radius=draw(st.integers(0, 6)),
        border=draw(st.integers(0, 6)),
    )
    return scores.astype(np.float32), size, config, mask


@given(score_maps())
@settings(max_examples=300)
def test_find_peaks_is_greedy_suppression(case):
    y, x = find_peaks(*case)
    assert list(zip(y.tolist(), x.tolist(), strict=True)) == greedy(*case)


@st.composite
def cells(draw):
    """Points of cells as best_of_cells takes them: anywhere, on a coarse grid with many ties, or on the edges."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = shape = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from(['anywhere', 'coarse', 'edges']))
    position = {
        'anywhere': lambda: rng.random((2, *shape)),
        'coarse': lambda: rng.integers(0, 5, (2, *shape)) / 4,
        'edges': lambda: rng.integers(0, 2, (2, *shape)),
    }[kind]()
    x = ((np.arange(columns) + position[0]) * 8 - 0.5).astype(np.float32).ravel()
    y = ((np.arange(rows)[:, None] + position[1]) * 8 - 0.5).astype(np.float32).ravel()
    scores = rng.random(x.size) if draw(st.booleans()) else rng.integers(0, 4, x.size) / 4
    scores[rng.random(x.size) < 0.1] = np.nan
    size = (columns * 8 - draw(st.integers(0, 7)), rows * 8 - draw(st.integers(0, 7)))
    mask = rng.random((rows * 8, columns * 8)) < 0.7 if draw(st.booleans()) else None
    config = DecodeConfig(
        threshold=draw(st.sampled_from([0.0, 0.3])),
        max_keypoints=draw(st.sampled_from([1, 5, 1000])),
        nms_radius=draw(st.integers(0, 20)),
        border=draw(st.integers(0, 6)),
    )
    return scores.astype(np.float32), x, y, shape, size, config, mask


@given(cells())
@settings(max_examples=300)
def test_best_of_cells_is_greedy_suppression(case):
    scores, x, y, (rows, columns), size, config, mask = case
    dense, owner = np.zeros((rows * 8, columns * 8), np.float32), {}
    for point, score in enumerate(scores):
        pixel = tuple(
            int(np.clip(np.rint(v), 0, end - 1)) for v, end in zip((y[point], x[point]), dense.shape, strict=True)
        )
        if score > dense[pixel]:
            dense[pixel], owner[pixel] = score, point
    assert best_of_cells(*case).tolist() == [owner[pixel] for pixel in greedy(dense, size, config, mask)]


def test_find_peaks_leaves_its_input_alone():
    scores = np.random.default_rng(0).random((32, 32), np.float32)
    before = scores.copy()
    find_peaks(scores, (32, 32), DecodeConfig(nms_radius=0, border=0))
    np.testing.assert_array_equal(scores, before)


def test_nan_scores_are_no_keypoints():
    scores = np.full((16, 16), np.nan, np.float32)
    scores[8, 8] = 0.5
    y, x = find_peaks(scores, (16, 16), DecodeConfig())
    assert (y.tolist(), x.tolist()) == ([8], [8])


def test_score_map_unfolds_channels_row_by_row():
    logits = np.zeros((65, 2, 3), np.float32)
    logits[8 * 5 + 2, 1, 2] = 100  # pixel (u 2, v 5) of cell (row 1, column 2)
    scores = score_map(logits)
    assert scores.shape == (16, 24)
    assert scores.dtype == np.float32
    assert np.argwhere(scores > 0.5).tolist() == [[8 + 5, 16 + 2]]
    assert scores[0, 0] == pytest.approx(1 / 65)


def test_score_map_of_extreme_logits_is_finite():
    logits = np.full((65, 1, 1), -500, np.float32)
    logits[64] = 500
    assert np.array_equal(score_map(logits), np.zeros((8, 8)))


@given(st.floats(-0.49, 0.49), st.floats(-0.49, 0.49), st.floats(0.5, 2))
@settings(max_examples=50)
def test_refinement_finds_the_peak_of_a_gaussian(dx, dy, sigma):
    v, u = np.indices((24, 24))
    scores = np.exp(-((u - 12 - dx) ** 2 + (v - 11 - dy) ** 2) / (2 * sigma**2)).astype(np.float32)
    offset = refinement(scores, np.array([11]), np.array([12]))
    np.testing.assert_allclose(offset, [[dx, dy]], atol=1e-3)


def test_refinement_moves_keypoints_by_at_most_half_a_pixel():
    rng = np.random.default_rng(0)
    scores = rng.random((16, 16), np.float32) * (rng.random((16, 16)) < 0.5)
    y, x = (index.ravel() for index in np.indices((16, 16)))
    assert np.abs(refinement(scores.astype(np.float32), y, x)).max() <= 0.5


def keypoints_and_map(rng, depth=7, rows=5, columns=6):
    keypoints = rng.uniform(-4, [columns * 8 + 4, rows * 8 + 4], (40, 2)).astype(np.float32)
    return keypoints, rng.standard_normal((rows, columns, depth)).astype(np.float32)


@pytest.mark.parametrize(('interpolation', 'flag'), [('bilinear', cv2.INTER_LINEAR), ('bicubic', cv2.INTER_CUBIC)])
def test_descriptors_are_interpolated_like_images_in_opencv(interpolation, flag):
    rng = np.random.default_rng(1)
    keypoints, cells = keypoints_and_map(rng)
    position = np.round((keypoints - 3.5) / 8 * 32) / 32  # OpenCV may round positions to 1/32
    sampled = sample_descriptors(cells, (position * 8 + 3.5).astype(np.float32), interpolation)
    where = position.astype(np.float32)[:, None]
    channels = [
        cv2.remap(channel, where, None, flag, borderMode=cv2.BORDER_REPLICATE) for channel in cells.transpose(2, 0, 1)
    ]
    expected = np.concatenate(channels, axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(sampled, expected, atol=2e-5)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_descriptor_at_a_cell_center_is_the_cell(interpolation):
    rng = np.random.default_rng(2)
    cells = rng.standard_normal((3, 4, 16)).astype(np.float32)
    centers = np.array([[8 * j + 3.5, 8 * i + 3.5] for i in range(3) for j in range(4)], np.float32)
    expected = cells.reshape(12, 16)
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(sample_descriptors(cells, centers, interpolation), expected, atol=1e-6)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_half_precision_descriptors_are_interpolated_in_float32(interpolation):
    keypoints, cells = keypoints_and_map(np.random.default_rng(3))
    half = cells.astype(np.float16)
    found = sample_descriptors(half, keypoints, interpolation)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, sample_descriptors(half.astype(np.float32), keypoints, interpolation))


def test_zero_descriptors_stay_zero():
    sampled = sample_descriptors(np.zeros((2, 2, 4), np.float32), np.array([[5, 5]], np.float32))
    np.testing.assert_array_equal(sampled, np.zeros((1, 4)))


@pytest.mark.parametrize('depth', [0, 8])
def test_decode_of_an_empty_score_map(depth):
    heads = {'score_map': np.zeros((16, 16), np.float32)}
    if depth:
        heads['descriptors'] = np.ones((2, 2, depth), np.float32)
    decoded = decode_superpoint(heads, (16, 16), DecodeConfig())
    assert decoded.keypoints.shape == (0, 2)
    assert decoded.scores.shape == (0,)
    assert decoded.descriptors.shape == (0, depth)


def test_heads_of_both_networks_are_decoded():
    scores = np.zeros((24, 32), np.float32)
    scores[12, 20] = 0.5
    assert decode({'score_map': scores}, (32, 24), DecodeConfig()).keypoints.tolist() == [[20, 12]]
    heads = unsuperpoint_heads(3, 4, {(1, 2): (0.5, 0.5, 0.7)})
    assert decode(heads, (32, 24), DecodeConfig()).keypoints.tolist() == [[19.5, 11.5]]


@pytest.mark.parametrize(
    ('field', 'value'),
    [('threshold', -0.1), ('max_keypoints', 0), ('nms_radius', -1), ('nms_radius', 1.5), ('interpolation', 'nearest')],
)
def test_bad_options_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        DecodeConfig(**{field: value})


def unsuperpoint_heads(rows, columns, points, depth=4):
    """Heads with points of these cells, {(row, column): (x, y in the cell from 0 to 1, score)}; all others score 0."""
    scores, positions = np.zeros((1, rows, columns), np.float32), np.full((2, rows, columns), 0.5, np.float32)
    for (row, column), (right, down, score) in points.items():
        scores[0, row, column], positions[:, row, column] = score, (right, down)
    descriptors = np.random.default_rng(0).standard_normal((rows, columns, depth)).astype(np.float32)
    return {'scores': scores, 'positions': positions, 'descriptors': descriptors}


def test_points_of_cells_are_in_pixels_and_best_first():
    heads = unsuperpoint_heads(3, 4, {(1, 2): (0.5, 0.5, 0.7), (1, 0): (0.8, 0.75, 0.9)})
    decoded = decode_unsuperpoint(heads, (32, 24), DecodeConfig(border=0))
    np.testing.assert_allclose(decoded.keypoints, [[8 * 0.8 - 0.5, 8 + 5.5], [16 + 3.5, 8 + 3.5]], rtol=1e-6)
    np.testing.assert_array_equal(decoded.scores, np.float32([0.9, 0.7]))
    np.testing.assert_allclose(decoded.descriptors, sample_descriptors(heads['descriptors'], decoded.keypoints))


def test_points_of_neighboring_cells_suppress_each_other():
    points = {(0, 0): (0.9, 0.5, 0.6), (0, 1): (0.1, 0.5, 0.8), (2, 3): (0.5, 0.5, 0.1)}
    heads = unsuperpoint_heads(3, 4, points)
    assert decode_unsuperpoint(heads, (32, 24), DecodeConfig(border=0)).scores == pytest.approx([0.8, 0.1])
    no_suppression = DecodeConfig(nms_radius=0, border=0)
    assert decode_unsuperpoint(heads, (32, 24), no_suppression).scores == pytest.approx([0.8, 0.6, 0.1])


def test_one_pixel_keeps_its_best_point_or_the_first_of_equal_ones():
    for first, second in ((0.6, 0.8), (0.8, 0.6), (0.7, 0.7)):
        heads = unsuperpoint_heads(1, 2, {(0, 0): (1.0, 0.5, first), (0, 1): (0.0, 0.5, second)})
        heads['positions'][0, 0, 0] -= 0.01  # x = 7.42
        heads['positions'][0, 0, 1] -= 0.01  # 7.42, too, as no network gives it
        decoded = decode_unsuperpoint(heads, (16, 8), DecodeConfig(nms_radius=0, border=0))
        assert decoded.scores == pytest.approx([max(first, second)])


def test_points_in_padding_and_mask_are_removed():
    heads = unsuperpoint_heads(2, 2, {(0, 0): (0.5, 0.5, 0.9), (0, 1): (0.9, 0.5, 0.8), (1, 1): (0.2, 0.2, 0.7)})
    mask = np.ones((16, 16), bool)
    mask[:8, :8] = False
    decoded = decode_unsuperpoint(heads, (13, 16), DecodeConfig(border=0), mask)
    np.testing.assert_allclose(decoded.keypoints, [[8 + 1.1, 8 + 1.1]], rtol=1e-6)
