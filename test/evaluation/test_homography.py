import math

import numpy as np
import pytest

from superpoint_ros.evaluation import baselines, homography, report
from superpoint_ros.evaluation.datasets import Pair
from superpoint_ros.evaluation.methods import ALL_NEAREST, Method
from superpoint_ros.evaluation.protocols import PROTOCOLS, Protocol, Setting
from superpoint_ros.features import Features
from superpoint_ros.geometry import crop_transform, transform_points

SIZE = (160, 120)
SETTING = Setting(size=SIZE, keypoints=100, nms_radius=4)
PERSPECTIVE = np.array([[0.95, -0.1, 10.0], [0.08, 1.02, -6.0], [2e-4, -1e-4, 1.0]])


def grid(left=8, right=152, top=8, bottom=112, step=16):
    x, y = np.meshgrid(np.arange(left, right, step), np.arange(top, bottom, step))
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def features(keypoints, descriptors=None):
    scores = np.linspace(1, 0.1, len(keypoints)).astype(np.float32)
    if descriptors is None:
        descriptors = np.eye(len(keypoints), 200, dtype=np.float32)
    return Features(np.asarray(keypoints, np.float32), scores, descriptors, SIZE)


def pair(matrix=PERSPECTIVE, name='pair', split=''):
    blank = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    return Pair(name, split, blank, blank + 1, matrix)


def known_method(features0, features1):
    """A method that knows the answer: image 1 of `pair` is all ones."""
    return Method('oracle', 'by hand', lambda _: lambda image: features1 if image[0, 0] else features0, True, True)


class TestDescription:
    def test_perfect_features_are_perfect_in_every_metric(self):
        points0 = grid()
        points0 = points0[homography.metrics.shared(points0, PERSPECTIVE, SIZE)]
        found = features(points0), features(transform_points(PERSPECTIVE, points0))
        values, answer = homography.description(pair(), found, SETTING)
        assert values['repeatability'] == values['nn_map'] == values['matching_score'] == 1.0
        assert values['localization_error'] < 1e-3
        assert max(values['corner_error'], values['corner_error_magsac']) < 1e-2
        assert answer.correct.all()

    def test_known_wrong_matches_give_known_figures(self):
        """Of 40 points with counterparts, 10 have the descriptors of others, with less similarity than the rest."""
        points = grid(8, 152, 8, 88)[:40]
        count, wrong = len(points), 10
        similar = np.full(count, 0.9, np.float32)
        similar[:wrong] = 0.5
        shown = np.arange(count)
        shown[:wrong] = np.roll(shown[:wrong], 1)
        descriptors1 = np.zeros((count, 200), np.float32)
        descriptors1[shown, np.arange(count)] = similar
        descriptors1[np.arange(count), 100 + np.arange(count)] = np.sqrt(1 - similar[np.argsort(shown)] ** 2)
        shift = crop_transform(-3, -2)
        found = features(points), features(points + np.float32([3, 2]), descriptors1)
        values, answer = homography.description(pair(shift), found, SETTING)
        assert answer.correct.sum() == count - wrong
        assert values['matching_score'] == pytest.approx((count - wrong) / count)
        assert values['nn_map'] == 1.0  # the right ones are more similar than the wrong ones
        assert values['repeatability'] == 1.0
        assert max(values['corner_error'], values['corner_error_magsac']) < 1e-2
        assert values['inliers'] == count - wrong

    def test_matching_score_and_nn_map_are_means_of_the_two_directions(self):
        """Only the second of two points has a counterpart, whose descriptor is the first one's.

        Forward, one of two nearest neighbors is right, after a more similar wrong one. Backward, the only one is wrong.
        """
        points, similar = grid()[[0, 50]], np.float32([[1, 0], [0.8, 0.6]])
        found = features(points, similar), features(points[1:] + np.float32([3, 2]), similar[:1])
        values, _ = homography.description(pair(crop_transform(-3, -2)), found, SETTING)
        assert values['matching_score'] == pytest.approx((1 / 2 + 0) / 2)
        assert values['nn_map'] == pytest.approx((1 / 2 + 0) / 2)

    def test_points_outside_the_shared_region_do_not_count(self):
        """Image 1 is moved by 80 px: the left half of image 0 is its right half."""
        shift = crop_transform(-80, 0)
        points0 = grid()
        points1 = points0[points0[:, 0] < 80] + np.float32([80, 0])
        descriptors1 = np.eye(len(points0), 200, dtype=np.float32)[points0[:, 0] < 80]
        found = features(points0), features(points1, descriptors1)
        values, answer = homography.description(pair(shift), found, SETTING)
        assert values['repeatability'] == values['matching_score'] == 1.0
        assert (values['matches'], answer.correct.sum()) == (len(points0), len(points1))

    def test_mutual_matching_drops_points_without_a_counterpart(self):
        shift = crop_transform(-80, 0)
        points0 = grid()
        points1 = points0[points0[:, 0] < 80] + np.float32([80, 0])
        descriptors1 = np.eye(len(points0), 200, dtype=np.float32)[points0[:, 0] < 80]
        mutual = Setting(size=SIZE, keypoints=100, nms_radius=4, mutual=True)
        found = features(points0), features(points1, descriptors1)
        values, answer = homography.description(pair(shift), found, mutual)
        assert values['matches'] == len(points1)
        assert answer.correct.all()

    def test_a_matcher_gives_the_same_matches_in_both_directions(self):
        points0 = grid()
        points1 = points0[points0[:, 0] < 80] + np.float32([80, 0])
        descriptors1 = np.eye(len(points0), 200, dtype=np.float32)[points0[:, 0] < 80]
        found, shift = (features(points0), features(points1, descriptors1)), crop_transform(-80, 0)
        mutual = Setting(size=SIZE, keypoints=100, nms_radius=4, mutual=True)
        expected, _ = homography.description(pair(shift), found, mutual)
        assert homography.description(pair(shift), found, SETTING, ALL_NEAREST)[0] == expected

    def test_magsac_averages_the_errors_of_inexact_points(self):
        """With 150 points that are 1 px off in x and in y and 40 wrong ones, the corners are off by less than that."""
        rng = np.random.default_rng(0)
        points0 = rng.uniform((8, 8), (152, 112), (190, 2)).astype(np.float32)
        points1 = transform_points(PERSPECTIVE, points0) + rng.normal(0, 1, points0.shape).astype(np.float32)
        points1[150:] = rng.uniform((8, 8), (152, 112), (40, 2))
        values, _ = homography.description(pair(), (features(points0), features(points1)), SETTING)
        assert values['corner_error_magsac'] < 1

    @pytest.mark.parametrize('counts', [(0, 0), (0, 5), (5, 0), (3, 3)])
    def test_too_few_points_give_no_homography(self, counts):
        found = features(grid()[: counts[0]]), features(grid()[: counts[1]])
        values, _ = homography.description(pair(np.eye(3)), found, SETTING)
        assert values['corner_error'] == values['corner_error_magsac'] == math.inf
        assert values['nn_map'] == values['matching_score'] == (1.0 if counts == (3, 3) else 0.0)


