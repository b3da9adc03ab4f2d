import numpy as np
import pytest

from superpoint_ros.features import Features
from superpoint_ros.geometry import transform_points
from superpoint_ros.matching import MatchConfig
from superpoint_ros.tracking import Tracker, TrackerConfig


class Scene:
    """Points with random descriptors; each image shows some of them."""

    def __init__(self, count, seed=0, noise=0.02):
        self.rng = np.random.default_rng(seed)
        self.positions = self.rng.uniform(20, 400, (count, 2)).astype(np.float32)
        self.descriptors = self.rng.normal(size=(count, 32))
        self.descriptors /= np.linalg.norm(self.descriptors, axis=1, keepdims=True)
        self.noise = noise

    def __call__(self, points, move=None):
        """Features of an image that shows these points in this order, moved by a homography."""
        points = np.asarray(points, int)
        keypoints = self.positions[points]
        if move is not None:
            keypoints = transform_points(move, keypoints)
        descriptors = self.descriptors[points] + self.rng.normal(0, self.noise, (len(points), 32))
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        scores = np.linspace(1, 0.5, len(points), dtype=np.float32)
        return Features(keypoints, scores, descriptors.astype(np.float32), (420, 420))


def test_points_keep_their_identity_in_any_order():
    scene, rng = Scene(100), np.random.default_rng(1)
    tracker, identity = Tracker(), {}
    for frame in range(6):
        order = rng.permutation(100)
        tracks = tracker.update(scene(order))
        for point, number in zip(order, tracks.ids, strict=True):
            assert identity.setdefault(point, number) == number
        np.testing.assert_array_equal(tracks.ages, frame + 1)
        np.testing.assert_array_equal(tracks.keypoints, scene.positions[order])
    assert sorted(identity.values()) == list(range(100))
    assert tracks.ids.dtype == tracks.ages.dtype == np.uint32


@pytest.mark.parametrize(('away', 'back'), [(0, True), (1, True), (3, True), (4, False)])
def test_a_lost_point_is_found_again_for_max_lost_frames(away, back):
    scene, tracker = Scene(10), Tracker(TrackerConfig(max_lost_frames=3))
    first = tracker.update(scene(range(10)))
    for _ in range(away):
        tracker.update(scene(range(9)))
    last = tracker.update(scene(range(10)))
    np.testing.assert_array_equal(last.ids[:9], first.ids[:9])
    assert (last.ids[9] == first.ids[9]) is np.bool_(back)
    assert last.ages[9] == (2 if back else 1)
    assert last.ids[9] == (9 if back else 10), 'a new identity'


def test_with_max_lost_frames_0_a_lost_point_is_new():
    scene, tracker = Scene(3), Tracker(TrackerConfig(max_lost_frames=0))
    tracker.update(scene([0, 1, 2]))
    tracker.update(scene([0, 1]))
    assert tracker.update(scene([0, 1, 2])).ids.tolist() == [0, 1, 3]


def test_a_lost_point_is_matched_by_its_last_descriptor():
    """A descriptor turns by 20° in each image, and is 80° from the first one when the point comes back."""
    angles = np.deg2rad([0, 20, 40, 60, 80])
    tracker = Tracker(match_config=MatchConfig(min_similarity=0.9))
    for angle in angles[:4]:
        descriptor = np.array([[np.cos(angle), np.sin(angle)]], np.float32)
        ids = tracker.update(Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), descriptor, (9, 9))).ids
        assert ids.tolist() == [0]
    nothing = Features(np.zeros((0, 2), np.float32), np.ones(0, np.float32), np.zeros((0, 2), np.float32), (9, 9))
    assert len(tracker.update(nothing)) == 0
    descriptor = np.array([[np.cos(angles[4]), np.sin(angles[4])]], np.float32)
    tracks = tracker.update(Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), descriptor, (9, 9)))
    assert (tracks.ids.tolist(), tracks.ages.tolist()) == ([0], [5])


