"""Nodes under attack over DDS, and what must hold after each attack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2
from std_msgs.msg import Header, String

from superpoint_ros import models
from superpoint_ros.features import Features
from superpoint_ros.ros.messages import features_message, image_message
from superpoint_ros.stream_tracker import nanoseconds
from test.bags.conftest import picture
from test.fuzz.attacks import FaultError
from test.fuzz.processes import DOMAIN, NodeProcess, peak

PATIENCE, PATIENCE_AT_START = 30.0, 90.0
"""Seconds within which a good message is answered, and the first one."""
PAUSE = 0.2
"""Seconds before a good message: a newer message replaces one that waits."""
MAX_MEGABYTES = 1500
MAX_LINE, MAX_LOG = 1000, 20_000
"""Most characters of a line of log, and of all lines after one attack."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SpinUntil = Callable[[Callable[[], Any], float], bool]


@contextmanager
def client() -> Iterator[tuple[Node, SpinUntil]]:
    """A node of this process, and a function that spins until a condition is true (True) or a time is over (False)."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node('client', context=context, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin_until(condition: Callable[[], Any], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            executor.spin_once(timeout_sec=0.02)
        return True

    try:
        yield node, spin_until
    finally:
        context.try_shutdown()


class Bench:
    """A node in a process of its own, and a client that sends it messages.

    `good` has good messages by topic; the node answers them on `output` with clouds of the same stamps.
    """

    def __init__(
        self, start: Callable[[], NodeProcess], client: tuple[Node, SpinUntil], good: Mapping[str, Any], output: str
    ) -> None:
        self.process, self._start, self._read = start(), start, 0
        self.node, self._spin_until = client
        self._good, self.stamps = good, count(time.time_ns(), 10**6)
        self._good_stamps: set[int] = set()
        self._answered: set[int] = set()
        self._publishers: dict[str, Any] = {}
        answered = self._answered
        self.node.create_subscription(PointCloud2, output, lambda m: answered.add(nanoseconds(m.header.stamp)), 10)

    def publish(self, topic: str, message: Any) -> None:
        """Publish a message, or later the bytes of one, once the node listens."""
        if isinstance(message, bytes) and len(message) == 4:
            return  # only the header: Fast CDR reads beyond it, and any program that receives it may crash
        if topic not in self._publishers:
            qos = LATCHED if topic.endswith('info') else 10
            self._publishers[topic] = self.node.create_publisher(type(message), topic, qos)
        self.wait(self._publishers[topic].get_subscription_count, f'it does not listen to {topic}', PATIENCE_AT_START)
        self._publishers[topic].publish(message)

    def send_good(self, only: str = '') -> int:
        """Send good messages on all topics, or on those that end so; returns their stamp in ns."""
        stamp = next(self.stamps)
        for topic, message in self._good.items():
            if topic.endswith(only):
                if hasattr(message, 'header'):
                    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
                self.publish(topic, message)
        return stamp

    def spin_until(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Wait for a condition; returns whether it became true in time. Raises FaultError if the process has ended."""
        done = self._spin_until(lambda: self.process.popen.poll() is not None or condition(), seconds)
        if self.process.popen.poll() is not None:
            raise FaultError(f'the process ended with {self.process.popen.returncode}')
        return done

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Wait until a condition is true; raises FaultError if the time is over."""
        if not self.spin_until(condition, seconds):
            raise FaultError(what)

    def answered(self, seconds: float = PATIENCE) -> None:
        """Send good messages until one of them is answered."""
        sent: set[int] = set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stamp = self.send_good()
            self._good_stamps.add(stamp)
            sent.add(stamp)
            if self.spin_until(lambda: sent & self._answered, 0.5):
                return
        raise FaultError('good messages get no answer')

    def attack(self, action: Callable[[Bench, bytes], bool | None], data: bytes) -> tuple[bool, float]:
        """Try an attack, and check that good messages are answered after it; after a fault, start the node again.

        Returns whether it was processed, as the action says or because a message was answered that is none of the good
        ones, and the most memory in MB.
        """
        try:
            processed = action(self, data)
            self.spin_until(lambda: self._answered - self._good_stamps, PAUSE)
            self.answered()
            return bool(processed or self._answered - self._good_stamps), self._check()
        except FaultError:
            self.restart()
            raise
        finally:
            self._answered.clear()

    def restart(self) -> None:
        """Start the process again."""
        self.process.stop(seconds=5)
        self.process = self._start()
        self.wait_for_start()

    def wait_for_start(self) -> None:
        """Wait until the node works."""
        self.answered(PATIENCE_AT_START)
        self._check()

    def _check(self) -> float:
        """Check what the node logged and its memory since the last check; returns the memory in MB."""
        log = self.process.log.read_bytes()[self._read :]
        self._read += len(log)
        log = log.decode(errors='replace')
        megabytes = peak(self.process.popen.pid)
        if 'Traceback' in log:
            raise FaultError(f'traceback: {log[-1500:]}')
        if len(log) > MAX_LOG or any(len(line) > MAX_LINE for line in log.splitlines()):
            raise FaultError(f'{len(log)} characters of log: {log[:300]}')
        if megabytes > MAX_MEGABYTES:
            raise FaultError(f'took {megabytes:.0f} MB')
        return megabytes


@contextmanager
def _bench(name: str, folder: Path, good: Mapping[str, Any], output: str, **parameters: object) -> Iterator[Bench]:
    with client() as attacker:
        start = partial(NodeProcess, name, folder / f'{name}.log', threads=1, **parameters)
        bench = Bench(start, attacker, good, output)
        try:
            bench.wait_for_start()
            yield bench
        finally:
            bench.process.stop()


def detector(folder: Path, **parameters: object) -> AbstractContextManager[Bench]:
    """A detector of one camera, which gets good messages for its parameters."""
    image = image_message(picture(0), Header())
    good = {'image': image, 'mask': image} if 'mask_topic' in parameters else {'image': image}
    if 'image_transport' in parameters:
        good = {'image/compressed': CompressedImage(format='png', data=cv2.imencode('.png', picture(0))[1].tobytes())}
    return _bench('detector', folder, good, 'features', **parameters)


def matcher(folder: Path, **parameters: object) -> AbstractContextManager[Bench]:
    """A matcher of a pair of cameras whose geometry needs calibrations."""
    inputs = {'features/info': good_info(), 'camera_info': camera_info(), 'features': good_features(Header())}
    good = {f'{side}/{topic}': message for topic, message in inputs.items() for side in ('left', 'right')}
    pair = {'cameras': '[left]', 'pairs': '["left:right"]', 'geometry': 'essential'}
    return _bench('matcher', folder, good, 'matches', **pair, **parameters)


def good_features(header: Header, count: int = 40, size: int = 128) -> PointCloud2:
    """A cloud of random features with descriptors of this size, which is that of the default model."""
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(count, size)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    points = rng.uniform(0, 400, (count, 2)).astype(np.float32)
    return features_message(Features(points, np.ones(count, np.float32), descriptors, (480, 480)), header)


def good_info() -> String:
    """A description of features of the default model."""
    checksum = models.checksum(models.resolve(models.DEFAULT).file('weights'))
    return String(data=json.dumps({'model': models.DEFAULT, 'checksum': checksum, 'image_size': [480, 480]}))


def camera_info() -> CameraInfo:
    """A calibration."""
    message = CameraInfo(height=480, width=480, distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = np.array([400, 0, 240, 0, 400, 240, 0, 0, 1], np.float64)
    return message
