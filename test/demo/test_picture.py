from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from superpoint_ros import clouds
from superpoint_ros.demo.monitor import Frame
from superpoint_ros.demo.picture import PANEL, best, compose
from superpoint_ros.drawing import BAR, RIGHT, WRONG
from superpoint_ros.features import Features
from superpoint_ros.tracking import Tracks

WIDTH, HEIGHT = 160, 120
SCALE = PANEL / WIDTH


def pixel(panel, x, y):
    """The color at a pixel of the image."""
    return panel[round((y + 0.5) * SCALE - 0.5), round((x + 0.5) * SCALE - 0.5)].tolist()


def frame(number):
    """A point that moves to the right, and a point that does not move, with a wrong match."""
    points = np.array([[40 + 5 * number, 30], [100, 90]], np.float32)
    scores = np.array([0.9, 0.5], np.float32)
    features = Features(points, scores, np.ones((2, 1), np.float32), (WIDTH, HEIGHT))
    ids, ages = np.array([7, 8], np.uint32), np.full(2, number + 1, np.uint32)
    tracks = clouds.encode_tracks(Tracks(ids, ages, points, scores))
    matches = np.zeros(2, clouds.MATCH)
    matches['x1'], matches['y1'] = points.T
    image = np.full((HEIGHT, WIDTH), 100, np.uint8)
    return Frame(image, features, matches, np.array([True, False]), tracks)


def test_keypoints_are_on_the_left_and_tails_on_the_right():
    picture = compose([frame(number) for number in range(8)], 'caption')
    height = round(HEIGHT * SCALE)
    assert picture.shape == (height + BAR, 2 * PANEL + 4, 3)
    left, right = picture[:height, :PANEL], picture[:height, PANEL + 4 :]
    assert pixel(left, 75, 30) != [100] * 3
    assert pixel(left, 50, 30) == [100] * 3
    assert pixel(right, 75, 30) == list(RIGHT)
    assert pixel(right, 68, 30) == pytest.approx(RIGHT, abs=60), 'the tail'
    assert pixel(right, 50, 30) == [100] * 3, 'the tail ends somewhere'
    assert pixel(right, 100, 90) == list(WRONG)
    assert picture[height:].max() > 200, 'the caption'


def test_the_best_frame_is_the_last_with_the_most_long_tracks():
    frames = [frame(number) for number in range(8)]
    assert best(frames) == frames
    assert best([*frames, frame(0)]) == frames
    assert best([*frames, replace(frame(8), image=None)]) == frames, 'the image is missing'
    with pytest.raises(ValueError, match='no frame has image'):
        best([Frame(image=frames[0].image)])
