import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import types

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('skimage', reason='needs scikit-image, whose photographs are shown')
pytest.importorskip('openvino', reason='needs OpenVINO')

import rclpy
from rclpy.signals import SignalHandlerOptions

from superpoint_ros.demo.graph import watch
from superpoint_ros.demo.picture import PANEL

PROGRAM = """
import json, pathlib, sys
from superpoint_ros.commands.demo import demo
output, options = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
print(demo(output=output, **options))
"""
CLOSED_WINDOW = """
from superpoint_ros.demo import window
pictures = []
window.open_window = lambda: None
window.show = lambda picture: pictures.append(picture.shape) or len(pictures) < 3
"""
DOMAIN = os.getpid() % 100 + 100


@pytest.fixture
def start():
    """A function that starts a demo, which is stopped at the end of the test."""
    started = []

    def start(output, stdout=subprocess.PIPE, before='', **options):
        env = {**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN), 'TERM': 'xterm', 'COLUMNS': '100'}
        command = [sys.executable, '-c', before + PROGRAM, str(output), json.dumps(options)]
        process = subprocess.Popen(command, env=env, stdout=stdout, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def nodes_of(process):
    """The command lines of the running processes in the namespace of the demo."""
    lines = subprocess.run(['ps', '-ww', '-eo', 'args'], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if f'superpoint_demo_{process.pid}' in line]


def read_until(pattern, terminal):
    """Wait until a terminal shows a pattern."""
    shown, deadline = b'', time.monotonic() + 100
    while not re.search(pattern, shown):
        assert select.select([terminal], [], [], max(deadline - time.monotonic(), 0))[0], shown
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # nobody writes any more
            pytest.fail(shown.decode())


def test_a_graph_runs_and_leaves_picture_and_summary(start, tiny_model, tmp_path):
    process = start(model=str(tiny_model), seconds=2.0, output=tmp_path)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['model'] == 'tiny'
    assert summary['back end'] == 'openvino'
    assert summary['frames'] > 5
    assert 0 < summary['rate_hz'] <= 1.2 * summary['camera_rate_hz']
    assert 0 < summary['latency_median_ms'] <= summary['latency_p95_ms']
    assert summary['keypoints_median'] > 0
    assert cv2.imread(str(tmp_path / 'demo.png')).shape[1] == 2 * PANEL + 4
    assert f'{summary["keypoints_median"]} median' in text
    assert not nodes_of(process)


def test_ctrl_c_ends_it_early_with_a_summary(start, tiny_model, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(images / f'{number}.png'), cv2.resize(rng.integers(0, 255, (24, 32), np.uint8), (320, 240)))
    terminal, stdout = os.openpty()
    process = start(tmp_path / 'out', stdout, model=str(tiny_model), seconds=600.0, source=str(images))
    os.close(stdout)
    read_until(rb'frames/s +latency +[0-9]+ ms +[0-9]+ keypoints +[1-9][0-9]* matches', terminal)
    process.send_signal(signal.SIGINT)
    read_until(rb'See .*summary.json', terminal)
    assert process.wait(timeout=60) == 0
    os.close(terminal)
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert summary['frames'] > 0
    assert summary['matches_right'] is None, 'nothing is known of how these images move'
    assert not nodes_of(process)


def test_the_nodes_end_if_the_demo_is_killed(start, tiny_model, tmp_path):
    process = start(model=str(tiny_model), output=tmp_path)
    while len(nodes_of(process)) < 3:
        time.sleep(0.1)
    process.kill()
    deadline = time.monotonic() + 60
    while nodes_of(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not nodes_of(process)


def test_a_mistyped_path_is_not_taken_for_a_topic(start, tmp_path):
    process = start(source='/nowhere/drive.mp4', output=tmp_path / 'out')
    assert 'source /nowhere/drive.mp4: no such file or folder' in process.communicate(timeout=60)[0]
    assert not (tmp_path / 'out').exists()


def test_closing_the_window_ends_it_early_with_a_summary(start, tiny_model, tmp_path):
    before = CLOSED_WINDOW + 'import atexit; atexit.register(lambda: print(pictures))'
    process = start(tmp_path, before=before, model=str(tiny_model), seconds=600.0, view=True)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    shape = cv2.imread(str(tmp_path / 'demo.png')).shape
    assert str([shape] * 3) in text
    assert not nodes_of(process)


def test_ctrl_c_does_not_interrupt_a_callback():
    """It came out as `Unable to convert call argument` when it came while rclpy took a message."""
    finished = []

    def callback():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # so that Python runs the handler here
        finished.append(True)

    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('interrupted', context=context)
    node.create_timer(0.01, callback)
    node.missing, node.failure, node.counts = lambda: '', '', types.SimpleNamespace(line=lambda: '')
    try:
        watch(node, [], 60.0)
        assert finished == [True]
        node.missing = lambda: 'images'
        with pytest.raises(KeyboardInterrupt):
            watch(node, [], 60.0)
        assert finished == [True, True]
    finally:
        node.destroy_node()
        context.try_shutdown()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_broken_source_is_named_and_every_process_ends(start, tiny_model, tmp_path):
    process = start(model=str(tiny_model), source='97', output=tmp_path)
    text = process.communicate(timeout=100)[0]
    assert process.returncode != 0
    assert 'the camera ended with exit code 1' in text
    assert 'source webcam 97: OpenCV gets no image from it' in text
    assert not nodes_of(process)
    assert not (tmp_path / 'summary.json').exists()


def test_a_node_that_cannot_configure_ends_it(start, tiny_model, tmp_path):
    process = start(model=str(tiny_model.with_suffix('.safetensors')), backend='tensorrt', output=tmp_path)
    text = process.communicate(timeout=100)[0]
    assert process.returncode != 0
    assert 'the detector ended with exit code 1' in text
    assert 'cannot configure: back end tensorrt' in text


def test_a_missing_model_is_named_before_anything_starts(start, tmp_path):
    process = start(model='nowhere.onnx', output=tmp_path / 'out')
    assert 'model nowhere.onnx: no such file' in process.communicate(timeout=60)[0]
    assert not (tmp_path / 'out').exists()
