from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros.features import Features, Matches
from superpoint_ros.matching import MatchConfig, Matcher, match
from superpoint_ros.stream_tracker import Frame, StreamTracker


def frame(stamp, *numbers, publishers=(), checksum='', size=(96, 64), dimensions=8):
    """Frame at a time in seconds. Each number is a point that keeps its descriptor."""
    nanoseconds = round(stamp * 1e9)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9))
    descriptors = np.eye(dimensions, dtype=np.float32)[list(numbers)]
    keypoints = np.array([[number * 10, 5] for number in numbers], np.float32)
    features = Features(keypoints, np.ones(len(numbers), np.float32), descriptors, size, checksum)
    return Frame(header, features, frozenset(publishers))


def test_consecutive_frames_match_where_tracks_continue():
    tracker = StreamTracker()
    first = frame(1, 0, 1, 2)
    step = tracker.update(first)
    assert step.match() is None
    assert step.tracks.ages.tolist() == [1, 1, 1]
    ids = step.tracks.ids
    step = tracker.update(frame(2, 2, 3, 0))
    assert step.tracks.ages.tolist() == [2, 1, 2]
    assert step.tracks.ids[[0, 2]].tolist() == [ids[2], ids[0]]
    before, matches = step.match()
    assert before is first
    assert matches.indices.tolist() == [[0, 2], [2, 0]]
    np.testing.assert_allclose(matches.similarities, 1)


def test_late_frames_are_skipped_and_counted():
    tracker = StreamTracker()
    first = frame(5, 0, 1)
    tracker.update(first)
    assert tracker.update(first) is None
    assert tracker.update(frame(5, 0, 1)) is None
    assert tracker.update(frame(4.1, 0, 1)) is None
    assert tracker.stream.late == 3
    step = tracker.update(frame(6, 0, 1))
    assert step.tracks.ages.tolist() == [2, 2]
    assert step.match()[0] is first


KNOWN = {'publishers': 'a', 'checksum': 'abc', 'size': (96, 64)}


@pytest.mark.parametrize(
    ('stamp', 'change', 'reason'),
    [
        (4, {}, 'the clock jumped back by 1.0 s'),
        (6, {'publishers': 'b'}, 'the publisher changed'),
        (6, {'publishers': 'ab'}, 'the publisher changed'),
        (6, {'checksum': 'def'}, 'the model changed'),
        (6, {'checksum': ''}, 'the model changed'),
        (6, {'size': (64, 96)}, 'the image size changed from 96×64 to 64×96'),
        (6, {'dimensions': 9}, 'the descriptor size changed from 8 to 9'),
        (3, {'publishers': 'b', 'checksum': 'def'}, 'the publisher changed'),
    ],
)
def test_a_restart_forgets_tracks_and_reference_but_not_identities(stamp, change, reason):
    tracker = StreamTracker()
    before = tracker.update(frame(5, 0, 1, **KNOWN))
    tracker.reference = tracker.stream.last
    after = tracker.update(frame(stamp, 0, 1, **(KNOWN | change)))
    assert after.restart == reason
    assert tracker.stream.restarts == 1
    assert after.match() is None
    assert tracker.reference is None
    assert after.tracks.ages.tolist() == [1, 1]
    assert not set(after.tracks.ids) & set(before.tracks.ids)
    assert tracker.update(frame(stamp + 1, 0, 1, **(KNOWN | change))).tracks.ages.tolist() == [2, 2]


def test_facts_that_become_known_do_not_restart_the_stream():
    tracker = StreamTracker()
    tracker.update(frame(1, 0, size=(0, 0)))
    step = tracker.update(frame(2, 0, **KNOWN))
    assert step.restart == ''
    assert step.tracks.ages.tolist() == [2]
    assert tracker.update(frame(3, 0, **(KNOWN | {'publishers': ''}))).restart == ''


def test_a_reference_frame_is_matched_with_every_later_frame():
    tracker = StreamTracker(MatchConfig(window=5.0))
    reference = frame(1, 0, 1)
    tracker.update(reference)
    tracker.reference = reference
    tracker.update(frame(2, 2))
    far = frame(3, 1)
    far.features.keypoints[:] += 40
    first, matches = tracker.update(far).match()
    assert first is reference
    assert matches.indices.tolist() == [[1, 0]], 'the window does not hold for a reference frame'
    tracker.reference = None
    assert tracker.update(frame(4, 1)).match()[0] is far


def test_a_matcher_replaces_the_matches_but_not_the_tracks():
    seen = []

    def one_pair(features0: Features, features1: Features) -> Matches:
        seen.append((features0, features1))
        return Matches(np.array([[1, 0]], np.uint32), np.array([0.5], np.float32))

    matcher: Matcher = one_pair
    tracker = StreamTracker(matcher=matcher)
    first, second, third = frame(1, 0, 1), frame(2, 0, 1), frame(3, 0, 1)
    tracker.update(first)
    step = tracker.update(second)
    assert step.tracks.ages.tolist() == [2, 2]
    assert step.match()[1].indices.tolist() == [[1, 0]]
    tracker.reference = first
    assert tracker.update(third).match()[0] is first
    assert seen == [(first.features, second.features), (first.features, third.features)]


def test_nearest_neighbors_are_a_matcher():
    matcher: Matcher = partial(match, config=MatchConfig(min_similarity=0.9))
    assert matcher(frame(1, 0, 1).features, frame(2, 1, 2).features).indices.tolist() == [[1, 0]]


def test_the_epipolar_band_of_a_stereo_pair_does_not_apply_to_tracks():
    tracker = StreamTracker(MatchConfig(epipolar_band=1.0))
    tracker.update(frame(1, 0))
    moved = frame(2, 0)
    moved.features.keypoints[:] += (20, 7)
    assert tracker.update(moved).tracks.ages.tolist() == [2]


def test_reset_forgets_frames_but_not_identities():
    tracker = StreamTracker()
    before = tracker.update(frame(5, 0))
    tracker.reset()
    after = tracker.update(frame(1, 0))
    assert (after.restart, after.match()) == ('', None)
    assert after.tracks.ids[0] == before.tracks.ids[0] + 1


def test_features_without_descriptors_are_refused_and_change_nothing():
    tracker = StreamTracker()
    tracker.update(frame(1, 0))
    bare = frame(2, 0)
    bare = replace(bare, features=replace(bare.features, descriptors=np.zeros((1, 0), np.float32)))
    with pytest.raises(ValueError, match='without descriptors'):
        tracker.update(bare)
    assert tracker.update(frame(3, 0)).tracks.ages.tolist() == [2]


def test_a_reference_that_is_set_while_a_frame_is_processed_counts_from_the_next_one():
    tracker = StreamTracker()
    first, second = frame(1, 0, 1), frame(2, 0, 1)
    tracker.update(first)
    step = tracker.update(second)
    tracker.reference = tracker.stream.last
    assert step.match()[0] is first
    assert tracker.update(frame(3, 0, 1)).match()[0] is second


def test_a_frame_that_the_matcher_refuses_has_tracks():
    def refuse(features0, features1):
        raise ValueError('other features')

    tracker = StreamTracker(matcher=refuse)
    tracker.update(frame(1, 0))
    step = tracker.update(frame(2, 0))
    assert step.tracks.ages.tolist() == [2]
    with pytest.raises(ValueError, match='other features'):
        step.match()
