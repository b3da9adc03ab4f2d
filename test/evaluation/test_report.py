import json
import math

import cv2
import numpy as np

from superpoint_ros import drawing
from superpoint_ros.evaluation import report
from superpoint_ros.evaluation.datasets import Pair
from superpoint_ros.evaluation.homography import Matched


def test_table():
    rows = [{'method': 'SIFT', 'a': 0.12345, 'n': 12.0}, {'method': 'ORB', 'a': math.nan}]
    assert report.table({'method': 'method', 'a': 'rate', 'n': 'points#'}, rows).split('\n') == [
        '| method | rate | points |',
        '| --- | ---: | ---: |',
        '| SIFT | 0.123 | 12 |',
        '| ORB | – | – |',
    ]


def test_json_has_null_for_what_is_not_finite(tmp_path):
    report.write(tmp_path / 'new', 'x', '# X\n', {'a': [math.inf, np.float32(0.5)], 'b': {'c': math.nan}, 'd': (1,)})
    assert json.loads((tmp_path / 'new/x.json').read_text()) == {'a': [None, 0.5], 'b': {'c': None}, 'd': [1]}
    assert (tmp_path / 'new/x.md').read_text() == '# X\n'


def test_plot_draws_every_panel(tmp_path):
    x = np.linspace(0, 1, 5)
    report.plot(tmp_path / 'plot.png', {'one': {'a': (x, x)}, 'two': {'a': (x, 1 - x)}}, 'x', 'y', (0, 1))
    one = tmp_path / 'one.png'
    report.plot(one, {'one': {'a': (x, x)}}, 'x', 'y', (0, 1))
    assert cv2.imread(str(tmp_path / 'plot.png')).shape[1] > 1.8 * cv2.imread(str(one)).shape[1]


def test_matches_are_drawn_at_their_points_in_their_colors(tmp_path):
    blank = np.zeros((60, 80), np.uint8)
    matched = Matched(
        np.array([[10, 20], [30, 40]], np.float32),
        np.array([[50, 20], [70, 5]], np.float32),
        np.array([True, False]),
        np.array([0.9, 0.8], np.float32),
    )
    path = tmp_path / 'pair.png'
    report.draw_matches(path, Pair('p', '', blank, blank, np.eye(3)), {'A': matched, 'B': matched})
    picture = cv2.imread(str(path))
    height = 60 + drawing.BAR
    assert picture.shape == (2 * height, 2 * 80, 3)
    for top in (0, height):
        assert tuple(picture[top + 20, 10]) == drawing.RIGHT
        assert tuple(picture[top + 20, 80 + 50]) == drawing.RIGHT
        assert tuple(picture[top + 40, 30]) == drawing.WRONG
