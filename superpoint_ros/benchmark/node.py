"""Measures the detector node between other processes: camera → detector → receiver."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from superpoint_ros import features
from superpoint_ros.benchmark.measure import spread
from superpoint_ros.benchmark.methods import ask, child
from superpoint_ros.demo.processes import interrupt_at_input, interrupts, ros_arguments
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features
from superpoint_ros.ros.detector_node import DetectorNode
from superpoint_ros.ros.messages import image_message
from superpoint_ros.ros.process import run
from superpoint_ros.stream_tracker import nanoseconds

NAMESPACE = '/superpoint_benchmark'
PATIENCE = 120.0
"""Seconds to wait for the first features."""
WARM_UP, TAIL = 1.0, 2.0
"""Seconds from the first features to the start of the measurement, and from its end for late features to arrive."""

VERDICT = 'latency less Extractor'


class Call(NamedTuple):
    """A call of the Extractor in the detector's process."""

    start: int
    """In nanoseconds of the system clock, as the stamps of the images."""
    end: int
    cpu: float
    """CPU seconds of the process until then."""
    frames: int
    """Images processed until then."""


def measure_node(
    model: str, options: dict[str, Any], images: Sequence[features.Image], rate: float, seconds: float, cameras: int = 1
) -> dict[str, Any]:
    """Measure the latency from publishing an image to receiving its features, drops and CPU use.

    Each camera sends the images, of one size, to one detector as mono8, at a rate in Hz.

    Raises:
        RuntimeError: no features arrive.
    """
    names = [f'camera{index}' for index in range(cameras)]
    arguments = ros_arguments(NAMESPACE, {'model': model, 'cameras': names, **options}, {})
    with (
        child(_until_asked, _detect, arguments) as detector,
        child(_until_asked, _publish, names, images, rate) as camera,
    ):
        window, received = _receive(names, seconds, detector[0].is_alive)
        stamps, (about, calls) = ask(*camera), ask(*detector)
    height, width = images[0].shape
    setting = {'size': [width, height], 'rate': rate, 'cameras': cameras, 'about': about}
    return {**setting, **summarize(window, stamps, received, calls)}


def summarize(
    window: tuple[int, int], stamps: Sequence[int], received: dict[int, int], calls: Sequence[Call]
) -> dict[str, Any]:
    """Summarize a run; all times are nanoseconds of the system clock.

    Args:
        window: only images with stamps in it count.
        stamps: of all published images.
        received: stamp → time when its features arrived.
        calls: of the Extractor, in order.
    """
    published = [stamp for stamp in stamps if window[0] <= stamp < window[1]]
    arrived = np.array([(stamp, received[stamp]) for stamp in published if stamp in received]).reshape(-1, 2)
    if not len(arrived):
        raise RuntimeError('the node published no features while it was measured')
    # The features come from the last call that had ended when they arrived.
    behind = np.searchsorted([call.end for call in calls], arrived[:, 1], side='right') - 1
    start, end = (np.array([getattr(calls[i], name) for i in behind]) for name in ('start', 'end'))
    latency, extractor = arrived[:, 1] - arrived[:, 0], end - start
    times = {
        'latency': latency,
        'Extractor': extractor,
        VERDICT: latency - extractor,
        'image to Extractor (waiting for the frame before it, too)': start - arrived[:, 0],
        'Extractor to receiver': arrived[:, 1] - end,
    }
    first, last = calls[behind[0]], calls[behind[-1]]
    cpu, frames = last.cpu - first.cpu, max(last.frames - first.frames, 1)
    return {
        'verdict': VERDICT,
        'published': len(published),
        'received': len(arrived),
        'dropped': len(published) - len(arrived),
        'milliseconds': {name: spread((values / 1e6).tolist()) for name, values in times.items()},
        'cpu': cpu / max((last.end - first.end) / 1e9, 1e-9),
        'cpu_ms_per_frame': 1000 * cpu / frames,
        'samples': {name: (values / 1e6).tolist() for name, values in times.items()},
    }


def _receive(names: Sequence[str], seconds: float, alive: Callable[[], bool]) -> tuple[tuple[int, int], dict[int, int]]:
    """Receive features; returns the window of stamps, and the time when the features of each stamp arrived.

    Raises:
        RuntimeError: no features arrive, or the detector is not alive.
    """
    received: dict[int, int] = {}

    def take(message: PointCloud2) -> None:
        received[nanoseconds(message.header.stamp)] = time.time_ns()

    def spin(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while not until() and alive() and (left := end - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=min(left, 0.1))
            if interrupt.is_set():
                raise KeyboardInterrupt

    context = rclpy.Context()  # type: ignore[attr-defined]
    rclpy.init(context=context)
    try:
        node = Node('receiver', context=context, namespace=NAMESPACE)
        for name in names:
            node.create_subscription(PointCloud2, f'{name}/features', take, QoSProfile(depth=5))
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        with interrupts() as interrupt:
            spin(PATIENCE, until=lambda: bool(received))
            if alive() and not received:
                raise RuntimeError(
                    f'no features arrived within {PATIENCE:g} s; the log of the detector above may say why'
                )
            spin(WARM_UP)
            start = time.time_ns()
            spin(seconds)
            end = time.time_ns()
            spin(TAIL)
    finally:
        rclpy.shutdown(context=context)
    if not alive():
        raise RuntimeError('the detector ended; its log above says why')
    return (start, end), received


def _until_asked(results: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    """Run a function until the parent asks for its result, or ends."""
    interrupt_at_input(results.fileno())
    result = function(*arguments)
    with suppress(ConnectionError):
        results.send(result)


def _publish(names: Sequence[str], images: Sequence[features.Image], rate: float) -> list[int]:
    """Run the cameras until a SIGINT; returns the stamps of their images."""
    rclpy.init()
    node = Node('camera', namespace=NAMESPACE)
    # Reliable, so that messages over 0.5 MB arrive with default settings.
    publishers = [node.create_publisher(Image, f'{name}/image', QoSProfile(depth=1)) for name in names]
    messages = [image_message(image, Header(frame_id='camera')) for image in images]
    stamps: list[int] = []

    def publish() -> None:
        for publisher in publishers:
            message, stamp = messages[len(stamps) % len(messages)], node.get_clock().now()
            message.header.stamp = stamp.to_msg()
            stamps.append(stamp.nanoseconds)
            publisher.publish(message)

    node.create_timer(1 / rate, publish)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    return stamps


def _detect(arguments: Sequence[str]) -> tuple[str, list[Call]]:
    """Run the detector node until a SIGINT; returns its model and back end, and the calls of its Extractor."""
    calls: list[Call] = []
    about = ''

    class Timed(Extractor):
        def batch(self, *args: Any, **kwargs: Any) -> list[Features | Exception]:
            start = time.time_ns()
            features = super().batch(*args, **kwargs)
            done = calls[-1].frames if calls else 0
            calls.append(Call(start, time.time_ns(), time.process_time(), done + len(features)))
            return features

    def make(*args: Any, **kwargs: Any) -> Extractor:
        nonlocal about
        extractor = Timed(*args, **kwargs)
        about = f'{extractor.model.name}, {extractor.runtime.name} {extractor.runtime.precision}'
        return extractor

    run(lambda: DetectorNode(make), ['--ros-args', *arguments])
    return about, calls
