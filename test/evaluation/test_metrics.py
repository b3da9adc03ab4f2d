import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from superpoint_ros.evaluation import metrics
from superpoint_ros.geometry import crop_transform, resize_transform, transform_points

SIZE = (100, 80)
IDENTITY = np.eye(3)
PERSPECTIVE = np.array([[0.9, -0.2, 12.0], [0.15, 1.1, -5.0], [1e-4, -2e-4, 1.0]])

points_lists = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 12), st.just(2)), elements=st.floats(0, 79, allow_nan=False, width=32)
)


def shift(x, y):
    return crop_transform(-x, -y)


class TestShared:
    def test_keeps_points_that_are_visible_in_the_other_image(self):
        points = np.array([[0.0, 0.0], [89.0, 10.0], [90.0, 10.0], [50.0, 79.0]])
        kept = metrics.shared(points, shift(10, 0), SIZE)
        assert kept.tolist() == [True, True, False, True]  # 89 + 10 is the last column, 99

    def test_of_no_points_is_empty(self):
        assert metrics.shared(np.empty((0, 2)), IDENTITY, SIZE).shape == (0,)


class TestDistances:
    def test_worked_out_by_hand(self):
        points = np.array([[0.0, 0.0], [10.0, 10.0]])
        others = np.array([[3.0, 4.0], [10.0, 12.0]])
        assert metrics.distances(points, others).tolist() == [5.0, 2.0]

    def test_to_nothing_is_infinite(self):
        assert metrics.distances(np.zeros((2, 2)), np.empty((0, 2))).tolist() == [math.inf, math.inf]
        assert metrics.distances(np.empty((0, 2)), np.zeros((2, 2))).shape == (0,)


class TestRepeatability:
    def test_worked_out_by_hand(self):
        # Image 1 is image 0 moved by (10, 0). Of three points of image 0 two are found again, at 0 and at 2 px; image 1
        # has those two and one more: (2 + 2) / (3 + 3).
        points0 = np.array([[20.0, 20.0], [40.0, 40.0], [60.0, 60.0]])
        points1 = np.array([[30.0, 20.0], [50.0, 42.0], [10.0, 70.0]])
        distances = metrics.correspondence_distances(points0, points1, shift(10, 0))
        assert metrics.repeatability(distances, 3.0) == pytest.approx(4 / 6)
        assert metrics.localization_error(distances, 3.0) == pytest.approx((0 + 2 + 0 + 2) / 4)
        assert metrics.repeatability(distances, 1.0) == pytest.approx(2 / 6)

    def test_is_measured_in_each_image_or_in_the_second(self):
        # Twice as large in image 1: a point 2 px off there is 1 px off in image 0.
        double = np.diag([2.0, 2.0, 1.0])
        points0, points1 = np.array([[10.0, 10.0]]), np.array([[22.0, 20.0]])
        assert metrics.correspondence_distances(points0, points1, double).tolist() == [1.0, 2.0]
        assert metrics.correspondence_distances(points0, points1, double, 'second').tolist() == [2.0, 2.0]

    def test_of_nothing_is_zero_and_has_no_error(self):
        nothing = np.empty((0, 2))
        assert metrics.repeatability(metrics.correspondence_distances(nothing, nothing, IDENTITY)) == 0.0
        one = metrics.correspondence_distances(np.zeros((1, 2)), nothing, IDENTITY)
        assert metrics.repeatability(one) == 0.0
        assert math.isnan(metrics.localization_error(one))

    @given(points_lists)
    def test_of_an_image_with_itself_is_one(self, points):
        distances = metrics.correspondence_distances(points, points, IDENTITY)
        assert metrics.repeatability(distances) == (1.0 if len(points) else 0.0)

    @given(points_lists, points_lists)
    def test_is_symmetric_in_the_pair(self, points0, points1):
        there = metrics.correspondence_distances(points0, points1, PERSPECTIVE)
        back = metrics.correspondence_distances(points1, points0, metrics.inverse(PERSPECTIVE))
        np.testing.assert_allclose(np.roll(back, len(points0)), there, atol=1e-6)

    @given(points_lists, points_lists)
    def test_grows_with_the_threshold_and_the_error_stays_below_it(self, points0, points1):
        distances = metrics.correspondence_distances(points0, points1, PERSPECTIVE)
        rates = [metrics.repeatability(distances, threshold) for threshold in (1, 3, 10)]
        assert rates == sorted(rates)
        error = metrics.localization_error(distances, 3)
        assert math.isnan(error) or error <= 3


class TestAssign:
    def test_a_corner_counts_once_for_the_best_detection(self):
        truth = np.array([[10.0, 10.0], [30.0, 30.0]])
        points = np.array([[11.0, 10.0], [10.0, 10.0], [30.0, 31.0], [60.0, 60.0]])
        assert metrics.assign(points, truth, 2.0).tolist() == [True, False, True, False]

    def test_a_detection_takes_the_nearest_free_corner(self):
        truth = np.array([[10.0, 10.0], [13.0, 10.0]])
        points = np.array([[11.0, 10.0], [11.2, 10.0]])
        assert metrics.assign(points, truth, 2.0).tolist() == [True, True]

    def test_without_corners_or_detections(self):
        assert metrics.assign(np.zeros((3, 2)), np.empty((0, 2)), 2.0).tolist() == [False] * 3
        assert metrics.assign(np.empty((0, 2)), np.zeros((3, 2)), 2.0).shape == (0,)

    @given(points_lists, points_lists)
    def test_never_assigns_more_than_there_are(self, points, truth):
        correct = metrics.assign(points, truth, 5.0)
        assert correct.sum() <= min(len(points), len(truth))
        assert not correct[metrics.distances(points, truth) > 5.0].any()


