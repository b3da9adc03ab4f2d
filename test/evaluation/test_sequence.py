import cv2
import numpy as np
import pytest

from superpoint_ros.evaluation import sequence
from superpoint_ros.evaluation.methods import ModelsConfig, methods
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.features import Features

SETTING = Setting(size=(320, 240), keypoints=300, nms_radius=4)


def features(keypoints, descriptors):
    scores = np.linspace(1, 0, len(keypoints)).astype(np.float32)
    return Features(keypoints.astype(np.float32), scores, descriptors.astype(np.float32), (640, 480))


def test_matches_of_a_moving_camera_agree_except_the_wrong_ones():
    """Points at different depths seen by a camera that moves sideways, and a fifth of the descriptors swapped."""
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-2, 2, 100), rng.uniform(-1.5, 1.5, 100), rng.uniform(3, 9, 100)], axis=1)
    frame0 = 500 * points[:, :2] / points[:, 2:] + [320, 240]
    moved = np.add(points, [0.4, 0.05, 0.2])
    frame1 = 500 * moved[:, :2] / moved[:, 2:] + [320, 240]
    order = np.arange(100)
    order[:20] = np.roll(order[:20], 7)
    row = sequence.match_frames(features(frame0, np.eye(100)), features(frame1, np.eye(100)[order]))
    assert row['matches'] == 100
    assert 80 <= row['inliers'] <= 85  # a wrong match may lie on its epipolar line by chance
    assert row['inlier_ratio'] == row['inliers'] / 100


def test_no_features_give_no_matches():
    nothing, some = features(np.empty((0, 2)), np.empty((0, 8))), features(np.zeros((8, 2)), np.eye(8))
    for pair in ((nothing, some), (some, nothing), (nothing, nothing)):
        row = sequence.match_frames(*pair)
        assert (row['matches'], row['inliers'], row['inlier_ratio']) == (0, 0, 0)


@pytest.mark.parametrize('broken', [False, True])
def test_consecutive_frames_are_matched_and_a_broken_one_is_listed(tmp_path, broken):
    rng = np.random.default_rng(1)
    scene = cv2.GaussianBlur(rng.integers(0, 255, (260, 400), np.uint8), (0, 0), 2)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f'{i}.png'), scene[i : 240 + i, 5 * i : 320 + 5 * i])
    if broken:
        (tmp_path / '1.png').write_bytes(b'broken')
    compared = [method for method in methods(ModelsConfig(())) if method.describes]
    rows, failed = sequence.evaluate(sorted(tmp_path.iterdir()), compared, SETTING)
    assert len(failed) == broken
    rows = sequence.summarize(rows)
    assert {'SIFT', 'ORB'} <= {row['method'] for row in rows}
    for row in rows:
        assert row['pairs'] == (1 if broken else 3)
        assert row['inlier_ratio'] > 0.8
        assert row['fewest_inliers'] <= row['inliers'] <= row['matches']
