"""Reconstructions are compared with true poses."""

from functools import partial

import cv2
import numpy as np
import pytest

from superpoint_ros.evaluation.pose_pairs import PosePair
from superpoint_ros.matching import MatchConfig, match

from . import scenes

pycolmap = pytest.importorskip('pycolmap', reason='needs pycolmap (the extra map)')
from superpoint_ros.evaluation import reconstruction  # noqa: E402


def pair(name0, name1, pose0, pose1):
    return PosePair((name0, name1), (0, 0), (scenes.CAMERA, scenes.CAMERA), pose1 @ np.linalg.inv(pose0))


def test_poses_of_pairs_are_chained_scene_by_scene():
    poses = scenes.poses(5)
    names = [f'{number}.png' for number in range(5)]
    pairs = [pair(names[i], names[j], poses[i], poses[j]) for i, j in ((1, 0), (1, 2), (4, 3))]
    first, second = reconstruction.scenes(pairs)
    assert set(first) == {'0.png', '1.png', '2.png'}
    assert set(second) == {'3.png', '4.png'}
    expected = poses[2] @ np.linalg.inv(poses[0])
    np.testing.assert_allclose(first['2.png'] @ np.linalg.inv(first['0.png']), expected, atol=1e-12)


def test_errors_are_those_after_the_best_similarity_transform():
    truth = {f'{number}.png': pose for number, pose in enumerate(scenes.poses(8))}
    part = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=8))
    found = dict(zip(sorted(truth), sorted(part.reg_image_ids()), strict=True))
    rotation, _ = cv2.Rodrigues(np.array([0.3, -0.8, 0.5]))
    for name, number in found.items():  # another world: turned, three times as large, and moved
        matrix = truth[name][:3, :3] @ rotation.T, 3 * truth[name][:3, 3] - truth[name][:3, :3] @ rotation.T @ [1, 2, 3]
        image = part.image(number)
        image.name = name
        image.frame.set_cam_from_world(
            image.camera_id, pycolmap.Rigid3d(pycolmap.Rotation3d(matrix[0]), matrix[1][:, None])
        )
    angles, distances = reconstruction.pose_errors(part, truth)
    np.testing.assert_allclose(angles, 0, atol=1e-4)
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    truth['3.png'] = truth['3.png'].copy()
    truth['3.png'][:3, :3] = cv2.Rodrigues(np.array([0, np.radians(5), 0]))[0] @ truth['3.png'][:3, :3]
    truth['3.png'][:3, 3] = cv2.Rodrigues(np.array([0, np.radians(5), 0]))[0] @ truth['3.png'][:3, 3]
    angles, distances = reconstruction.pose_errors(part, truth)
    assert angles[3] == pytest.approx(5, abs=1e-3)
    assert distances.max() < 1e-6


def test_a_model_is_measured_beside_sift(tmp_path):
    pytest.importorskip('openvino', reason='needs OpenVINO to run the model')
    from superpoint_ros.extractor import Extractor

    poses = scenes.poses(4)
    names = [f'{number}.png' for number in range(4)]
    for name, pose in zip(names, poses, strict=True):
        cv2.imwrite(str(tmp_path / name), scenes.room(pose))
    pairs = [pair(names[i], names[i + 1], poses[i], poses[i + 1]) for i in range(3)]
    models = {'lite': Extractor('superpoint_lite', resize=640, max_keypoints=1000)}
    matcher = partial(match, config=MatchConfig(max_ratio=0.9))
    table = reconstruction.measure(pairs, tmp_path, models, matcher, tmp_path / 'out')
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('| 0.png')
    ]
    assert [row[1] for row in rows] == ['lite', reconstruction.SIFT]
    for row in rows:
        assert row[2:4] == ['4', '4']
        assert float(row[7]) < 1  # degrees
        assert float(row[8]) < 0.1  # of an arc of 4
    assert (tmp_path / 'out' / 'reconstruction.json').exists()


def test_the_options_of_models_reach_their_extractors(tmp_path, monkeypatch):
    pytest.importorskip('openvino', reason='needs OpenVINO to run the model')
    from superpoint_ros.commands import evaluate
    from superpoint_ros.evaluation.methods import ModelsConfig

    numbers = ' '.join(map(str, [*scenes.CAMERA.ravel(), *scenes.CAMERA.ravel(), *scenes.poses(2)[1].ravel()]))
    (tmp_path / 'pairs.txt').write_text(f'0.png 1.png 0 0 {numbers}\n')
    monkeypatch.setattr(reconstruction, 'measure', lambda _pairs, _folder, extractors, *_: extractors)
    models = ModelsConfig(('superpoint_lite',), 'openvino', 'fp32', False, 2)
    (extractor,) = evaluate.reconstruction(tmp_path / 'pairs.txt', tmp_path, models=models, resize=800).values()
    assert (extractor.config.octaves, extractor.config.resize) == (2, 800)
    assert (extractor.decode_config.subpixel, extractor.runtime.precision) == (False, 'fp32')