class TestAveragePrecision:
    def test_worked_out_by_hand(self):
        # Right, wrong, right of three to find: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.
        correct, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7])
        precision, recall = metrics.precision_recall(correct, scores, 3)
        np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
        np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3])
        assert metrics.average_precision(correct, scores, 3) == pytest.approx(1 / 3 + 2 / 3 / 3)

    def test_recall_is_relative_to_the_right_answers_by_default(self):
        correct, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7])
        assert metrics.average_precision(correct, scores) == pytest.approx(1 / 2 + 2 / 3 / 2)

    def test_equal_scores_are_one_step(self):
        for correct in ([True, False], [False, True]):
            assert metrics.average_precision(np.array(correct), np.array([0.5, 0.5]), 1) == pytest.approx(0.5)

    def test_of_nothing_is_zero(self):
        assert metrics.average_precision(np.empty(0, bool), np.empty(0), 5) == 0.0
        assert metrics.average_precision(np.array([False]), np.array([0.5])) == 0.0

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.3, 0.4])), min_size=1, max_size=20))
    def test_does_not_depend_on_the_order_given(self, answers):
        correct, scores = (np.array(column) for column in zip(*answers, strict=True))
        forward = metrics.average_precision(correct, scores)
        assert metrics.average_precision(correct[::-1], scores[::-1]) == pytest.approx(forward)
        assert 0 <= forward <= 1 + 1e-9

    @given(st.integers(1, 10), st.integers(0, 10))
    def test_of_a_perfect_ranking_is_the_recall(self, right, missed):
        correct = np.array([True] * right + [False] * 4)
        scores = np.arange(len(correct), 0, -1.0)
        assert metrics.average_precision(correct, scores, right + missed) == pytest.approx(right / (right + missed))


class TestMatching:
    def test_nearest_neighbors_worked_out_by_hand(self):
        descriptors0 = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
        descriptors1 = np.array([[0, 1], [1, 0]], np.float32)
        forth, back = metrics.nearest_neighbors(descriptors0, descriptors1)
        assert forth.indices.tolist() == [[0, 1], [1, 0], [2, 1]]
        np.testing.assert_allclose(forth.similarities, [1, 1, 0.8])
        assert back.indices.tolist() == [[0, 1], [1, 0]]
        assert back.similarities.tolist() == [1, 1]
        forth, back = metrics.nearest_neighbors(descriptors0, descriptors1, mutual=True)
        assert forth.indices.tolist() == back.indices.tolist() == [[0, 1], [1, 0]]

    def test_no_descriptors_have_no_neighbors(self):
        some, none = np.eye(3, dtype=np.float32), np.empty((0, 3), np.float32)
        for pair in ((some, none), (none, some), (none, none)):
            assert [len(matches) for matches in metrics.nearest_neighbors(*pair)] == [0, 0]

    def test_correct_matches_are_those_within_the_threshold(self):
        points = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
        matched = np.array([[10.0, 0.0], [10.0, 3.0], [10.0, 3.1]])
        assert metrics.correct_matches(points, matched, shift(10, 0), 3.0).tolist() == [True, True, False]


class TestHomography:
    def test_corner_error_is_the_mean_of_the_four(self):
        # Scaled by 1.1 in x about the origin: the right corners move by 0.1 · 99, the left ones stay.
        estimate = np.diag([1.1, 1.0, 1.0])
        assert metrics.corner_error(estimate, IDENTITY, SIZE) == pytest.approx(0.1 * 99 / 2)

    @given(st.floats(-20, 20), st.floats(-20, 20))
    def test_corner_error_of_a_shift_is_its_length(self, x, y):
        assert metrics.corner_error(shift(x, y) @ PERSPECTIVE, PERSPECTIVE, SIZE) == pytest.approx(
            math.hypot(x, y), abs=1e-6
        )

    def test_the_error_of_no_homography_is_infinite(self):
        assert metrics.corner_error(None, IDENTITY, SIZE) == math.inf
        assert metrics.corner_error(np.zeros((3, 3)), IDENTITY, SIZE) == math.inf

    def test_accuracy_and_auc_worked_out_by_hand(self):
        errors = np.array([0.0, 1.0, 2.0, math.inf])
        assert metrics.accuracy(errors, 1.0) == 0.5
        assert metrics.accuracy(errors, 3.0) == 0.75
        # The curve is 1/4 on [0, 1), 1/2 on [1, 2), 3/4 on [2, 4].
        assert metrics.auc(errors, 4.0) == pytest.approx((0.25 + 0.5 + 2 * 0.75) / 4)
        assert metrics.accuracy(2.0, 2.0) == 1.0
        assert metrics.auc(1.0, 4.0) == 0.75

    @given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 10)))
    def test_auc_is_the_area_under_the_accuracy(self, errors):
        steps = np.linspace(0, 5, 5001)
        area = np.mean(errors <= steps[:, None])
        assert metrics.auc(errors, 5.0) == pytest.approx(area, abs=2e-3)


def test_metrics_do_not_depend_on_a_resize_of_both_images():
    """With the homography adapted to a common scale, all distances scale, so scaled thresholds give the same."""
    rng = np.random.default_rng(0)
    points0 = rng.uniform(0, 79, (30, 2))
    points1 = transform_points(PERSPECTIVE, points0) + rng.normal(0, 2, (30, 2))
    half = resize_transform(0.5, 0.5)
    adapted = half @ PERSPECTIVE @ np.linalg.inv(half)
    full = metrics.correspondence_distances(points0, points1, PERSPECTIVE)
    halved = metrics.correspondence_distances(transform_points(half, points0), transform_points(half, points1), adapted)
    np.testing.assert_allclose(halved, full / 2, atol=1e-9)
