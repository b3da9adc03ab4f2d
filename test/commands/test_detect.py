import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from superpoint_ros.commands.detect import detect
from superpoint_ros.commands.match import match
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features


@pytest.fixture(scope='module')
def picture():
    """Something with corners."""
    rng = np.random.default_rng(0)
    image = np.full((120, 160), 90, np.uint8)
    for _ in range(25):
        corner, size = rng.integers(0, 110, 2), rng.integers(12, 50, 2)
        cv2.rectangle(image, corner.tolist(), (corner + size).tolist(), int(rng.integers(256)), -1)
    return image


@pytest.fixture
def folder(tmp_path, picture):
    (tmp_path / 'images' / 'more').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), picture)
    cv2.imwrite(str(tmp_path / 'images' / 'more' / 'a.png'), picture.astype(np.uint16) * 257)
    return tmp_path


def test_features_of_a_folder_are_those_of_the_extractor(folder, picture):
    assert detect([folder / 'images'], folder / 'out')
    expected = Extractor()(picture)
    assert len(expected) > 10
    for name in ('a.png', 'more/a.png'):
        with np.load(folder / 'out' / f'{name}.npz', allow_pickle=False) as file:
            found = Features(file['keypoints'], file['scores'], file['descriptors'], tuple(file['image_size'].tolist()))
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        np.testing.assert_array_equal(found.descriptors, expected.descriptors)
        assert found.image_size == (160, 120)
        assert cv2.imread(str(folder / 'out' / f'{name}.png')).shape == (120, 160, 3)


def test_a_bad_file_is_reported_and_the_rest_is_done(folder, capsys):
    (folder / 'images' / 'b.png').write_bytes(b'no picture')
    (folder / 'images' / 'c.png').symlink_to(folder / 'nowhere.png')
    (folder / 'images' / 'd.png').mkdir()
    assert not detect([folder / 'images', folder / 'e.png'], folder / 'out', pictures=False)
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.splitlines()[-4:] == [
        '3 of 5 images failed:',
        f'  {folder}/images/b.png: not an image (10 bytes), expected BMP, JPEG, PNG, PNM, TIFF or WebP',
        f'  {folder}/images/c.png: no such file',
        f'  {folder}/e.png: no such file',
    ]
    assert sorted(p.name for p in (folder / 'out').rglob('*') if p.is_file()) == ['a.png.npz', 'a.png.npz']


def test_names_that_are_not_utf_8(tmp_path, picture, tiny_model):
    images = [tmp_path / os.fsdecode(name) for name in (b'\xff.png', b'\xfe.png')]
    for path in images:
        path.write_bytes(cv2.imencode('.png', picture)[1].tobytes())

    def run(*words):
        command = [sys.executable, '-m', 'superpoint_ros.cli', *words, '--model', tiny_model]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run('detect', *images, '--output', tmp_path / 'out')
    assert {os.fsencode(path.name) for path in (tmp_path / 'out').iterdir()} == {
        b'\xff.png.npz', b'\xff.png.png', b'\xfe.png.npz', b'\xfe.png.png',
    }  # fmt: skip
    output = tmp_path / os.fsdecode(b'\xfd.png')
    assert run('match', *images, '--output', output).strip().endswith(r'\udcfd.png')
    assert output.is_file()


def test_images_that_would_give_the_same_file_are_refused(folder):
    with pytest.raises(ValueError, match=r'images/a\.png and .*more/a\.png would both give .*a\.png\.npz'):
        detect([folder / 'images', folder / 'images' / 'more'], folder / 'out')
    assert not (folder / 'out').exists()
    assert detect([folder / 'images' / 'a.png'] * 2, folder / 'out', pictures=False)


@pytest.mark.parametrize('name', ['m.xyz', 'm', 'm.pgm', 'm.\udcff'])
def test_an_output_that_is_no_color_picture_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(ValueError, match=r'expected a picture to write, such as matches\.png'):
        match(tmp_path / 'none.png', tmp_path / 'none.png', tmp_path / name)


def test_an_image_that_is_too_small_is_named(folder, tiny_model, capsys):
    small = folder / 'images' / 'small.png'
    cv2.imwrite(str(small), np.zeros((10, 12), np.uint8))
    message = f'{small}: image: 12×10 pixels, expected each side 16 to 8192'
    assert not detect([folder / 'images'], folder / 'out', str(tiny_model), pictures=False)
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        match(folder / 'images' / 'a.png', small, folder / 'm.png', str(tiny_model))


def test_a_second_run_leaves_out_the_pictures_of_the_first(folder, tiny_model):
    output = folder / 'images' / 'features'
    for _ in range(2):
        assert detect([folder / 'images'], output, str(tiny_model))
        assert len(list(output.rglob('*.npz'))) == 2


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty: no images; expected files that end in'):
        detect([tmp_path / 'empty'], tmp_path / 'out')


def test_a_moved_image_matches(tmp_path, picture):
    shifted = np.roll(picture, (8, 8), axis=(0, 1))
    cv2.imwrite(str(tmp_path / '0.png'), picture)
    cv2.imwrite(str(tmp_path / '1.png'), shifted)
    text = match(
        tmp_path / '0.png',
        tmp_path / '1.png',
        tmp_path / 'matches.png',
        geometry='homography',
        decode=DecodeConfig(max_keypoints=60),
    )
    words = text.split()
    matches, agree = int(words[words.index('matches,') - 1]), int(words[words.index('of') - 1])
    assert agree >= 10
    assert agree >= 0.7 * matches
    assert cv2.imread(str(tmp_path / 'matches.png')).shape == (120, 320, 3)
