"""An input of a node: subscription, statistics and errors of one topic."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from superpoint_ros import images
from superpoint_ros.ros.diagnostics import Statistics, printable
from superpoint_ros.ros.subscription import MatchedSubscription
from superpoint_ros.ros.topic_names import follow


class InputTopic:
    """Receives the messages of a topic, counts them, and reports errors.

    Args:
        node: the subscriber.
        kind: message class.
        topic: name before remapping.
        reliability: see MatchedSubscription.
    """

    def __init__(self, node: Node, kind: type, topic: str, reliability: str = 'auto') -> None:
        self.topic = topic
        self.statistics = Statistics()
        self._node = node
        self._kind = kind
        self._reliability = reliability
        self._subscription: MatchedSubscription | None = None

    def subscribe(self, receive: Callable[[Any, float], None]) -> None:
        """Call a function with each message and the monotonic time in seconds at which it arrived."""
        self._subscription = MatchedSubscription(
            self._node, self._kind, self.topic, lambda m: receive(m, self.statistics.receive()), self._reliability
        )

    def unsubscribe(self) -> None:
        """Stop receiving."""
        if self._subscription:
            self._subscription.destroy()
            self._subscription = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Count and log an error in the processing of a message, so that the node continues with the next message."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - an error of any kind concerns this message only
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Count a message that could not be processed, and log why."""
        expected = isinstance(error, ValueError)
        self.statistics.fail(str(error) if expected else repr(error))
        if self._node.context.ok():
            trace = '' if expected else '\n' + printable(''.join(traceback.format_exception(error)), 5000)
            self._node.get_logger().error(f'{self.topic}: {self.statistics.last_error}{trace}', throttle_duration_sec=2)

    def health(self, publishing: bool) -> tuple[bytes, str]:
        """Level of a DiagnosticStatus and one sentence about the problem; OK and an empty string if there is none.

        Args:
            publishing: whether the node currently publishes results.
        """
        subscription = self._subscription
        if subscription and not subscription.publishers:
            return DiagnosticStatus.STALE, f'nobody publishes {subscription.topic}'
        if subscription and (trouble := subscription.trouble()):
            return DiagnosticStatus.WARN, trouble
        if self.statistics.failing:
            level = DiagnosticStatus.WARN if publishing else DiagnosticStatus.ERROR
            return level, f'{self.topic}: {self.statistics.last_error}'
        return DiagnosticStatus.OK, ''


def image_input(node: Node, prefix: str, image_transport: str, reliability: str = 'auto') -> InputTopic:
    """The images of a camera: <prefix>image, or <prefix>image/compressed.

    Args:
        node: the subscriber.
        prefix: namespace with a slash at its end, or empty.
        image_transport: raw or compressed.
        reliability: see MatchedSubscription.
    """
    if image_transport == 'raw':
        return InputTopic(node, Image, f'{prefix}image', reliability)
    return InputTopic(node, CompressedImage, follow(node, f'{prefix}image', 'compressed'), reliability)


def gray_image(message: Image | CompressedImage) -> images.Gray:
    """The gray image in a message, (H, W).

    Raises:
        ValueError: the message is not valid; one sentence says why.
    """
    return images.decompress(message) if isinstance(message, CompressedImage) else images.to_gray(message)
