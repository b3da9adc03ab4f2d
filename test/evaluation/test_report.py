import json
import math

import cv2
import numpy as np
import pytest

from superpoint_ros.evaluation import report


def test_a_table_rounds_numbers_and_shows_missing_ones_as_dashes():
    rows = [{'method': 'SIFT', 'a': 0.12345, 'n': 12.0}, {'method': 'ORB', 'a': math.nan}]
    assert report.table({'method': 'method', 'a': 'rate', 'n': 'points#'}, rows).split('\n') == [
        '| method | rate | points |',
        '| --- | ---: | ---: |',
        '| SIFT | 0.123 | 12 |',
        '| ORB | – | – |',
    ]


def test_means_are_taken_by_group_without_undefined_values():
    rows = [
        {'method': 'a', 'pair': 'x', 'error': 1.0, 'found': 1, 'errors': [1]},
        {'method': 'b', 'pair': 'x', 'error': math.nan, 'found': 0},
        {'method': 'a', 'pair': 'y', 'error': math.nan, 'found': 0, 'gap': 2.0},
        {'method': 'a', 'pair': 'z', 'error': 2.0, 'found': 1},
    ]
    first, second = report.means(rows, ('method',))
    assert first == {'method': 'a', 'pairs': 3, 'error': 1.5, 'found': pytest.approx(2 / 3), 'gap': 2.0}
    assert (second['pairs'], second['found']) == (1, 0.0)
    assert math.isnan(second['error'])


def test_numbers_that_are_not_finite_become_null_in_json(tmp_path):
    data = {'a': [math.inf, np.float32(0.5)], 'b': {'c': math.nan}, 'd': (1,)}
    report.Report('x', 'images', [], tmp_path / 'new').finish('X', ['text'], data)
    written = json.loads((tmp_path / 'new/x.json').read_text())
    assert {key: written[key] for key in data} == {'a': [None, 0.5], 'b': {'c': None}, 'd': [1]}
    assert (tmp_path / 'new/x.md').read_text() == '# X\n\n- Images: images\n\ntext\n'


def test_each_unreadable_file_is_named_once_and_the_report_is_still_written(tmp_path):
    with pytest.raises(ValueError, match='2 could not be read'):
        report.Report('x', 'images', [], tmp_path).finish(
            'X', [], {}, ['a.png: broken', 'b.png: broken', 'a.png: broken']
        )
    assert (tmp_path / 'x.md').read_text().count('a.png') == 1


def test_plot_draws_every_panel(tmp_path):
    x = np.linspace(0, 1, 5)
    panels = [report.Panel('one', 'x', (0, 1), {'a': (x, x)}), report.Panel('two', 'x', (1, 0), {'a': (x, 1 - x)})]
    files = report.Report('x', 'images', [], tmp_path)
    files.plot('two', 'y', panels)
    files.plot('one', 'y', panels[:1], marker='o')
    assert cv2.imread(str(tmp_path / 'two.png')).shape[1] > 1.8 * cv2.imread(str(tmp_path / 'one.png')).shape[1]


def test_the_legend_has_the_curves_of_all_panels(tmp_path):
    x = np.linspace(0, 1, 5)
    panels = [report.Panel('one', 'x', (0, 1), {'a': (x, x)}), report.Panel('two', 'x', (0, 1), {'b': (x, x)})]
    report.Report('x', 'images', [], tmp_path).plot('two', 'y', panels)
    picture = cv2.imread(str(tmp_path / 'two.png'))
    blue = (picture == (180, 119, 31)).all(axis=2)  # the first color, BGR
    assert blue[:, : blue.shape[1] // 2].any()
    assert blue[:, blue.shape[1] // 2 :].any()
