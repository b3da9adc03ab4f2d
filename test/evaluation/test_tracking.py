from functools import partial

import cv2
import numpy as np
import pytest

from superpoint_ros.evaluation import baselines, tracking
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.features import Features
from superpoint_ros.geometry import transform_points
from superpoint_ros.matching import MatchConfig
from superpoint_ros.tracking import Tracker, TrackerConfig

SIZE = (320, 240)


@pytest.fixture
def photograph():
    rng = np.random.default_rng(0)
    picture = np.full((240, 320), 128, np.uint8)
    for _ in range(150):
        x, y, w, h = (int(v) for v in rng.integers([0, 0, 6, 6], [310, 230, 50, 50]))
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(40, 216)), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1)


def test_homographies_belong_to_their_frames(photograph):
    """Frames warped back by their homographies are most similar to the first frame, less so with an error of 1 px."""
    clip = tracking.moving_camera(photograph, np.random.default_rng(1), 12, 6, SIZE)
    inside = np.s_[70:170, 100:220]

    def likeness(frame, homography, x, y):
        back = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ clip.homographies[0] @ np.linalg.inv(homography)
        seen = cv2.warpPerspective(frame, back, SIZE)[inside]
        return np.corrcoef(seen.ravel(), clip.frames[0][inside].ravel())[0, 1]

    for frame, homography in zip(clip.frames, clip.homographies, strict=True):
        shifted = [likeness(frame, homography, x, y) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        assert likeness(frame, homography, 0, 0) > max(shifted)
    moved = transform_points(clip.homographies[-1], np.array([[160.0, 120]]))
    still = transform_points(clip.homographies[0], np.array([[160.0, 120]]))
    assert np.linalg.norm(moved - still) > 5, 'the camera moves'


def tracker_at(similarity):
    return partial(Tracker, TrackerConfig(), MatchConfig(min_similarity=similarity))


def test_both_trackers_track_a_slow_camera(photograph):
    clip = tracking.moving_camera(photograph, np.random.default_rng(1), 16, 60, SIZE)
    sift = baselines.descriptors()['SIFT'](Setting(size=SIZE, keypoints=200, nms_radius=0))
    flow, strict, loose = tracking.compare([clip], sift, [tracker_at(0.95), tracker_at(0.5)])
    for row in (flow, strict, loose):
        assert row['points'] > 50
        assert row['right_length'] == pytest.approx(row['length'] * row['right'])
    assert flow['length'] > 8
    assert flow['right'] > 0.95
    assert strict['right'] > 0.95
    assert strict['length'] < loose['length'], 'a lower threshold finds more'
    assert strict['right'] > loose['right'], 'and more that is wrong'


def still_clip(frames, homographies):
    return tracking.Clip([np.zeros((240, 320), np.uint8)] * frames, homographies)


def test_counts_worked_out_by_hand():
    """Four points; the camera moves 10 px a frame: the third leaves the image, the fourth is found wrongly."""
    keypoints = np.array([[100, 100], [50, 50], [305, 100], [200, 200]], np.float32)
    shift = np.array([10, 0], np.float32)
    clip = still_clip(3, [np.array([[1, 0, 10.0 * t], [0, 1, 0], [0, 0, 1]]) for t in range(3)])
    found = np.stack([keypoints + shift, keypoints + 2 * shift], axis=1)
    found[1, 1] = found[2, 1] = np.nan
    found[3] += 4
    counts = tracking.score(clip, 0, keypoints, found)
    assert counts == {'points': 4, 'found': 6, 'right': 4, 'visible': 7}
    row = tracking.summarize([counts, counts])
    assert (row['points'], row['length'], row['right_length']) == (4, 1.5, 1.0)
    assert row['right'] == pytest.approx(4 / 6)
    assert row['recall'] == pytest.approx(4 / 7)


def test_without_ground_truth_right_points_agree_with_the_others():
    rng = np.random.default_rng(2)
    space = rng.uniform((-2, -1.5, 3), (2, 1.5, 8), (80, 3))
    keypoints = (300 * space[:, :2] / space[:, 2:] + [160, 120]).astype(np.float32)
    seen = space + np.array([0.3, 0.05, 0.1])
    found = (300 * seen[:, :2] / seen[:, 2:] + [160, 120]).astype(np.float32)[:, None]
    found[:20] += rng.choice([-30, 30], (20, 1, 2))
    counts = tracking.score(still_clip(2, None), 0, keypoints, found)
    assert counts['found'] == 80
    assert 60 <= counts['right'] <= 64
    assert np.isnan(counts['visible'])
    assert np.isnan(tracking.summarize([counts])['recall'])


def test_no_keypoints_to_track():
    clip = still_clip(12, [np.eye(3)] * 12)
    nothing = Features(np.empty((0, 2), np.float32), np.empty(0, np.float32), np.empty((0, 8), np.float32), SIZE)
    for row in tracking.compare([clip], lambda _: nothing, [tracker_at(0.7)]):
        assert (row['points'], row['length'], row['right']) == (0, 0, 0)
