from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from superpoint_ros import clouds
from superpoint_ros.demo.monitor import Counts, Frame
from superpoint_ros.demo.summary import caption, summarize, text, verified


@pytest.fixture
def frame():
    """Matches of a camera that moves sideways before points at random depths; the last ten of sixty are wrong."""
    rng = np.random.default_rng(0)
    points0 = rng.uniform(0, 400, (60, 2))
    points1 = points0 + np.stack([rng.uniform(5, 60, 60), np.zeros(60)], axis=1)
    points1[50:, 1] += rng.uniform(20, 100, 10)
    matches = np.zeros(60, clouds.MATCH)
    for index, points in enumerate((points0, points1)):
        matches[f'x{index}'], matches[f'y{index}'] = points.T
    return Frame(matches=matches)


def test_without_known_motion_matches_are_right_if_they_agree_with_one_geometry(frame):
    right = verified(frame).right
    assert right[:50].all()
    assert not right[50:].any()


def test_known_motion_and_missing_matches_are_left_alone(frame):
    known = replace(frame, right=np.zeros(60, bool))
    assert verified(known) is known
    assert verified(Frame()).right is None


def test_the_summary_says_how_many_matches_agree(frame):
    counts = Counts([0, 0.1], [0, 0.1], [0.02, 0.03], [100, 100], [60, 60], [3])
    facts = {'model': 'tiny', 'back end': 'openvino', 'precision': 'int8', 'device': 'CPU'}
    result = summarize(counts, facts, [Frame(), verified(frame)])
    assert result['matches_agreeing'] == pytest.approx(50 / 60, abs=1e-4)
    assert result['rate_hz'] == 10
    assert '83.3% agree with one geometry to 2 px' in text(result)


def test_a_latency_that_is_unknown_is_not_given(frame):
    counts = Counts([0, 0.1], [0, 0.1], [], [100, 100], [60, 60], [3])
    facts = {'model': 'tiny', 'back end': 'openvino', 'precision': 'int8', 'device': 'CPU'}
    result = summarize(counts, facts, [verified(frame)])
    assert result['latency_median_ms'] is None
    assert 'latency    unknown' in text(result)
    assert ' ms' not in caption(result)
    assert 'latency unknown' in counts.line()
