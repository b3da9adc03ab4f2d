"""Masks of the images of a camera, from a topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from sensor_msgs.msg import Image

from superpoint_ros import images
from superpoint_ros.ros.detector_config import DetectorConfig
from superpoint_ros.ros.input_topic import InputTopic
from superpoint_ros.ros.mask_wait import WAITING, MaskWait
from superpoint_ros.stream_tracker import nanoseconds


class Arrival(NamedTuple):
    """An image message to process, and the message with its mask, or None."""

    image: Any
    received_at: float
    """Monotonic time in seconds."""
    mask: Image | None = None


class MaskTopic:
    """Receives the images of a camera with their masks; `prefix` is a namespace with a slash at its end, or empty."""

    def __init__(self, node: Node, prefix: str, config: DetectorConfig) -> None:
        self._node = node
        self._timeout = config.mask_timeout
        self._input = InputTopic(node, Image, f'{prefix}mask', config.qos_reliability)
        self._receive: Callable[[Arrival], None] | None = None
        self._wait: MaskWait[Arrival, Image] = MaskWait(
            config.mask_timeout, config.mask_topic == 'required', self._pass
        )

    def subscribe(self, image_input: InputTopic, receive: Callable[[Arrival], None]) -> None:
        """Call a function with each image, as soon as its mask has arrived or is given up."""
        self._receive, wait = receive, self._wait
        image_input.subscribe(lambda image, at: wait.add_image(nanoseconds(image.header.stamp), Arrival(image, at), at))
        self._input.subscribe(lambda mask, _: wait.add_mask(nanoseconds(mask.header.stamp), mask))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period = min(self._timeout / 4, 0.02)
        self._node.create_timer(period, lambda: wait.expire(time.monotonic()), clock=steady)

    def unsubscribe(self) -> None:
        """Stop receiving masks, and forget the images that wait for theirs."""
        self._input.unsubscribe()
        self._wait.clear()

    def values(self) -> dict[str, object]:
        """Figures for /diagnostics."""
        return {'masks received': self._input.statistics.received, 'masks missing': self._wait.missing}

    def health(self) -> tuple[bytes, str]:
        """Level of a DiagnosticStatus and one sentence about the problem; OK and an empty string if there is none."""
        _, problem = self._input.health(publishing=True)
        if not problem and self._wait.missing and not self._wait.paired and self._input.statistics.received:
            problem = f'none of the masks on {self._input.topic} has the stamp of an image'
            if self._wait.late:
                problem = (
                    f'the masks on {self._input.topic} come too late: raise mask_timeout ({self._timeout} s); at most '
                    f'{WAITING} images wait'
                )
        return DiagnosticStatus.WARN if problem else DiagnosticStatus.OK, problem

    def _pass(self, arrival: Arrival, mask: Image | None) -> None:
        assert self._receive
        self._receive(arrival._replace(mask=mask))


def mask_in(message: Image) -> images.Gray:
    """The mask in a message, (H, W), 0 where keypoints are not allowed.

    Raises:
        ValueError: the message is not a valid mono8 image.
    """
    if message.encoding not in ('mono8', '8UC1'):
        raise ValueError(f'mask: expected encoding mono8, got {message.encoding!r}')
    try:
        return images.to_gray(message)
    except ValueError as error:
        raise ValueError(f'mask: {error}') from None
