import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from superpoint_ros.benchmark import measure, report
from superpoint_ros.benchmark.methods import EXTRACTION, KEYPOINTS, REST, STAGES
from superpoint_ros.benchmark.pictures import fit, pictures
from superpoint_ros.commands.benchmark import benchmark, parse_size


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name in 'ab':
        coarse = rng.integers(0, 256, (30, 40)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{name}.png'), np.kron(coarse, np.ones((8, 8), np.uint8)))
    return folder


def test_every_stage_of_every_back_end_is_timed_beside_sift_and_orb(tiny_model, folder, tmp_path):
    output = tmp_path / 'out'
    markdown = benchmark(
        [str(tiny_model)],
        output,
        ['160x120', '320x240'],
        ('openvino', 'torch'),
        ('fp32',),
        images=folder,
        repetitions=4,
        seconds=600,
    )
    assert (output / 'benchmark.md').read_text() == markdown
    assert cv2.imread(str(output / 'benchmark.png')) is not None
    data = json.loads((output / 'benchmark.json').read_text())
    assert data['machine']['cores'] >= 1
    assert str(folder) in data['images']
    for size in ([160, 120], [320, 240]):
        rows = {row['method']: row for row in data['results'] if row['size'] == size}
        assert list(rows) == ['tiny openvino fp32', 'tiny torch fp32', 'SIFT', 'ORB']
        # The same pictures went through all: the two back ends found the same.
        assert rows['tiny openvino fp32']['keypoints'] == pytest.approx(rows['tiny torch fp32']['keypoints'], abs=3)
        for name, row in rows.items():
            assert row['repetitions'] == 4
            assert row['peak_memory_mb'] > 20
            assert 0 < row['keypoints'] <= 1024
            samples, model = row['samples'], name.startswith('tiny')
            assert set(samples) == {*(STAGES if model else ('convert',)), EXTRACTION, measure.TOTAL} | (
                {REST} if model else set()
            )
            assert all(len(values) == 4 for values in samples.values())
            parts = np.sum([samples[part] for part in (STAGES if model else ('convert', EXTRACTION))], axis=0)
            assert samples[measure.TOTAL] == pytest.approx(parts.tolist())
            assert row['images_per_second'] == pytest.approx(4000 / sum(samples[measure.TOTAL]))
            for stage, values in samples.items():
                assert row['milliseconds'][stage]['median'] == pytest.approx(np.median(values))
        inside = rows['tiny openvino fp32']['samples']
        assert all(0 < rest < whole for rest, whole in zip(inside[REST], inside[EXTRACTION], strict=True))
        assert f'## {size[0]}×{size[1]}' in markdown


def test_matchers_are_timed_beside_nearest_neighbors(make_matcher, folder, tmp_path):
    path = make_matcher()
    markdown = benchmark(output=tmp_path / 'out', sizes=[], images=folder, repetitions=3, matchers=[str(path)])
    rows = json.loads((tmp_path / 'out/benchmark.json').read_text())['matching']
    assert [(row['keypoints'], row['matcher'].split(',')[0]) for row in rows] == [
        (512, 'nearest neighbors'),
        (512, path.stem),
        (1024, 'nearest neighbors'),
        (1024, path.stem),
    ]
    assert all(0 < row['milliseconds']['median'] <= row['milliseconds']['p99'] for row in rows)
    assert '| ms | 512 × 512 keypoints | 1024 × 1024 keypoints |' in markdown


def test_methods_take_turns(monkeypatch, folder):
    order = []

    def time(name, index):
        order.append((name, index))
        return {'convert': 1.0, EXTRACTION: 2.0, KEYPOINTS: 5}

    @contextmanager
    def started(method, messages):
        if method == 'bicycle':
            yield 'has no wheels'
        else:
            yield measure.Running(method, '', 0.0, partial(time, method), lambda: 1.0)

    monkeypatch.setattr(measure, 'started', started)
    # Time is up at once, and yet there are some repetitions; the second 'a' is the same as the first.
    rows, failed = measure.measure(['a', 'b', 'a', 'bicycle'], ['x', 'y'], 10, 0.0)
    assert order == [('a', 0), ('b', 0), ('a', 1), ('b', 1), ('a', 0), ('b', 0)]
    assert failed == ['has no wheels']
    assert [row['method'] for row in rows] == ['a', 'b']
    assert rows[0]['milliseconds'][measure.TOTAL] == {'median': 3.0, 'p99': 3.0}
    assert rows[0]['images_per_second'] == pytest.approx(1000 / 3)


def test_unsupported_precisions_are_left_out_with_the_reason(tiny_model, folder, tmp_path):
    markdown = benchmark(
        [str(tiny_model)], tmp_path, ['160x120'], ('openvino',), ('fp32', 'tf32'), False, images=folder, repetitions=1
    )
    assert 'precision tf32' in markdown.partition('Left out: ')[2]
    data = json.loads((tmp_path / 'benchmark.json').read_text())
    assert [row['method'] for row in data['results']] == ['tiny openvino fp32']


def test_the_report_warns_of_a_busy_machine():
    machine = {'processor': 'P', 'cores': 2, 'python': '3', 'versions': {}, 'load_before': 0.1}
    assert 'busy' not in report.preamble({'machine': machine, 'images': 'I'})
    assert 'busy: 3.0' in report.preamble({'machine': machine | {'load_before': 3.0}, 'images': 'I'})


@pytest.mark.parametrize('size', ['640', '640x', '8x8', '9000x9000', '640×480'])
def test_a_wrong_size_is_refused(size):
    with pytest.raises(ValueError, match='WIDTHxHEIGHT'):
        parse_size(size)


def test_wrong_input_is_refused_before_anything_is_timed(tiny_model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, 'started', None)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        benchmark(['nowhere.onnx'], tmp_path)
    with pytest.raises(ValueError, match='nothing'):
        benchmark([str(tiny_model)], tmp_path, [])
    with pytest.raises(ValueError, match='repetition'):
        benchmark([str(tiny_model)], tmp_path, repetitions=0)
    (tmp_path / 'other').mkdir()
    other = shutil.copy(tiny_model, tmp_path / 'other')
    with pytest.raises(ValueError, match='models: tiny is the name of more than one'):
        benchmark([str(tiny_model), other], tmp_path)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        benchmark([str(tiny_model)], tmp_path, matchers=['nowhere.onnx'])
    with pytest.raises(FileExistsError, match='other'):
        benchmark([str(tiny_model)], Path(other), images=folder)
    with pytest.raises(FileNotFoundError, match='nothing'):
        pictures(tmp_path / 'nothing')
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(ValueError, match=r'text\.png'):
        pictures(tmp_path)


def test_pictures_are_cut_or_continued_but_never_enlarged():
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert fit(picture, (2, 2)).shape == (2, 2)
    assert fit(picture, (6, 3)).tolist() == [[*row, row[3], row[2]] for row in picture.tolist()]
    assert fit(np.zeros((600, 100), np.uint8), (50, 40)).shape == (40, 50)


def test_the_node_is_measured_between_processes(tiny_model, folder, tmp_path, monkeypatch):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    monkeypatch.setenv('ROS_DOMAIN_ID', str(os.getpid() % 100 + 100))
    markdown = benchmark(
        [str(tiny_model)],
        tmp_path,
        sizes=[],
        backends=['openvino'],
        precisions=['fp32'],
        max_keypoints=200,
        images=folder,
        seconds=3,
        node=True,
        rate=5,
        cameras=2,
    )
    node = json.loads((tmp_path / 'benchmark.json').read_text())['node']
    assert 20 <= node['published'] <= 32  # of both cameras
    assert node['received'] + node['dropped'] == node['published']
    assert node['received'] > 0
    samples = node['samples']
    assert all(len(values) == node['received'] for values in samples.values())
    first, last = (values for name, values in samples.items() if name.endswith(('before it, too)', 'to receiver')))
    for latency, extractor, less, before, after in zip(
        samples['latency'], samples['Extractor'], samples[node['verdict']], first, last, strict=True
    ):
        assert latency == pytest.approx(before + extractor + after)
        assert less == pytest.approx(before + after)
        assert extractor > 0
        assert before > 0  # else the call would be another image's
    assert node['cpu'] > 0
    assert 'tiny, openvino fp32' in markdown


def test_a_detector_that_cannot_start_ends_the_measurement_of_the_node(folder, monkeypatch):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    from superpoint_ros.benchmark import node

    monkeypatch.setattr(node, 'PATIENCE', 1e6)
    images, _ = pictures(folder)
    with pytest.raises(RuntimeError, match='the detector ended'):
        node.measure_node('nowhere.onnx', {}, images, 10.0, 1.0)


PROGRAM = """
import pathlib, sys
from superpoint_ros.commands.benchmark import benchmark
if __name__ == '__main__':
    model, output, images = sys.argv[1:]
    benchmark([model], pathlib.Path(output), [], ['openvino'], images=pathlib.Path(images), node=True, seconds=1000)
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_processes_of_the_node(tiny_model, folder, tmp_path, number):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    (tmp_path / 'program.py').write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / 'program.py'), str(tiny_model), str(tmp_path / 'out'), str(folder)]
    env = {**os.environ, 'ROS_DOMAIN_ID': str(os.getpid() % 100 + 100)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr
        for line in process.stderr:  # until the last process that writes to it has ended
            assert 'SpawnProcess' not in line, 'a child ends without a traceback'
            if 'back end openvino' in line:
                os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    assert process.returncode == -number


def test_node_figures_of_a_known_run():
    from superpoint_ros.benchmark.node import Call, summarize

    ms = 10**6
    # Published every 10 ms from 100 on; the one at 110 is dropped, the one at 130 is after the window.
    stamps = [100 * ms, 110 * ms, 120 * ms, 130 * ms]
    calls = [Call(101 * ms, 115 * ms, 1.0, 1), Call(121 * ms, 125 * ms, 1.007, 3), Call(131 * ms, 135 * ms, 1.014, 4)]
    received = {100 * ms: 118 * ms, 120 * ms: 126 * ms, 130 * ms: 137 * ms}
    figures = summarize((100 * ms, 130 * ms), stamps, received, calls)
    assert (figures['published'], figures['received'], figures['dropped']) == (3, 2, 1)
    samples = list(figures['samples'].values())
    assert samples == [[18.0, 6.0], [14.0, 4.0], [4.0, 2.0], [1.0, 1.0], [3.0, 1.0]]
    assert figures['milliseconds']['latency']['median'] == 12.0
    assert figures['cpu'] == pytest.approx(0.7)
    assert figures['cpu_ms_per_frame'] == pytest.approx(3.5)  # two images went into the second call
    with pytest.raises(RuntimeError, match='no features'):
        summarize((0, 1), stamps, received, calls)
