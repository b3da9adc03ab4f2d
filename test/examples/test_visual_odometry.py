"""The example as a separate process, over DDS, with a camera of known motion."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('nav_msgs', reason='needs nav_msgs of ROS 2 (on PyPI: ros-nav-msgs)')

from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import CameraInfo, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from superpoint_ros import clouds  # noqa: E402
from superpoint_ros.ros.messages import cloud_message  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / 'examples/visual_odometry.py'
DOMAIN = os.getpid() % 100 + 1
CAMERA = np.array([[400, 0, 320], [0, 400, 240], [0, 0, 1.0]])
DISTORTION = np.array([-0.1, 0.03, 0, 0, 0])
FRAMES = 120
FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def motion(frame):
    """Rotation and position of the camera relative to the first: forward, in a curve, slightly up and down."""
    angle = 0.5 * frame / FRAMES
    rotation, _ = cv2.Rodrigues(np.array([0.0, angle, 0.0]))
    return rotation, np.array([40 * (1 - np.cos(angle)), 0.3 * np.sin(6 * angle), 40 * np.sin(angle)])


def tracks(frame, space, rng):
    """Tracks of the visible points, with 0.3 px of noise; one in ten has a wrong identity."""
    rotation, position = motion(frame)
    seen = (space - position) @ rotation
    ids = np.flatnonzero((seen[:, 2] > 1) & (seen[:, 2] < 25) & (np.abs(seen[:, :2]) < seen[:, 2:]).all(axis=1))
    pixels = cv2.projectPoints(seen[ids], np.zeros(3), np.zeros(3), CAMERA, DISTORTION)[0][:, 0]
    inside = ((pixels >= 0) & (pixels <= (639, 479))).all(axis=1)
    ids, pixels = ids[inside], pixels[inside] + rng.normal(0, 0.3, (inside.sum(), 2))
    wrong = rng.random(len(ids)) < 0.1
    ids[wrong] = rng.permutation(ids[wrong])
    cloud = np.zeros(len(ids), clouds.TRACK)
    cloud['id'], cloud['x'], cloud['y'] = ids, pixels[:, 0], pixels[:, 1]
    return cloud


def test_the_path_is_correct_up_to_scale():
    rng = np.random.default_rng(0)
    space = rng.uniform((-25, -6, -5), (45, 6, 60), (6000, 3))
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node('world', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    paths = []
    node.create_subscription(PathMessage, 'path', paths.append, 10)
    publishers = [
        node.create_publisher(CameraInfo, 'camera_info', qos_profile_sensor_data),  # as drivers of cameras do
        node.create_publisher(PointCloud2, 'tracks', QoSProfile(depth=200)),
    ]
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN)}
    process = subprocess.Popen([sys.executable, str(EXAMPLE)], env=environment, stderr=subprocess.PIPE, text=True)

    def wait(condition, timeout=30):
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end and process.poll() is None:
            executor.spin_once(timeout_sec=0.05)
        return condition()

    def send(frame):
        header = Header(frame_id='camera')
        header.stamp.sec = frame
        publishers[1].publish(cloud_message(tracks(frame, space, rng), header))

    try:
        assert wait(lambda: all(p.get_subscription_count() for p in publishers))
        assert wait(lambda: node.count_publishers('path'))
        calibration = CameraInfo(width=640, height=480, distortion_model='plumb_bob')
        calibration.k, calibration.d = CAMERA.ravel().tolist(), DISTORTION.tolist()
        for _ in range(20):  # the first messages may be lost during discovery
            publishers[0].publish(calibration)
            send(0)
            if wait(lambda: paths, 1):
                break
        assert paths, 'no first pose'
        for frame in range(1, FRAMES):
            send(frame)
            wait(lambda: False, 0.01)
        assert wait(lambda: paths[-1].poses[-1].header.stamp.sec >= FRAMES - 5)
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    assert process.returncode == 0
    assert [line for line in log.splitlines() if 'nothing has arrived on camera_info' not in line] == []

    poses = paths[-1].poses
    found = np.array([[p.pose.position.x, p.pose.position.y, p.pose.position.z] for p in poses])
    truth = np.array([FORWARD @ motion(p.header.stamp.sec)[1] for p in poses])
    assert len(poses) > 10
    found *= (found * truth).sum() / (found * found).sum()
    distance = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    assert distance > 15
    assert np.linalg.norm(found - truth, axis=1).max() < 0.03 * distance
    last = poses[-1].pose.orientation
    turned = 2 * np.arctan2(np.linalg.norm([last.x, last.y, last.z]), last.w)
    assert turned == pytest.approx(0.5 * poses[-1].header.stamp.sec / FRAMES, abs=0.02)
