import cv2
import numpy as np
import pytest

from superpoint_ros.demo.sources import open_source


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gray(value):
    return np.full((48, 64), value, np.uint8)


def test_a_folder_repeats_in_order(tmp_path, rng):
    for name, value in (('b.png', 20), ('a.png', 10), ('c.PNG', 30)):
        cv2.imwrite(str(tmp_path / name), gray(value))
    (tmp_path / 'notes.txt').write_text('no image')
    image_at, rate, _ = open_source(str(tmp_path), rng)
    assert [image_at(0.0)[0, 0] for _ in range(5)] == [10, 20, 30, 10, 20]
    assert rate == 30


def test_a_video_repeats_at_its_own_rate(tmp_path, rng):
    path = str(tmp_path / 'video.avi')
    video = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 48))
    for value in (40, 120, 200):
        video.write(cv2.merge([gray(value)] * 3))
    video.release()
    image_at, rate, _ = open_source(path, rng)
    shown = [float(image_at(0.0).mean()) for _ in range(4)]
    assert shown == pytest.approx([40, 120, 200, 40], abs=4)
    assert rate == 10


def test_each_image_has_the_size_of_its_file(tmp_path, rng):
    cv2.imwrite(str(tmp_path / 'a.png'), gray(0))
    cv2.imwrite(str(tmp_path / 'b.png'), gray(0)[:16])
    image_at = open_source(str(tmp_path), rng).image_at
    assert [image_at(0.0).shape for _ in range(2)] == [(48, 64), (16, 64)]


def test_a_broken_source_is_named_when_it_is_opened(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.mp4: no such file or folder'):
        open_source('nowhere.mp4', rng)
    with pytest.raises(FileNotFoundError, match=r'no images; expected files that end in .*\.png'):
        open_source(str(tmp_path), rng)
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video')
    with pytest.raises(ValueError, match=r'broken\.mp4: OpenCV gets no image'):
        open_source(str(broken), rng)
    with pytest.raises(ValueError, match='webcam 97: OpenCV gets no image'):
        open_source('97', rng)
