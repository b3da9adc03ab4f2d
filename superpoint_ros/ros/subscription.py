"""A subscription that takes the reliability that its publishers offer, and notices when nothing comes through."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from superpoint_ros import resources

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

SILENCE = 2.0
"""Seconds without a message, although there is a publisher, after which something is wrong."""

RELIABILITIES = ('auto', 'reliable', 'best_effort')


class MatchedSubscription:
    """Subscribes to a topic, reliably if all its publishers are reliable, else best-effort.

    A best-effort message over 0.5 MB does not arrive on stock settings of the default middleware, and a reliable
    subscription hears nothing of a best-effort publisher; so the publishers decide.

    Args:
        node: that subscribes.
        kind: message class.
        topic: name, before remapping.
        callback: called with each message.
        reliability: 'auto' as said above, or always 'reliable' or 'best_effort'.
    """

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callable[[Any], None], reliability: str = 'auto'
    ) -> None:
        self._node = node
        self._kind = kind
        self._callback = callback
        self._auto = reliability == 'auto'
        self._reliable = reliability != 'best_effort'
        self._last = time.monotonic()
        self._subscription = self._subscribe(topic)
        self.topic: str = self._subscription.topic_name
        self.publishers = 0
        """How many there were at the last check."""
        self.check()

    def check(self) -> None:
        """Look at the publishers, and follow their reliability; call it twice a second or so."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not self.publishers:
            self._last = time.monotonic()
        self.publishers = len(publishers)
        reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        if self._auto and publishers and reliable != self._reliable:
            self._reliable = reliable
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe(self.topic)

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)

    def trouble(self) -> str:
        """One sentence on why messages are missing or mixed, and what helps; empty if they are not."""
        silent = time.monotonic() - self._last
        if self.publishers and silent > SILENCE:
            what = f'{self.topic} has a publisher, but nothing has arrived for {silent:.0f} s'
            if self._reliable and self._auto:
                return f'{what}; is it running?'
            profile = resources.find('config/fastdds.xml')
            return (
                f'{what}; best-effort messages over 0.5 MB are lost on stock settings: publish reliably, or start both '
                f'sides with FASTDDS_DEFAULT_PROFILES_FILE={profile} (when launching: fastdds_profile:=true)'
            )
        if self.publishers > 1:
            return f'{self.topic} has {self.publishers} publishers, and their messages mix'
        return ''

    def _subscribe(self, topic: str) -> Any:
        reliability = ReliabilityPolicy.RELIABLE if self._reliable else ReliabilityPolicy.BEST_EFFORT
        events = SubscriptionEventCallbacks(incompatible_qos=lambda _: self.check())
        qos = QoSProfile(depth=5, reliability=reliability)
        return self._node.create_subscription(self._kind, topic, self._receive, qos, event_callbacks=events)

    def _receive(self, message: Any) -> None:
        self._last = time.monotonic()
        self._callback(message)
