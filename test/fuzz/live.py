"""A node under attack over DDS, and a program that talks to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String

from superpoint_ros.features import Features
from superpoint_ros.ros.messages import features_message, image_message
from superpoint_ros.stream_tracker import nanoseconds
from test.bags.conftest import picture
from test.fuzz.processes import DOMAIN, NodeProcess, peak, reset_peak
from test.fuzz.runner import FaultError

PATIENCE, PATIENCE_AT_START = 30.0, 90.0
"""Seconds within which a good message is answered, and the first one."""
PAUSE = 0.2
"""Seconds before a good message: a newer message replaces one that waits."""
MAX_MEGABYTES = 1500
MAX_LINE, MAX_LOG = 1000, 20_000
"""Most characters of a line of log, and of all lines after one attack."""
LENGTH_OF_HEADER = 4
"""Bytes before the serialized fields of a message."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Bench:
    """A node in a process of its own, with publishers and subscriptions of its topics. Subclasses know good messages.

    Args:
        name: detector or matcher.
        folder: for the log.
        parameters: of the node.
    """

    outputs: tuple[str, ...] = ()
    """Topics of clouds with the stamps of their inputs. The first answers good messages."""

    def __init__(self, name: str, folder: Path, **parameters: object) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node(f'attacker_of_{name}', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._start = lambda: NodeProcess(name, folder / 'log', threads=1, **parameters)
        self.process = self._start()
        self._read = 0
        self._stamps = count(time.time_ns(), 10**6)
        self._good: set[int] = set()
        self._received: dict[str, set[int]] = {topic: set() for topic in self.outputs}
        self._publishers: dict[str, Any] = {}
        for topic in self.outputs:
            add = self._received[topic].add
            self.node.create_subscription(PointCloud2, topic, lambda m, add=add: add(nanoseconds(m.header)), 10)

    def close(self) -> None:
        """End the node and the program."""
        self.process.stop()
        self.context.try_shutdown()

    def publish(self, topic: str, message: Any, qos: QoSProfile | int = 10) -> None:
        """Publish a message, or the bytes of one, once the node listens."""
        if isinstance(message, bytes) and len(message) == LENGTH_OF_HEADER:
            return  # Fast CDR reads beyond it before a node sees it, and any program that receives it may crash
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(KINDS[topic.rpartition('/')[2]], topic, qos)
        self.wait(self._publishers[topic].get_subscription_count, f'it does not listen to {topic}', PATIENCE_AT_START)
        self._publishers[topic].publish(message)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Wait until a condition is true; raises FaultError if the time is over."""
        if not self._spin_until(condition, seconds):
            raise FaultError(what)

    def _spin_until(self, condition: Callable[[], Any], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            if self.process.popen.poll() is not None:
                raise FaultError(f'the process ended with {self.process.popen.returncode}')
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def call(self, kind: type, name: str, request: Any) -> Any:
        """The response of a service of the node."""
        client = self.node.create_client(kind, f'/superpoint_{self.process.name}/{name}')
        try:
            self.wait(client.service_is_ready, f'no service {name}')
            future = client.call_async(request)
            self.wait(future.done, f'{name} does not answer')
            return future.result()
        finally:
            self.node.destroy_client(client)

    def change_state(self, transition: int) -> bool:
        """Ask for a transition; returns whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, 'change_state', request).success)

    def bring_to(self, wanted: str) -> None:
        """Bring the node to the state unconfigured or active; one that was shut down is started again."""
        steps = {'inactive': 2, 'active': 4} if wanted == 'unconfigured' else {'unconfigured': 1, 'inactive': 3}
        while (state := self.call(GetState, 'get_state', GetState.Request()).current_state.label) != wanted:
            if state == 'finalized':
                self._restart()
            elif not self.change_state(steps[state]):
                raise FaultError(f'cannot leave the state {state}')

    def send_good(self, header: Header) -> None:
        """Send good messages."""
        raise NotImplementedError

    def answered(self, seconds: float = PATIENCE) -> None:
        """Send good messages until one of them is answered."""
        sent: set[int] = set()
        again = 0.0

        def answer() -> bool:
            nonlocal again
            if time.monotonic() > again:
                stamp, again = next(self._stamps), time.monotonic() + 0.5
                header = Header(frame_id='camera')
                header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
                sent.add(stamp)
                self._good.add(stamp)
                self.send_good(header)
            return bool(sent & self._received[self.outputs[0]])

        self.wait(answer, 'good messages get no answer', seconds)

    def _any_other(self) -> bool:
        """Whether anything but good messages was answered."""
        return any(stamps - self._good for stamps in self._received.values())

    def _forget(self) -> None:
        for stamps in self._received.values():
            stamps.clear()

    def check(self) -> float:
        """Check what the node logged and its memory since the last check; returns the memory in MB."""
        with self.process.log.open(errors='replace') as file:
            file.seek(self._read)
            log = file.read()
            self._read = file.tell()
        megabytes = peak(self.process.popen.pid)
        reset_peak(self.process.popen.pid)
        if 'Traceback' in log:
            raise FaultError(f'traceback: {log[-1500:]}')
        if len(log) > MAX_LOG or any(len(line) > MAX_LINE for line in log.splitlines()):
            raise FaultError(f'{len(log)} characters of log: {log[:300]}')
        if megabytes > MAX_MEGABYTES:
            raise FaultError(f'took {megabytes:.0f} MB')
        return megabytes

    def attack(self, action: Callable[[], bool | None]) -> tuple[bool, float]:
        """Do something that returns whether it was processed, and see whether good messages are answered after it.

        Returns:
            Whether it was processed, and the most memory in MB.

        Raises:
            FaultError: good messages are not answered, or the node took or logged too much; it is started again.
        """
        try:
            processed = action()
            self._spin_until(self._any_other, PAUSE)
            self.answered()
            processed = bool(processed) or self._any_other()
            self._forget()
            return processed, self.check()
        except FaultError:
            self._restart()
            self.check()
            self._forget()
            raise

    def _restart(self) -> None:
        self.process.stop(seconds=5)
        self.process = self._start()
        self.answered(PATIENCE_AT_START)


