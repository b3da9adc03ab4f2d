"""The learned matcher: what must hold for any weights, on a small network with random ones."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.features import Features
from superpoint_ros.learned_matching import STEPS, LearnedMatcher, mutual_best, pair_inputs, usable


@pytest.fixture(scope='module')
def matcher(make_matcher):
    return LearnedMatcher(str(make_matcher()), 0.05, backend='openvino', precision='fp32')


@pytest.fixture(scope='module')
def features(random_features):
    """Two images of the same 60 descriptors, in another order and a little changed."""
    first, noise = random_features(60), random_features(60, seed=1)
    order = np.random.default_rng(2).permutation(60)
    descriptors = (first.descriptors + 0.1 * noise.descriptors)[order]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return first, dataclasses.replace(noise, descriptors=descriptors), order


def pairs(matches):
    return {(int(i), int(j)) for i, j in matches.indices}


def test_similar_descriptors_match(matcher, features):
    first, second, order = features
    matches = matcher(first, second)
    right = order[matches.indices[:, 1]] == matches.indices[:, 0]
    assert len(matches) > 40
    assert right.mean() > 0.95
    assert (np.diff(matches.indices[:, 0].astype(int)) > 0).all()
    assert len(set(matches.indices[:, 1])) == len(matches)
    assert ((matches.similarities >= 0.05) & (matches.similarities <= 1)).all()


def test_a_higher_probability_leaves_the_likelier_matches(matcher, features):
    few = LearnedMatcher(str(matcher.model.graph), 0.9, backend='openvino', precision='fp32')
    every = matcher(*features[:2])
    expected = every[every.similarities >= 0.9]
    assert 0 < len(expected) < len(every)
    assert pairs(few(*features[:2])) == pairs(expected)


def test_permuting_the_keypoints_permutes_the_matches(matcher, features):
    rng = np.random.default_rng(0)
    order0, order1 = rng.permutation(60), rng.permutation(60)
    permuted = matcher(features[0][order0], features[1][order1])
    assert {(int(order0[i]), int(order1[j])) for i, j in permuted.indices} == pairs(matcher(*features[:2]))


def test_exchanging_the_images_exchanges_the_matches(matcher, features):
    first, second, _ = features
    assert {(j, i) for i, j in pairs(matcher(second, first))} == pairs(matcher(first, second))


@pytest.mark.parametrize(('count0', 'count1'), [(0, 5), (5, 0), (0, 0)])
def test_images_without_keypoints_have_no_matches(count0, count1, matcher, random_features):
    matches = matcher(random_features(count0), random_features(count1))
    assert matches.indices.shape == (0, 2)
    assert matches.similarities.shape == (0,)


def test_single_keypoints_match(matcher, random_features):
    one = random_features(1)
    assert pairs(matcher(one, one)) == {(0, 0)}


def test_keypoints_that_are_not_finite_match_nothing_and_change_nothing(matcher, features):
    first, second, _ = features
    rng = np.random.default_rng(0)
    bad = first[rng.permutation(60)[:9]]
    bad.keypoints[:3, 0], bad.descriptors[3:6, 1], bad.scores[6:9] = np.nan, np.inf, np.nan
    mixed = Features(
        np.concatenate([bad.keypoints, first.keypoints]),
        np.concatenate([bad.scores, first.scores]),
        np.concatenate([bad.descriptors, first.descriptors]),
        first.image_size,
    )
    assert {(i - 9, j) for i, j in pairs(matcher(mixed, second))} == pairs(matcher(first, second))


def test_keypoints_far_outside_the_image_are_matched(matcher, features):
    first, second, _ = features
    far = dataclasses.replace(first, keypoints=first.keypoints * np.float32(1e30))
    assert np.isfinite(matcher(far, second).similarities).all()


def test_of_5000_keypoints_the_best_take_part(matcher, random_features):
    many = random_features(5000)
    matches = matcher(many, many[::-1])
    assert len(matches) > 500
    assert matches.indices[:, 0].max() < STEPS[-1]
    assert (matches.indices.sum(axis=1) == 4999).mean() > 0.95


def test_the_number_of_keypoints_is_padded_to_a_step(random_features):
    assert STEPS == (256, 512, 1024, 2048)
    inputs = pair_inputs(random_features(3), random_features(5), 256)
    assert {name: array.shape for name, array in inputs.items()} == {
        'keypoints': (2, 256, 2),
        'descriptors': (2, 256, 16),
        'valid': (2, 256),
        'scores': (2, 256),
    }
    assert inputs['valid'].sum(axis=1).tolist() == [3, 5]
    assert all(array.dtype == np.float32 for array in inputs.values())


def test_positions_are_relative_to_the_center_and_the_longest_side(random_features):
    corners = np.array([[-0.5, -0.5], [639.5, 479.5], [319.5, 239.5]], np.float32)
    features = dataclasses.replace(random_features(3), keypoints=corners)
    positions = pair_inputs(features, features, 3)['keypoints'][1]
    np.testing.assert_allclose(positions, [[-1, -0.75], [1, 0.75], [0, 0]], atol=1e-6)


def test_usable_rows_come_best_first(random_features):
    features = random_features(4)
    features = dataclasses.replace(features, scores=np.array([0.1, 0.5, np.nan, 0.9], np.float32))
    assert usable(features, 10).tolist() == [3, 1, 0]
    assert usable(features, 2).tolist() == [3, 1]


def test_the_likeliest_of_both_sides_match():
    probabilities = np.array([[0.5, 0.4, 0.0], [0.6, 0.1, 0.2], [0.1, 0.3, np.nan]], np.float32)
    with np.errstate(divide='ignore'):
        index0, index1, found = mutual_best(np.log(probabilities))
    # Row 0 prefers column 0, which prefers row 1; NaN never matches.
    assert list(zip(index0, index1, strict=True)) == [(1, 0)]
    np.testing.assert_allclose(found, [0.6], rtol=1e-6)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32))
def test_no_row_and_no_column_is_in_two_matches(rows, columns, seed):
    values = np.random.default_rng(seed).integers(-3, 0, (rows, columns)).astype(np.float32)
    index0, index1, probabilities = mutual_best(values)
    assert len(set(index0)) == len(index0) >= 1
    assert len(set(index1)) == len(index1)
    for i, j, probability in zip(index0, index1, probabilities, strict=True):
        assert values[i, j] == values[i].max() == values[:, j].max()
        assert probability == pytest.approx(np.exp(values[i, j]))


def test_features_of_another_model_are_refused(make_matcher, random_features):
    path = make_matcher(extractor='unsuperpoint', extractor_checksum='0123456789abcdef')
    matcher = LearnedMatcher(str(path), backend='openvino')
    right, unknown = (random_features(5, checksum=checksum) for checksum in ('0123456789abcdef', ''))
    matcher(right, unknown)
    said = r'matcher was trained for features of unsuperpoint \(checksum 0123456789ab\), not for those of checksum fedc'
    with pytest.raises(ValueError, match=said):
        matcher(right, random_features(5, checksum='fedcba9876543210'))


def test_descriptors_of_another_size_are_refused(matcher, random_features):
    short = dataclasses.replace(random_features(5), descriptors=np.ones((5, 8), np.float32))
    with pytest.raises(ValueError, match='was trained for descriptors of size 16, got 8'):
        matcher(random_features(5), short)


def test_an_unknown_image_size_is_refused(matcher, random_features):
    with pytest.raises(ValueError, match='needs the size of the image, which is unknown'):
        matcher(random_features(5), random_features(5, image_size=(0, 0)))


def test_a_missing_model_and_a_wrong_option_are_refused(tmp_path, make_matcher):
    with pytest.raises(FileNotFoundError, match='no such file'):
        LearnedMatcher(str(tmp_path / 'none.onnx'))
    with pytest.raises(TypeError, match='min_probability'):
        LearnedMatcher(str(make_matcher()), min_probability=0.5)
    with pytest.raises(ValueError, match="backend: 'abacus' is not one of"):
        LearnedMatcher(str(make_matcher()), backend='abacus')
