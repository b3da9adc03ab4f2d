"""An input of a node: subscription, statistics and errors of one topic."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from superpoint_ros.ros.diagnostics import Statistics, printable
from superpoint_ros.ros.subscription import MatchedSubscription
from superpoint_ros.ros.topic_names import follow


class InputTopic:
    """Receives the messages of a topic, counts them, and reports errors; arguments as of MatchedSubscription."""

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
            expected = isinstance(error, ValueError)
            self.statistics.fail(str(error) if expected else repr(error))
            if self._node.context.ok():
                trace = '' if expected else '\n' + printable(traceback.format_exc(), 5000)
                self._node.get_logger().error(
                    f'{self.topic}: {self.statistics.last_error}{trace}', throttle_duration_sec=2
                )

    def health(self, publishing: bool) -> tuple[bytes, str]:
        """Level of a DiagnosticStatus and one sentence about the problem; OK and an empty string if there is none.

        A bad message is an error only if the node does not publish any results.
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
    """The images of a camera: <prefix>image (raw), or <prefix>image/compressed."""
    if image_transport == 'raw':
        return InputTopic(node, Image, f'{prefix}image', reliability)
    return InputTopic(node, CompressedImage, follow(node, f'{prefix}image', 'compressed'), reliability)
