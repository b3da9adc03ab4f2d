"""A subscription that takes the reliability that its publishers offer, and notices when nothing comes through."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from superpoint_ros import resources

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks  # type: ignore[no-redef]

SILENCE = 2.0
"""Seconds without a message, although there is a publisher, after which something is wrong."""

REPEAT = 10.0
"""Seconds after which the log says again what is still wrong."""

RELIABILITIES = ('auto', 'reliable', 'best_effort')


class MatchedSubscription:
    """Subscribes to a topic, reliably if all its publishers are reliable, else best-effort.

    A best-effort message over 0.5 MB does not arrive on stock settings of the default middleware, and a reliable
    subscription hears nothing of a best-effort publisher; so the publishers decide. Until there is one, nothing is
    subscribed: any guess would lose a first message, or make the publisher's log complain.

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
        self.topic: str = node.resolve_topic_name(topic)
        self.publishers = 0
        """How many there were at the last check."""
        self._node = node
        self._name = topic  # names are remapped by whatever takes them, and remapping twice may undo it
        self._kind = kind
        self._callback = callback
        self._reliability = reliability
        self._subscription: Any = None
        self._reliable = self._offered_reliable = False
        self._last = self._told_at = time.monotonic()
        self._told = ''
        self._profile = resources.find('config/fastdds.xml')
        self._timer = node.create_timer(0.1, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._check()

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_timer(self._timer)
        self._unsubscribe()

    def trouble(self) -> str:
        """One sentence on why messages are missing or mixed, and what helps; empty if they are not."""
        if not self.publishers:
            return ''
        if time.monotonic() - self._last > SILENCE:
            what = f'{self.topic} has a publisher, but nothing has arrived for over {SILENCE:.0f} s'
            if self._reliable and not self._offered_reliable:
                return f'{what}; it publishes best-effort, and a reliable subscription cannot hear that: use auto'
            if self._reliable:
                return f'{what}; is it running?'
            return (
                f'{what}; best-effort messages over 0.5 MB are lost on stock settings: publish reliably, or start both '
                f'sides with FASTDDS_DEFAULT_PROFILES_FILE={self._profile} (when launching: fastdds_profile:=true)'
            )
        if self.publishers > 1:
            return f'{self.topic} has {self.publishers} publishers, and their messages mix'
        return ''

    def _check(self) -> None:
        """Ten times a second: look at the publishers, follow their reliability, log what is wrong."""
        publishers = self._node.get_publishers_info_by_topic(self._name)
        if not self.publishers:
            self._last = time.monotonic()
        self.publishers = len(publishers)
        self._offered_reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        reliable = self._offered_reliable if self._reliability == 'auto' else self._reliability == 'reliable'
        if publishers and (not self._subscription or reliable != self._reliable):
            self._unsubscribe()
            self._reliable = reliable
            reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            qos = QoSProfile(depth=5, reliability=reliability)
            # Without a callback of ours, rclpy would warn that nothing will be received, which we are about to mend.
            events = SubscriptionEventCallbacks(incompatible_qos=lambda _: self._check())
            self._subscription = self._node.create_subscription(
                self._kind, self._name, self._receive, qos, event_callbacks=events
            )
        if (trouble := self.trouble()) and (trouble != self._told or time.monotonic() - self._told_at > REPEAT):
            self._told, self._told_at = trouble, time.monotonic()
            self._node.get_logger().warning(trouble)

    def _unsubscribe(self) -> None:
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _receive(self, message: Any) -> None:
        self._last = time.monotonic()
        self._callback(message)
