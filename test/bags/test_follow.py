import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from superpoint_ros import clouds
from superpoint_ros.bags.follow import Follower, Following
from superpoint_ros.features import Features
from superpoint_ros.matching import MatchConfig

from .conftest import header

SECOND = 10**9


@pytest.fixture
def stamped():
    types = get_typestore(Stores.ROS2_JAZZY)
    return lambda stamp: header(types, stamp)


def points(*numbers):
    """Features of some points, each of which looks the same in every image and moves 3 px to the right."""
    descriptors = np.eye(8, dtype=np.float32)[list(numbers)]
    keypoints = np.array([[number * 10, 5] for number in numbers], np.float32)
    return Features(keypoints, np.ones(len(numbers), np.float32), descriptors, (96, 64))


def test_matches_are_those_of_consecutive_images(stamped):
    follower = Follower(Following())
    first = follower.take(points(0, 1, 2), stamped(SECOND))
    assert first.matches is None
    assert first.tracks['age'].tolist() == [1, 1, 1]
    second = follower.take(points(2, 3, 0), stamped(2 * SECOND))
    assert second.matches[['index0', 'index1']].tolist() == [(0, 2), (2, 0)]
    assert second.first.stamp.sec == 1
    assert second.tracks['age'].tolist() == [2, 1, 2]
    ids = dict(zip((0, 1, 2), first.tracks['id'].tolist(), strict=True))
    assert second.tracks['id'].tolist()[::2] == [ids[2], ids[0]]


def test_a_late_image_is_left_out_and_counted(stamped):
    follower = Follower(Following())
    follower.take(points(0, 1), stamped(5 * SECOND))
    assert follower.take(points(0, 1), stamped(5 * SECOND)) is None
    assert follower.take(points(0, 1), stamped(5 * SECOND - 1)) is None
    assert follower.late == 2
    step = follower.take(points(0, 1), stamped(6 * SECOND))
    assert step.tracks['age'].tolist() == [2, 2]
    assert step.first.stamp.sec == 5


def test_when_time_begins_anew_so_do_the_tracks(stamped):
    follower = Follower(Following())
    before = follower.take(points(0, 1), stamped(5 * SECOND))
    after = follower.take(points(0, 1), stamped(4 * SECOND))
    assert after.matches is None
    assert after.tracks['age'].tolist() == [1, 1]
    assert not set(after.tracks['id']) & set(before.tracks['id'])


def test_the_band_of_a_stereo_pair_does_not_hold_in_time(stamped):
    follower = Follower(Following(match_config=MatchConfig(epipolar_band=1.0)))
    follower.take(points(0), stamped(SECOND))
    moved = points(0)
    moved.keypoints[:] += (20, 7)
    assert follower.take(moved, stamped(2 * SECOND)).tracks['age'].tolist() == [2]
    assert clouds.TRACK.names == ('id', 'age', 'x', 'y', 'score')


def test_features_without_descriptors_cannot_be_followed(stamped):
    bare = Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.zeros((1, 0), np.float32), (96, 64))
    follower = Follower(Following())
    with pytest.raises(ValueError, match='descriptors'):
        follower.take(bare, stamped(SECOND))
