"""While an engine is built, the detector reports it and can be stopped."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from superpoint_ros.ros.messages import image_message  # noqa: E402

PROGRAM = """
import sys
from superpoint_ros.extractor import Extractor
from superpoint_ros.ros.detector_node import DetectorNode
from superpoint_ros.ros.process import run
from superpoint_ros.runtimes.engine_cache import BuildCancelledError

class Building(Extractor):
    def __init__(self, model, watch, **options):
        super().__init__(model, watch, **options)
        self.watch = watch

    def batch(self, images, masks=None):
        self.watch.report('building a TensorRT engine for 320×240', 0.43)
        assert self.watch.cancel.wait(120)
        print('ended', flush=True)
        raise BuildCancelledError('cancelled')

sys.exit(run(lambda: DetectorNode(Building)))
"""


AT_THE_START = """
import sys, time
from superpoint_ros.ros.detector_node import DetectorNode
from superpoint_ros.ros.process import run
from superpoint_ros.runtimes.engine_cache import BuildCancelledError

def make(model, watch, **options):
    print('building', flush=True)
    while not watch.cancel.is_set():
        watch.report('building a TensorRT engine for 320×240', 0.43)
        time.sleep(0.05)
    raise BuildCancelledError('cancelled')

sys.exit(run(lambda: DetectorNode(make)))
"""


@pytest.mark.parametrize('ending', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_building_of_an_engine_during_configure(context, ending):
    process = subprocess.Popen(
        [sys.executable, '-c', AT_THE_START],
        env={**os.environ, 'ROS_DOMAIN_ID': str(context.get_domain_id())},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == 'building\n'
        process.send_signal(ending)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize('ending', [signal.SIGINT, signal.SIGTERM])
def test_the_build_of_an_engine_is_reported_and_can_be_interrupted(context, tiny_model, photo, ending):
    arguments = ['--ros-args', '-p', f'model:={tiny_model}', '-p', 'backend:=openvino']
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(context.get_domain_id())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    node = rclpy.create_node('listener', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    statuses = []
    node.create_subscription(DiagnosticArray, '/diagnostics', lambda message: statuses.extend(message.status), 10)
    publisher = node.create_publisher(Image, 'image', 1)
    pixels = np.ascontiguousarray(photo).view(np.uint8)
    try:
        end = time.monotonic() + 60
        while not any('building' in status.message for status in statuses) and time.monotonic() < end:
            assert process.poll() is None, process.stdout.read()
            publisher.publish(image_message(pixels, Header(frame_id='camera')))
            executor.spin_once(timeout_sec=0.2)
        status = next(status for status in statuses if 'building' in status.message)
        assert status.message == 'building a TensorRT engine for 320×240: 43%'
        assert status.level == DiagnosticStatus.WARN
        process.send_signal(ending)
        output, _ = process.communicate(timeout=60)
        assert 'ended' in output
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        node.destroy_node()