class TestSelect:
    def test_the_shared_region_is_applied_before_or_after_the_best_are_taken(self):
        """The 10 best points are not visible in the other image."""
        outside, inside = grid(96, 152, 8, 72)[:10], grid(8, 72, 8, 72)[:10]
        found = features(np.concatenate([outside, inside]))
        shift = crop_transform(-80, 0)
        after = homography.select(found, shift, Setting(size=SIZE, keypoints=10, nms_radius=4))
        np.testing.assert_array_equal(after.keypoints, outside)
        before = homography.select(found, shift, Setting(size=SIZE, keypoints=10, nms_radius=4, in_common=True))
        np.testing.assert_array_equal(before.keypoints, inside)

    def test_keypoints_are_rounded_to_whole_pixels(self):
        setting = Setting(size=SIZE, keypoints=10, nms_radius=4, whole_pixels=True)
        selected = homography.select(features([[10.4, 20.6]]), np.eye(3), setting)
        assert selected.keypoints.tolist() == [[10, 21]]


def test_random_points_repeat_as_often_as_in_the_paper():
    """Chance: 1 − exp(−density · π · 3²) = .11 inside the border. The paper's table 3 has .100 to .104, for viewpoint
    changes too, which shows that it counts only the points in the shared region."""
    setting = PROTOCOLS['paper'].detection[0]
    extract = baselines.detectors()['random'](setting)
    rates = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found = tuple(extract(rng.integers(0, 255, (240, 320), np.uint8)) for _ in range(2))
        moved = Pair(
            'random', '', np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.uint8), crop_transform(90, 0)
        )
        rates.append(homography.detection(moved, found, setting)['repeatability'])
    assert np.mean(rates) == pytest.approx(1 - math.exp(-300 / (312 * 232) * math.pi * 9), abs=0.02)


class TestEvaluate:
    PROTOCOL = Protocol('test', 'by hand', (SETTING,), SETTING)

    def test_measures_every_method_at_every_stage_and_averages_by_split(self):
        points = grid()
        moved = transform_points(PERSPECTIVE, points)
        perfect = known_method(features(points), features(moved))
        results = homography.evaluate(
            [lambda: pair(name='a', split='illumination'), lambda: pair(name='b', split='viewpoint')],
            [perfect],
            self.PROTOCOL,
        )
        assert len(results.rows) == 4
        summary = report.means(homography.by_split(results.rows), ('stage', 'method', 'split'))
        assert {(row['stage'], row['split'], row['pairs']) for row in summary} == {
            (stage, split, count)
            for stage in ('detection, NMS 4 px', 'description')
            for split, count in (('all', 2), ('illumination', 1), ('viewpoint', 1))
        }
        assert all(row['repeatability'] == 1.0 for row in summary)
        described = [row for row in summary if row['stage'] == 'description']
        assert all(row['accuracy_1'] == row['accuracy_5'] == 1.0 for row in described)
        assert list(results.pictures) == ['a', 'b']

    def test_continues_after_a_pair_that_cannot_be_read(self):
        def broken():
            raise ValueError('v_x/2.ppm: not an image')

        method = known_method(features(grid()), features(grid()))
        results = homography.evaluate([broken, lambda: pair(np.eye(3))], [method], self.PROTOCOL)
        assert results.failed == ['v_x/2.ppm: not an image']
        assert {row['pair'] for row in results.rows} == {'pair'}


def test_protocols_describe_themselves_in_words():
    paper, rpautrat = PROTOCOLS['paper'], PROTOCOLS['rpautrat']
    assert [s.nms_radius for s in paper.detection] == [4, 8]
    assert 'dropped after the best' in paper.description.pair(matching=True)
    assert 'nearest neighbors' not in paper.detection[0].pair(matching=False)
    assert 'dropped before the best' in rpautrat.description.pair(matching=True)
    assert (paper.description.size, paper.description.keypoints) == ((640, 480), 1000)
    assert (paper.detection[0].size, paper.detection[0].keypoints) == ((320, 240), 300)
    assert rpautrat.detection[0].candidates == 1000
