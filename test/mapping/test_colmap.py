"""COLMAP reads what is written, and finds the true cameras in it."""

import functools

import cv2
import numpy as np
import pytest

from superpoint_ros.features import Features
from superpoint_ros.matching import match

from . import scenes

pycolmap = pytest.importorskip('pycolmap', reason='needs pycolmap (the extra map)')
from superpoint_ros.evaluation.reconstruction import pose_errors  # noqa: E402
from superpoint_ros.mapping import colmap  # noqa: E402
from superpoint_ros.mapping.cameras import MAX_ERROR, CameraConfig  # noqa: E402
from superpoint_ros.mapping.extract import scale  # noqa: E402
from superpoint_ros.mapping.pairs import exhaustive  # noqa: E402

CAMERA = {'': CameraConfig('PINHOLE', scenes.COLMAP_PARAMS)}


@pytest.fixture
def scene(tmp_path):
    """Blank images, their features and their true poses; COLMAP reads nothing but the size and the colors of images."""
    rng = np.random.default_rng(1)
    truth = {f'{number}.png': pose for number, pose in enumerate(scenes.poses(6))}
    for name in truth:
        cv2.imwrite(str(tmp_path / name), np.zeros(scenes.SIZE[::-1], np.uint8))
    return tmp_path, {name: scenes.synthetic_features(pose, rng) for name, pose in truth.items()}, truth


@pytest.fixture
def database(scene):
    folder, features, _ = scene
    path = folder / 'database.db'
    assert colmap.add_images(path, folder, list(features), features.__getitem__, CAMERA) == {}
    colmap.match_pairs(path, features.__getitem__, exhaustive(list(features)), match, MAX_ERROR)
    return path


def test_colmap_has_every_keypoint_half_a_pixel_further(scene, database):
    _, features, _ = scene
    with pycolmap.Database.open(database) as opened:
        assert opened.num_images() == len(features)
        assert opened.num_cameras() == 1
        camera = opened.read_all_cameras()[0]
        for name, found in features.items():
            keypoints = opened.read_keypoints(opened.read_image_with_name(name).image_id)
            np.testing.assert_allclose(keypoints[:, :2], found.keypoints + 0.5, rtol=1e-6)
            # The same ray as that of our pixels, whose principal point is at (159.5, 119.5).
            ours = np.column_stack([found.keypoints, np.ones(len(found))]) @ np.linalg.inv(scenes.CAMERA).T
            np.testing.assert_allclose(camera.cam_from_img(keypoints[:, :2].astype(float)), ours[:, :2], atol=1e-6)


def test_matches_and_two_view_geometries_are_those_of_the_scene(scene, database):
    _, features, _ = scene
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for name0, name1 in exhaustive(list(features)):
            expected = match(features[name0], features[name1]).indices
            assert len(expected) > 100
            np.testing.assert_array_equal(opened.read_matches(ids[name0], ids[name1]), expected)
            geometry = opened.read_two_view_geometry(ids[name0], ids[name1])
            assert len(geometry.inlier_matches) > 0.95 * len(expected)
            assert geometry.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED.value


def test_the_mapper_finds_the_true_motion(scene, database, tmp_path):
    folder, _, truth = scene
    (part,) = colmap.reconstruct(database, folder, tmp_path / 'sparse', MAX_ERROR, refine_cameras=False)
    assert part.num_reg_images() == len(truth)
    assert part.compute_mean_reprojection_error() < 1e-3
    angles, distances = pose_errors(part, truth)
    assert angles.max() < 1e-3
    assert distances.max() < 1e-4
    assert pycolmap.Reconstruction(tmp_path / 'sparse' / '0').num_reg_images() == len(truth)
    assert '6 of 7 images registered' in colmap.describe(part, 7)


def test_a_pair_without_matches_is_kept_as_such(scene, database, tmp_path):
    folder, features, _ = scene
    empty = features['0.png'][:0]
    cv2.imwrite(str(folder / 'empty.png'), np.zeros(scenes.SIZE[::-1], np.uint8))
    assert colmap.add_images(database, folder, ['empty.png'], {'empty.png': empty}.get, CAMERA) == {}
    get = {**features, 'empty.png': empty}.__getitem__
    colmap.match_pairs(database, get, [('0.png', 'empty.png')], match, MAX_ERROR)
    assert len(colmap.read_matches(database, [('0.png', 'empty.png')])['0.png', 'empty.png']) == 0
    never = functools.partial(pytest.fail, 'matched again')
    colmap.match_pairs(database, get, [('0.png', 'empty.png'), ('0.png', '1.png')], never, MAX_ERROR)


@pytest.mark.parametrize(
    ('size', 'resize', 'expected'),
    [
        pytest.param((640, 480), 1600, 2.0, id='doubled'),
        pytest.param((1000, 1280), 1600, 1.25, id='enlarged to the size'),
        pytest.param((4000, 3000), 1600, 0.4, id='shrunk'),
        pytest.param((4000, 3000), 0, 1.0, id='kept'),
    ],
)
def test_the_scale_is_that_of_the_image_that_the_network_sees(size, resize, expected):
    assert scale(size, resize) == expected


def test_the_largest_images_are_those_with_the_longest_side(tmp_path):
    names = ['wide.png', 'high.png', 'small.png']
    for name, shape in zip(names, [(50, 90), (100, 40), (60, 60)], strict=True):
        cv2.imwrite(str(tmp_path / name), np.zeros(shape, np.uint8))
    each = {'': CameraConfig(camera_mode='per_image')}
    empty = np.zeros((0, 2), np.float32)
    none = Features(empty, np.zeros(0, np.float32), empty, (60, 60))
    assert colmap.add_images(tmp_path / 'sizes.db', tmp_path, names, lambda _: none, each) == {}
    assert colmap.largest_size(tmp_path / 'sizes.db') == (40, 100)


def test_an_image_of_another_size_than_its_camera_is_named(scene, tmp_path):
    folder, features, _ = scene
    cv2.imwrite(str(folder / '3.png'), np.zeros((100, 100), np.uint8))
    failed = colmap.add_images(tmp_path / 'other.db', folder, list(features), features.__getitem__, CAMERA)
    assert list(failed) == ['3.png']
    assert str(folder / '3.png') in failed['3.png']


def test_nothing_to_reconstruct_gives_no_parts(scene, tmp_path):
    folder, features, _ = scene
    colmap.add_images(tmp_path / 'other.db', folder, list(features), features.__getitem__, CAMERA)
    assert colmap.reconstruct(tmp_path / 'other.db', folder, tmp_path / 'sparse', MAX_ERROR) == []
