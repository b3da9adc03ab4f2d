"""Statistics of a node and their publication on /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node

WINDOW = 5.0
"""Seconds over which rates and latencies are measured."""


def printable(text: str, limit: int = 300) -> str:
    """Text that logs and messages can carry: at most `limit` characters, without those that UTF-8 cannot encode."""
    short = text if len(text) <= limit else f'{text[:limit]}…'
    return short.encode('utf-8', 'backslashreplace').decode()


class Statistics:
    """Counts the messages of one topic; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._in: deque[float] = deque()
        self._out: deque[tuple[float, float]] = deque()
        self._bad_at = float('-inf')
        self.received = self.published = self.dropped = self.bad = 0
        self.last_error = ''

    def receive(self) -> float:
        """Count a received message; returns the time, for publish."""
        now = time.monotonic()
        with self._lock:
            self.received += 1
            self._in.append(now)
            self._forget(now)
        return now

    def publish(self, received_at: float) -> None:
        """Count a published result of the message that was received at that time."""
        now = time.monotonic()
        with self._lock:
            self.published += 1
            self._out.append((now, now - received_at))
            self._forget(now)

    def drop(self) -> None:
        """Count a message that was dropped for a newer one."""
        with self._lock:
            self.dropped += 1

    def fail(self, error: str) -> None:
        """Count a message that could not be processed."""
        with self._lock:
            self.bad += 1
            self.last_error = printable(error)
            self._bad_at = time.monotonic()

    @property
    def failing(self) -> bool:
        """Whether a message failed within the window."""
        return time.monotonic() - self._bad_at < WINDOW

    def values(self) -> dict[str, str]:
        """All figures, by name with unit."""
        with self._lock:
            now = time.monotonic()
            self._forget(now)
            span = max(min(WINDOW, now - self._began), 1e-3)
            latencies = [1000 * latency for _, latency in self._out]
            p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (float('nan'), float('nan'))
            return {
                'rate in [Hz]': f'{len(self._in) / span:.1f}',
                'rate out [Hz]': f'{len(self._out) / span:.1f}',
                'latency p50 [ms]': f'{p50:.1f}',
                'latency p99 [ms]': f'{p99:.1f}',
                'received': str(self.received),
                'published': str(self.published),
                'dropped': str(self.dropped),
                'bad': str(self.bad),
                'last error': self.last_error,
            }

    def _forget(self, now: float) -> None:
        """Forget what is older than the window; called for each message, as the figures may never be read."""
        while self._in and self._in[0] < now - WINDOW:
            self._in.popleft()
        while self._out and self._out[0][0] < now - WINDOW:
            self._out.popleft()


def status(level: bytes, name: str, message: str, values: Mapping[str, object], hardware: str = '') -> DiagnosticStatus:
    """A DiagnosticStatus; `level` is one of its constants."""
    pairs = [KeyValue(key=key, value=printable(str(value))) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=printable(message), hardware_id=hardware, values=pairs)


def report_every_second(node: Node, statuses: Callable[[], list[DiagnosticStatus]]) -> None:
    """Publish a node's statuses on /diagnostics once a second, in every state of its lifecycle."""
    publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def report() -> None:
        message = DiagnosticArray(status=statuses())
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    # Steady time, so that it also reports while a simulation is paused.
    node.create_timer(1.0, report, clock=Clock(clock_type=ClockType.STEADY_TIME))
