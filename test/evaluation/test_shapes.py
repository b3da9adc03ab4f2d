import math

import numpy as np
import pytest

from superpoint_ros.evaluation import shapes
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.evaluation.protocols import SYNTHETIC
from superpoint_ros.features import Features


def known_method(name, answer):
    """A detector with a given answer for each image."""
    return Method(name, 'by hand', lambda _: lambda image: answer[image.tobytes()], True, False)


def features(keypoints, scores):
    keypoints = np.asarray(keypoints, np.float32).reshape(-1, 2)
    return Features(
        keypoints, np.asarray(scores, np.float32), np.empty((len(keypoints), 0), np.float32), SYNTHETIC.size
    )


@pytest.fixture
def known_set(monkeypatch):
    """Two shapes of one image each, with two corners and with none."""
    corners = {'square': np.array([[20.0, 20], [60, 20]], np.float32), 'disc': np.empty((0, 2), np.float32)}

    def images(shape, index, seed, size):
        clean = np.full((120, 160), len(shape), np.uint8)
        return {'clean': clean, 'noisy': clean + 100}, corners[shape]

    monkeypatch.setattr(shapes, 'SHAPES', ('square', 'disc'))
    monkeypatch.setattr(shapes, 'images', images)
    return {
        (shape, variant): image.tobytes()
        for shape in corners
        for variant, image in images(shape, 0, 0, SYNTHETIC.size)[0].items()
    }


def test_average_precision_and_error_worked_out_by_hand(known_set):
    answer = {
        known_set['square', 'clean']: features([[20, 21], [100, 100], [60, 23]], [0.9, 0.8, 0.7]),
        known_set['square', 'noisy']: features([[20, 20], [60, 20]], [0.9, 0.8]),
        known_set['disc', 'clean']: features([[50, 50]], [0.95]),
        known_set['disc', 'noisy']: features([], []),
    }
    results = shapes.evaluate([known_method('known', answer)], SYNTHETIC, count=1, seed=0)
    rows = {(row['variant'], row['epsilon']): row for row in shapes.summarize(results)}
    # 1 px off, wrong, 3 px off: at ε = 2 one of two is found, first; at ε = 4 both, with a wrong one between.
    assert rows['clean', 2.0]['mean_average_precision'] == pytest.approx(1 / 2)
    assert rows['clean', 2.0]['localization_error'] == pytest.approx(1.0)
    assert rows['clean', 4.0]['mean_average_precision'] == pytest.approx(1 / 2 + 2 / 3 / 2)
    assert rows['clean', 4.0]['localization_error'] == pytest.approx(2.0)
    # With the false corner on the disc, which has the best score, precision is 1/2 where it was 1.
    assert rows['clean', 2.0]['pooled_average_precision'] == pytest.approx(1 / 4)
    assert rows['noisy', 2.0]['mean_average_precision'] == 1.0
    assert rows['noisy', 2.0]['localization_error'] == 0.0
    (clean, noisy) = shapes.by_shape(results)
    assert clean == {'method': 'known', 'variant': 'clean', 'square': pytest.approx(0.5)}
    assert 'disc' not in noisy


def test_a_detector_that_finds_nothing_scores_zero(known_set):
    nothing = dict.fromkeys(known_set.values(), features([], []))
    results = shapes.evaluate([known_method('blind', nothing)], SYNTHETIC, count=1, seed=0)
    for row in shapes.summarize(results):
        assert row['mean_average_precision'] == row['pooled_average_precision'] == 0.0
        assert math.isnan(row['localization_error'])


@pytest.mark.parametrize('shape', shapes.SHAPES)
def test_images_are_reproducible_and_noise_moves_no_corner(shape):
    variants, corners = shapes.images(shape, 3, 0, SYNTHETIC.size)
    again, corners_again = shapes.images(shape, 3, 0, SYNTHETIC.size)
    other, _ = shapes.images(shape, 4, 0, SYNTHETIC.size)
    for variant in shapes.VARIANTS:
        assert variants[variant].shape == (120, 160)
        np.testing.assert_array_equal(variants[variant], again[variant])
        assert (variants[variant] != other[variant]).any()
    np.testing.assert_array_equal(corners, corners_again)