class DetectorBench(Bench):
    """A detector of one camera."""

    outputs = ('features',)

    def __init__(self, folder: Path, transport: str = 'raw') -> None:
        super().__init__('detector', folder, image_transport=transport)
        self._transport = transport

    def send_good(self, header: Header) -> None:
        if self._transport == 'raw':
            self.publish('image', image_message(picture(0), header))
        else:
            data = cv2.imencode('.png', picture(0))[1].tobytes()
            self.publish('image/compressed', CompressedImage(header=header, format='png', data=data))


class MatcherBench(Bench):
    """A matcher of a pair of cameras whose geometry needs calibrations."""

    outputs = 'matches', 'left/tracks'

    def __init__(self, folder: Path) -> None:
        super().__init__('matcher', folder, cameras='[left]', pairs='["left:right"]', geometry='essential')
        self._describing = True

    def send_good(self, header: Header) -> None:
        for side in ('left', 'right'):
            if self._describing:
                self.publish(f'{side}/features/info', String(data=INFO), LATCHED)
                self.publish(f'{side}/camera_info', camera_info())
            self.publish(f'{side}/features', good_features(header))

    def describe(self, topic: str, data: bytes, qos: QoSProfile | int = 10) -> bool:
        """Publish a description of a camera; returns whether features are matched with it."""
        self.publish(topic, data, qos)
        self._describing = False
        try:
            self.answered(0.7)
        except FaultError:
            return False
        else:
            return True
        finally:
            self._describing = True


def good_features(header: Header, count: int = 40, size: int = 16) -> PointCloud2:
    """A cloud of random features."""
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(count, size)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    points = rng.uniform(0, 400, (count, 2)).astype(np.float32)
    return features_message(Features(points, np.ones(count, np.float32), descriptors, (480, 480)), header)


def camera_info() -> CameraInfo:
    """A calibration."""
    message = CameraInfo(height=480, width=480, distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = np.array([400, 0, 240, 0, 400, 240, 0, 0, 1], np.float64)
    return message


KINDS = {
    'image': Image,
    'compressed': CompressedImage,
    'features': PointCloud2,
    'info': String,
    'camera_info': CameraInfo,
}
INFO = '{"model": "any", "checksum": "abc", "image_size": [480, 480]}'


Made = TypeVar('Made', bound=Bench)


@contextmanager
def working(bench: Made) -> Iterator[Made]:
    """Wait until a bench works, and close it at the end."""
    try:
        bench.answered(PATIENCE_AT_START)
        bench.check()
        yield bench
    finally:
        bench.close()


@contextmanager
def both(folder: Path) -> Iterator[dict[bytes, Bench]]:
    """A detector, b'd', and a matcher, b'm', that work."""
    with ExitStack() as stack:
        nodes: dict[bytes, Bench] = {}
        for key, make in (b'd', DetectorBench), (b'm', MatcherBench):
            (folder / key.decode()).mkdir()
            nodes[key] = stack.enter_context(working(make(folder / key.decode())))
        yield nodes
