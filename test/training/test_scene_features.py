"""Features of scenes: which keypoints are partners, and files that are made once."""

import cv2
import numpy as np
import pytest

from superpoint_ros.features import Features
from superpoint_ros.training import scene_features
from superpoint_ros.training.scene_features import NONE, UNSURE, SceneFeatures, ScenesConfig, obtain, partners
from superpoint_ros.training.scenes import SceneConfig, camera_matrix, render_triangles

SMALL = ScenesConfig(scene=SceneConfig(planes=0.0), count=3, views=3, keypoints=50)


@pytest.fixture(scope='module')
def photographs(photographs):
    return sorted(photographs.iterdir())[:3]


def features_at(points):
    count = len(points)
    descriptors = np.eye(max(count, 1), 8, dtype=np.float32)[:count]
    return Features(np.array(points, np.float32).reshape(-1, 2), np.ones(count, np.float32), descriptors, (101, 81))


def wall_seen_from(shift):
    """A view of a wall at depth 2 from a camera with focal length 100, moved to the right."""
    corners = np.array([[-99.0, -99, 2], [99, -99, 2], [99, 99, 2]]).T
    backdrop = np.array([[-99.0, -99, 4], [99, -99, 4], [99, 99, 4]]).T
    return render_triangles(
        camera_matrix(100, (101, 81)) @ (np.stack([corners, backdrop]) - [[shift], [0], [0]]), (101, 81)
    )


def test_partners_are_near_in_both_views():
    views = [wall_seen_from(0.0), wall_seen_from(0.2)]  # points move left by 10 pixels
    first = features_at([(30, 20), (50, 20), (70, 20), (5, 20)])
    second = features_at([(64, 20), (42, 20), (20, 20), (22, 20), (95, 60)])
    found = partners([first, second], views, 6)
    # (30, 20) is at (20, 20); (50, 20) at (40, 20), 2 px from a keypoint; (70, 20) at (60, 20), 4 px from one, which
    # neither makes a match nor excludes one; (5, 20) leaves the image.
    assert found[0, 1].tolist() == [2, 1, UNSURE, NONE, NONE, NONE]
    assert found[1, 0].tolist() == [UNSURE, 1, 0, UNSURE, NONE, NONE]
    assert (found[[0, 1], [0, 1]] == NONE).all()


def test_views_without_keypoints_have_no_partners():
    views = [wall_seen_from(0.0), wall_seen_from(0.2)]
    assert (partners([features_at([]), features_at([(30, 20)])], views, 4) == NONE).all()


def test_a_scene_is_read_as_it_was_saved(tmp_path):
    rng = np.random.default_rng(0)
    features = [features_at(rng.uniform(0, 80, (count, 2))) for count in (5, 0, 7)]
    found = rng.integers(-2, 7, (3, 3, 7)).astype(np.int16)
    scene_features.save(tmp_path / 'scene.npz', SceneFeatures(features, found))
    again = scene_features.read(tmp_path / 'scene.npz')
    assert np.array_equal(again.partners, found)
    for one, other in zip(features, again.features, strict=True):
        assert one.image_size == other.image_size
        for name in ('keypoints', 'scores', 'descriptors'):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1 / 127)
    assert [path.name for path in tmp_path.iterdir()] == ['scene.npz']


def test_a_broken_file_of_a_scene_is_named(tmp_path):
    path = tmp_path / '000001.npz'
    for content in (b'', b'no zip'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'000001\.npz: not a file of scene features \(.*\); delete it'):
            scene_features.read(path)


def test_scenes_are_made_once_and_only_what_is_missing(photographs, tiny_model, tmp_path):
    paths = obtain(photographs, str(tiny_model), SMALL, tmp_path, workers=0)
    assert len(paths) == 3
    first = paths[0].read_bytes()
    written = paths[1].stat().st_mtime_ns
    paths[0].unlink()
    assert obtain(photographs, str(tiny_model), SMALL, tmp_path, workers=0) == paths
    assert paths[0].read_bytes() == first, 'a scene is a function of its number and the seed'
    assert paths[1].stat().st_mtime_ns == written
    scene = scene_features.read(paths[0])
    assert [len(features) for features in scene.features] == [50, 50, 50]
    assert (scene.partners >= 0).any()


def test_other_settings_and_photographs_have_other_files(photographs, tiny_model, tmp_path):
    one = ScenesConfig(scene=SMALL.scene, count=1, views=2, keypoints=10)
    other = ScenesConfig(scene=SMALL.scene, count=1, views=2, keypoints=11)
    others = [tmp_path / 'others' / path.name for path in photographs]
    others[0].parent.mkdir()
    for path in others:
        cv2.imwrite(str(path), np.random.default_rng(5).integers(0, 256, (120, 160)).astype(np.uint8))
    folders = {
        obtain(some, str(tiny_model), config, tmp_path, workers=0)[0].parent
        for some, config in ((photographs, one), (photographs, other), (photographs[:2], one), (others, one))
    }
    assert len(folders) == 4


def test_a_photograph_that_cannot_be_read_is_named(photographs, tiny_model, tmp_path):
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'hello')
    with pytest.raises(ValueError, match=r'broken\.png'):
        obtain([broken], str(tiny_model), SMALL, tmp_path / 'cache', workers=0)


def test_partners_agree_with_what_the_images_show(photographs, tiny_model):
    """Keypoints that are partners lie at about the same gray in views without photometric changes."""
    from superpoint_ros.extractor import Extractor
    from superpoint_ros.training.photometric import PhotometricConfig

    extractor = Extractor(str(tiny_model), max_keypoints=200, threads=1)
    plain = PhotometricConfig(*[0.0] * len(PhotometricConfig.__dataclass_fields__))
    images = []

    def extract(image):
        images.append(cv2.GaussianBlur(image, (0, 0), 2))
        return extractor(image)

    photograph, backdrop = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in photographs[:2])
    config = ScenesConfig(scene=SceneConfig(planes=0.0), photometric=plain, views=3, keypoints=200)
    scene = scene_features.make(np.random.default_rng(1), photograph, backdrop, extract, config)
    pairs = []
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        rows = np.flatnonzero(scene.partners[i, j] >= 0)
        chosen = ((i, rows), (j, scene.partners[i, j, rows]))
        pixels = [np.rint(scene.features[view].keypoints[some]).astype(int).T[::-1] for view, some in chosen]
        pairs.append(
            [images[view][tuple(where)].astype(float) for (view, _), where in zip(chosen, pixels, strict=True)]
        )
    gray0, gray1 = np.concatenate(pairs, axis=1)
    assert len(gray0) > 30
    assert np.median(np.abs(gray0 - gray1)) < 0.4 * np.median(np.abs(gray0 - gray1[::-1]))
