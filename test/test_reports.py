"""Reports as Markdown and JSON."""

import json
import os

import numpy as np

from superpoint_ros import reports


def test_a_table_aligns_text_to_the_left_and_numbers_to_the_right():
    text = reports.table(['method', 'ms'], [['SIFT', '54.7'], ['ORB', '–']])
    assert text.splitlines() == ['| method | ms |', '| --- | ---: |', '| SIFT | 54.7 |', '| ORB | – |']


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    data = {'values': [1.5, float('nan'), np.float32(np.inf)], 'count': np.int64(3), 1: (True, None, 'ε')}
    reports.write(tmp_path / 'new', 'report', '# Title\n', data)
    assert (tmp_path / 'new/report.md').read_text(encoding='utf-8') == '# Title\n'
    found = json.loads((tmp_path / 'new/report.json').read_text(encoding='utf-8'))
    assert found == {'values': [1.5, None, None], 'count': 3, '1': [True, None, 'ε']}


def test_names_that_are_not_utf_8_are_escaped(tmp_path):
    name = os.fsdecode(b'\xff.png')
    reports.write(tmp_path, 'x', f'- {name}: broken\n', {'failed': [name, 'ümlaut']})
    assert (tmp_path / 'x.md').read_text(encoding='utf-8') == '- \\udcff.png: broken\n'
    assert json.loads((tmp_path / 'x.json').read_text(encoding='utf-8')) == {'failed': [name, 'ümlaut']}
