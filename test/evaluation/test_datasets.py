import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.evaluation import datasets
from superpoint_ros.evaluation.datasets import Pair
from superpoint_ros.geometry import transform_points

HOMOGRAPHY = np.array([[0.9, -0.1, 14.0], [0.12, 1.05, -6.0], [2e-4, -1e-4, 1.0]])


def blobs(size, centers, sigma=3.0):
    """An image with a bright Gaussian at each center."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    total = np.zeros(x.shape)
    for cx, cy in centers:
        total += 200 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return np.rint(total).clip(0, 255).astype(np.uint8)


def centroid(image, near, radius=12):
    """The center of mass of the brightness around a position."""
    left, top = (max(round(float(v)) - radius, 0) for v in near)
    window = image[top : top + 2 * radius + 1, left : left + 2 * radius + 1].astype(float)
    y, x = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]]
    return np.array([(x * window).sum(), (y * window).sum()]) / window.sum()


def write_scene(folder, suffix='.ppm', numbers=(1, 2, 3), names=('{}', 'H_1_{}')):
    folder.mkdir(parents=True)
    for number in numbers:
        image = np.full((60, 80, 3), 10 * number, np.uint8)
        assert cv2.imwrite(str(folder / f'{names[0].format(number)}{suffix}'), image)
        if number > 1:
            np.savetxt(folder / names[1].format(number), HOMOGRAPHY * number)
    return folder


class TestFit:
    @pytest.mark.parametrize(('size', 'to'), [((200, 150), (100, 75)), ((200, 200), (96, 64)), ((90, 160), (128, 96))])
    def test_a_blob_is_where_the_transform_says(self, size, to):
        center = np.array([size[0] * 0.45, size[1] * 0.55])
        image, transform = datasets.fit(blobs(size, [center], sigma=4.0), to)
        assert image.shape == (to[1], to[0])
        expected = transform_points(transform, center)
        np.testing.assert_allclose(centroid(image, expected), expected, atol=0.1)

    def test_the_aspect_ratio_stays_within_rounding(self):
        _, transform = datasets.fit(np.zeros((333, 500), np.uint8), (320, 240))
        assert transform[0, 0] == pytest.approx(transform[1, 1], rel=0.01)

    def test_an_image_of_the_right_size_is_unchanged(self):
        image = np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)
        fitted, transform = datasets.fit(image, (64, 48))
        np.testing.assert_array_equal(fitted, image)
        np.testing.assert_allclose(transform, np.eye(3))


@pytest.mark.parametrize(('size', 'to'), [((200, 100), (100, 50)), ((90, 181), (50, 100)), ((60, 40), (60, 40))])
def test_a_shrunk_image_has_its_blob_where_the_transform_says(size, to):
    center = np.array([size[0] * 0.45, size[1] * 0.55])
    image, transform = datasets.shrink(blobs(size, [center], sigma=4.0), 100)
    assert image.shape == (to[1], to[0])
    expected = transform_points(transform, center)
    np.testing.assert_allclose(centroid(image, expected), expected, atol=0.1)


def test_a_fitted_pair_has_the_homography_between_its_images():
    """The two images are resized and cropped differently; corresponding blobs must still correspond."""
    centers = np.array([[80.0, 60.0], [150.0, 100.0], [100.0, 130.0]])
    image0 = blobs((240, 180), centers)
    image1 = blobs((300, 300), transform_points(HOMOGRAPHY, centers))
    pair = Pair('pair', '', image0, image1, HOMOGRAPHY).fitted((160, 120))
    transform0 = datasets.fit(image0, (160, 120))[1]
    for center in transform_points(transform0, centers):
        expected = transform_points(pair.homography, center)
        np.testing.assert_allclose(centroid(pair.image1, expected, radius=8), expected, atol=0.25)


class TestHPatches:
    def test_reads_every_scene_and_its_split(self, tmp_path):
        write_scene(tmp_path / 'i_dark')
        write_scene(tmp_path / 'v_wall', numbers=(1, 2))
        pairs = [load() for load in datasets.hpatches(tmp_path)]
        assert [(p.name, p.split) for p in pairs] == [
            ('i_dark_2', 'illumination'), ('i_dark_3', 'illumination'), ('v_wall_2', 'viewpoint'),
        ]  # fmt: skip
        assert [int(p.image1[0, 0]) for p in pairs] == [20, 30, 20]
        np.testing.assert_allclose(pairs[1].homography, 3 * HOMOGRAPHY)

    @pytest.mark.parametrize('suffix', ['.ppm', '.png', '.JPG'])
    def test_reads_the_layout_with_h1to2p_and_any_image_format(self, tmp_path, suffix):
        write_scene(tmp_path / 'graf', suffix, names=('img{}', 'H1to{}p'))
        pairs = [load() for load in datasets.hpatches(tmp_path / 'graf')]
        assert [(p.name, p.split, p.image0.shape) for p in pairs] == [
            ('graf_2', '', (60, 80)), ('graf_3', '', (60, 80)),
        ]  # fmt: skip

    def test_a_folder_without_scenes_is_an_error_that_names_the_expected_layout(self, tmp_path):
        with pytest.raises(ValueError, match='H_1_2'):
            datasets.hpatches(tmp_path)
        with pytest.raises(ValueError, match='no such folder'):
            datasets.hpatches(tmp_path / 'missing')

    def test_a_broken_homography_is_named(self, tmp_path):
        scene = write_scene(tmp_path / 'v_x', numbers=(1, 2))
        (load,) = datasets.hpatches(tmp_path)
        for text in ('1 2 3\n4 5 6', 'one two', '1 0 0\n0 1 0\n0 0 0', '1 0 0\n0 nan 0\n0 0 1'):
            (scene / 'H_1_2').write_text(text)
            with pytest.raises(ValueError, match='H_1_2'):
                load()

    def test_a_missing_or_broken_image_is_named(self, tmp_path):
        scene = write_scene(tmp_path / 'v_x', numbers=(1, 2))
        (load,) = datasets.hpatches(tmp_path)
        (scene / '2.ppm').write_bytes(b'not an image')
        with pytest.raises(ValueError, match=r'2\.ppm'):
            load()
        (scene / '2.ppm').unlink()
        with pytest.raises(ValueError, match='no image 2'):
            load()


class TestRandomPairs:
    @pytest.fixture
    def photographs(self, tmp_path):
        rng = np.random.default_rng(5)
        for name in ('a.png', 'b.png'):
            image = cv2.GaussianBlur(rng.integers(0, 255, (120, 160), np.uint8), (0, 0), 2)
            cv2.imwrite(str(tmp_path / name), cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX))
        return tmp_path

    def test_depend_only_on_the_seed_and_the_file_name(self, photographs):
        def load(seed, name='a.png'):
            pairs = [load() for load in datasets.random_pairs(photographs, seed, (128, 96))]
            return next(pair for pair in pairs if pair.name == name)

        first = load(1)
        (photographs / 'b.png').unlink()  # the other files do not matter
        again = load(1)
        np.testing.assert_array_equal(first.image1, again.image1)
        np.testing.assert_array_equal(first.homography, again.homography)
        assert not np.allclose(load(2).homography, first.homography)

    def test_show_the_same_points_at_positions_given_by_the_homography(self, photographs, monkeypatch):
        monkeypatch.setattr(datasets, 'photometric', lambda image, *_: image)
        pair = datasets.random_pairs(photographs, 0, (128, 96))[0]()
        x, y = np.meshgrid(np.arange(128.0), np.arange(96.0))
        mapped = transform_points(pair.homography, np.stack([x, y], axis=-1))
        inside = np.all((mapped > 1) & (mapped < [126, 94]), axis=-1)
        seen = cv2.remap(pair.image1, mapped.astype(np.float32), None, cv2.INTER_LINEAR)
        difference = np.abs(seen.astype(float) - pair.image0)[inside]
        assert np.median(difference) < 4  # two interpolations; a shift by one pixel gives more than 10
        wrong = np.abs(np.roll(seen, 1, axis=1).astype(float) - pair.image0)[inside]
        assert np.median(wrong) > 2 * np.median(difference)

    def test_a_broken_photograph_is_named(self, photographs):
        (photographs / 'c.jpg').write_bytes(b'')
        with pytest.raises(ValueError, match=r'c\.jpg'):
            datasets.random_pairs(photographs)[2]()

    def test_an_empty_folder_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no images'):
            datasets.random_pairs(tmp_path)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_random_homographies_keep_half_of_the_image_in_view(seed):
    size = (320, 240)
    homography = datasets.random_homography(np.random.default_rng(seed), size)
    assert np.linalg.det(homography) > 0  # no mirror images
    x, y = np.meshgrid(np.arange(0, 320, 8.0), np.arange(0, 240, 8.0))
    mapped = transform_points(homography, np.stack([x, y], axis=-1).reshape(-1, 2))
    assert np.mean(np.all((mapped >= 0) & (mapped < size), axis=1)) > 0.45


def test_a_photograph_whose_name_is_not_utf_8_gives_a_pair(tmp_path):
    data = cv2.imencode('.png', np.zeros((48, 64), np.uint8))[1].tobytes()
    (tmp_path / os.fsdecode(b'\xff.png')).write_bytes(data)
    (load,) = datasets.random_pairs(tmp_path, size=(64, 48))
    assert load().image1.shape == (48, 64)
