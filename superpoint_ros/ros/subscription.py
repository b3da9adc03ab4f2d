"""A subscription that adopts the reliability of its publishers and detects when messages do not arrive."""

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
"""Seconds without a publisher, or without a message despite a publisher, that count as trouble."""

NAMED = 10
"""Number of topics that a message names at most."""

REPEAT = 10.0
"""Seconds after which trouble that persists is logged again."""


class MatchedSubscription:
    """Subscribes to a topic with the reliability of its publishers.

    With default settings of the default middleware, best-effort messages over 0.5 MB do not arrive, and a reliable
    subscription receives nothing from a best-effort publisher. It therefore adopts what the publishers offer, and
    subscribes only when there is a publisher: a wrong guess would lose messages or log warnings in the publisher. If
    there are publishers of both kinds, it tries each for SILENCE and keeps the one that receives messages.

    The reliability is 'auto' as described, or always 'reliable' or 'best_effort'. `kind` is the class of the messages,
    and `topic` the name before remapping.
    """

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callable[[Any], None], reliability: str = 'auto'
    ) -> None:
        self.topic: str = node.resolve_topic_name(topic)
        self.publishers = 0
        """Number of publishers at the last check."""
        self._node = node
        self._name = topic  # unresolved: rclpy remaps it, and to remap twice may be wrong
        self._kind = kind
        self._callback = callback
        self._reliability = reliability
        self._subscription: Any = None
        self._reliable = False
        self._offered: set[bool] = set()
        self._last = self._subscribed_at = self._logged_at = self._published_at = time.monotonic()
        self._logged = ''
        self._absence_logged = False
        self._profile = resources.find('config/fastdds.xml')
        self._timer = node.create_timer(0.1, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._check()

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_timer(self._timer)
        self._unsubscribe()

    def trouble(self) -> str:
        """One sentence on why messages are missing or mixed, with a remedy; empty if all is well."""
        if not self.publishers:
            return ''
        if time.monotonic() - self._last > SILENCE:
            what = f'{self.topic} has a publisher, but nothing has arrived for over {SILENCE:.0f} s'
            if self._reliability == 'reliable' and False in self._offered:
                return f'{what}; a reliable subscription receives nothing from a best-effort publisher: use auto'
            if self._reliable and self._offered == {True}:
                return f'{what}; is it running?'
            return (
                f'{what}; best-effort messages over 0.5 MB are lost with default settings: publish reliably, or start '
                f'both sides with FASTDDS_DEFAULT_PROFILES_FILE={self._profile} (when launching: fastdds_profile:=true)'
            )
        if self._reliable and len(self._offered) > 1:
            return f'{self.topic} has {self.publishers} publishers, and only messages of the reliable ones arrive'
        if self.publishers > 1:
            return f'{self.topic} has {self.publishers} publishers, and their messages mix'
        return ''

    def _check(self) -> None:
        """Adopt the reliability of the publishers, and log trouble; called ten times a second."""
        publishers = self._node.get_publishers_info_by_topic(self._name)
        if not self.publishers:
            self._last = time.monotonic()
        self.publishers = len(publishers)
        self._offered = {p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers}
        reliable = self._choose()
        if publishers and (not self._subscription or reliable != self._reliable):
            self._unsubscribe()
            self._reliable, self._subscribed_at = reliable, time.monotonic()
            reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            qos = QoSProfile(depth=5, reliability=reliability)
            # Without this callback rclpy would warn about incompatible QoS, which _check resolves.
            events = SubscriptionEventCallbacks(incompatible_qos=lambda _: self._check())
            self._subscription = self._node.create_subscription(
                self._kind, self._name, self._receive, qos, event_callbacks=events
            )
        self._log_absence()
        if (trouble := self.trouble()) and (trouble != self._logged or time.monotonic() - self._logged_at > REPEAT):
            self._logged, self._logged_at = trouble, time.monotonic()
            self._node.get_logger().warning(trouble)

    def _log_absence(self) -> None:
        """Log once that nobody publishes the topic, and which topics could be meant instead."""
        if self.publishers:
            self._published_at, self._absence_logged = time.monotonic(), False
        elif not self._absence_logged and time.monotonic() - self._published_at > SILENCE:
            self._absence_logged = True
            kind = f'{self._kind.__module__.split(".")[0]}/msg/{self._kind.__name__}'
            own = {publisher.topic_name for publisher in self._node.publishers}
            names = [
                name
                for name, kinds in sorted(self._node.get_topic_names_and_types())
                if kind in kinds and name not in own and self._node.count_publishers(name)
            ]
            found = ', '.join(names[:NAMED]) or 'none'
            more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
            self._node.get_logger().warning(
                f'nobody publishes {self.topic} ({kind}); published topics of this type: {found}{more}'
            )

    def _choose(self) -> bool:
        """Whether to subscribe reliably."""
        if self._reliability != 'auto':
            return self._reliability == 'reliable'
        if len(self._offered) < 2 or not self._subscription:
            return True in self._offered
        silent = time.monotonic() - max(self._last, self._subscribed_at) > SILENCE
        return not self._reliable if silent else self._reliable

    def _unsubscribe(self) -> None:
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _receive(self, message: Any) -> None:
        self._last = time.monotonic()
        self._callback(message)