def test_identities_wrap_around_and_skip_those_in_use():
    scene, tracker = Scene(20), Tracker()
    tracker._next_id = 2**32 - 3
    assert tracker.update(scene(range(5))).ids.tolist() == [2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1]
    tracker._next_id = 2**32 - 2  # after a long time
    assert tracker.update(scene(range(8))).ids.tolist() == [2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1, 2, 3, 4]


def test_identities_are_never_reused():
    scene, rng = Scene(300), np.random.default_rng(2)
    tracker, points_of = Tracker(TrackerConfig(max_lost_frames=2)), {}
    for _ in range(30):
        points = rng.choice(300, 60, replace=False)
        for point, number in zip(points, tracker.update(scene(points)).ids, strict=True):
            assert points_of.setdefault(number, point) == point
    assert len(points_of) > 300, 'points came back after they were forgotten'


def test_reset_forgets_points_but_not_identities():
    scene, tracker = Scene(4), Tracker()
    tracker.update(scene(range(4)))
    tracker.reset()
    tracks = tracker.update(scene(range(4)))
    assert tracks.ids.tolist() == [4, 5, 6, 7]
    assert tracks.ages.tolist() == [1, 1, 1, 1]


def turn(degrees, shift):
    """A rotation about the center of the image, then a translation."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    middle = np.array([[1, 0, -210], [0, 1, -210], [0, 0, 1]])
    return np.array([[cos, -sin, 210 + shift], [sin, cos, 210], [0, 0, 1]]) @ middle


def test_the_window_follows_the_motion_of_the_camera():
    """The camera moves by 30 px and 5° for each image; point 0 has a twin far from its path."""
    scene = Scene(80)
    scene.descriptors[79] = scene.descriptors[0]
    scene.positions[0], scene.positions[79] = (100, 100), (300, 300)
    tracker = Tracker(match_config=MatchConfig(window=6.0))
    tracker.update(scene(range(79)))
    for frame in range(1, 4):
        tracks = tracker.update(scene([79, *range(1, 79)], turn(5 * frame, 30 * frame)))
        assert tracks.ids.tolist() == [79, *range(1, 79)], 'the twin is not point 0'
    # Point 0, lost three images ago, is searched at its predicted position, not at its last one.
    tracks = tracker.update(scene(range(80), turn(20, 120)))
    assert tracks.ids.tolist() == [*range(79), 79]


def test_without_prediction_the_window_stays_at_the_last_position():
    scene = Scene(40)
    tracker = Tracker(TrackerConfig(prediction='none'), MatchConfig(window=6.0))
    tracker.update(scene(range(40)))
    assert tracker.update(scene(range(40), turn(0, 4))).ids.tolist() == list(range(40))
    assert tracker.update(scene(range(40), turn(0, 30))).ids.tolist() == list(range(40, 80))


def test_with_too_few_points_for_a_prediction_the_whole_image_is_searched():
    scene, tracker = Scene(5), Tracker(match_config=MatchConfig(window=6.0))
    tracker.update(scene(range(5)))
    assert tracker.update(scene(range(5), turn(0, 50))).ids.tolist() == list(range(5))


def test_descriptors_of_another_size_are_refused_and_change_nothing():
    scene, tracker = Scene(5), Tracker()
    tracker.update(scene(range(5)))
    good = scene(range(5))
    other = Features(good.keypoints, good.scores, np.eye(5, 7, dtype=np.float32), (420, 420))
    with pytest.raises(ValueError, match='different sizes, 32 and 7'):
        tracker.update(other)
    assert tracker.update(good).ids.tolist() == list(range(5))


def test_images_without_features_have_no_tracks():
    scene, tracker = Scene(5), Tracker()
    assert len(tracker.update(scene([]))) == 0
    assert tracker.update(scene(range(5))).ids.tolist() == list(range(5))
    assert len(tracker.update(scene([]))) == 0
    assert tracker.update(scene(range(5))).ids.tolist() == list(range(5))
