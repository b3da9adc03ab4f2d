"""Receives the topics of the demo, and compares the matches with the known motion."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2, TimeReference

from superpoint_ros import clouds, images
from superpoint_ros.demo.scene import Scene
from superpoint_ros.features import Features
from superpoint_ros.geometry import transform_points
from superpoint_ros.ros.messages import features_from_message
from superpoint_ros.ros.subscription import MatchedSubscription
from superpoint_ros.stream_tracker import nanoseconds

TOLERANCE = 3.0
"""Largest distance in pixels of a right match from where the known motion moves its first point."""

WINDOW = 2.0
"""Seconds that the live frame rate is averaged over."""

MAX_LATENCY = 600.0
"""Seconds; a longer latency means that the stamps are of another clock, as when a bag is played."""

FRAMES, WAITING = 24, 60
"""Frames kept for the picture: those with tracks, and those that wait for their tracks."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image and its features, matches and tracks; None for what has not arrived."""

    image: images.Gray | None = None
    features: Features | None = None
    matches: npt.NDArray[np.void] | None = None
    right: npt.NDArray[np.bool_] | None = None
    """(M,), whether each match agrees with the known motion; None if the motion is unknown."""
    tracks: npt.NDArray[np.void] | None = None

    @property
    def complete(self) -> bool:
        """Whether it has image, features and tracks."""
        return self.image is not None and self.features is not None and self.tracks is not None


@dataclass
class Counts:
    """Figures of all messages so far; times are of the monotonic clock, in seconds."""

    images: list[float] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    """When features arrived."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from the stamp of an image to its features; empty if the stamps are of another clock."""
    keypoints: list[int] = field(default_factory=list)
    matches: list[int] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    """Of the longest track in each image."""
    judged: int = 0
    right: int = 0

    @staticmethod
    def rate(times: Sequence[float]) -> float:
        """Messages a second, from the first to the last."""
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def line(self) -> str:
        """The latest figures in one line; each topic must have arrived."""
        recent = [at for at in self.frames if at > time.monotonic() - WINDOW]
        words = [
            f'{self.rate(recent):5.1f} frames/s',
            f'latency {1000 * self.latencies[-1]:4.0f} ms' if self.latencies else 'latency unknown',
            f'{self.keypoints[-1]:4d} keypoints',
            f'{self.matches[-1]:4d} matches',
        ]
        if self.judged:
            words.append(f'{self.right / self.judged:.1%} right')
        return '   '.join(words)


class MonitorNode(Node):
    """Subscribes to an image topic and to `features`, `matches`, `tracks` and `diagnostics` in a namespace.

    The scene has the motion of the camera; it is None if that is unknown.
    """

    def __init__(self, namespace: str, image: str, scene: Scene | None) -> None:
        super().__init__('superpoint_monitor', namespace=namespace)
        self.counts = Counts()
        self.frames: dict[int, Frame] = {}
        """The newest frames by stamp in nanoseconds, in the order in which they arrived: a bag may start again."""
        self.failure = ''
        """The error that a node reports on diagnostics."""
        self.facts: dict[str, str] = {}
        """What the detector reports on diagnostics."""
        self._scene = scene
        self._first: deque[tuple[int, int]] = deque(maxlen=20)
        self._subscription = MatchedSubscription(self, Image, image, self._take_image)
        self.create_subscription(PointCloud2, 'features', self._take_features, 5)
        self.create_subscription(TimeReference, 'matches/first', self._take_first, 5)
        self.create_subscription(PointCloud2, 'matches', self._take_matches, 5)
        self.create_subscription(PointCloud2, 'tracks', self._take_tracks, 5)
        self.create_subscription(DiagnosticArray, 'diagnostics', self._take_diagnostics, 5)

    def missing(self) -> str:
        """The first of images, features, matches and tracks that has not arrived; empty if all have."""
        counts = self.counts
        arrived = {'images': counts.images, 'features': counts.frames, 'matches': counts.matches}
        for what, messages in arrived.items():
            if not messages:
                return what
        return '' if any(frame.complete for frame in self.frames.values()) else 'tracks'

    def _take_image(self, message: Image) -> None:
        self.counts.images.append(time.monotonic())
        self._keep(message, image=images.to_gray(message))

    def _take_features(self, message: PointCloud2) -> None:
        counts = self.counts
        counts.frames.append(time.monotonic())
        latency = (self.get_clock().now().nanoseconds - nanoseconds(message.header.stamp)) / 1e9
        if 0 <= latency < MAX_LATENCY:
            counts.latencies.append(latency)
        counts.keypoints.append(message.width)
        self._keep(message, features=features_from_message(message))

    def _take_first(self, message: TimeReference) -> None:
        self._first.append((nanoseconds(message.header.stamp), nanoseconds(message.time_ref)))

    def _take_matches(self, message: PointCloud2) -> None:
        matches = clouds.read_cloud(message)
        self.counts.matches.append(len(matches))
        stamp, right = nanoseconds(message.header.stamp), None
        first = dict(self._first).get(stamp)
        motion = self._scene.motion(first / 1e9, stamp / 1e9) if self._scene and first is not None else None
        if motion is not None:
            expected = transform_points(motion, np.stack([matches['x0'], matches['y0']], axis=1).astype(np.float64))
            offsets = expected - np.stack([matches['x1'], matches['y1']], axis=1)
            right = np.linalg.norm(offsets, axis=1) <= TOLERANCE
            self.counts.judged += len(right)
            self.counts.right += int(right.sum())
        self._keep(message, matches=matches, right=right)

    def _take_tracks(self, message: PointCloud2) -> None:
        tracks = clouds.read_cloud(message)
        self.counts.ages.append(int(tracks['age'].max(initial=0)))
        self._keep(message, tracks=tracks)

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level == DiagnosticStatus.ERROR:
                self.failure = f'{status.name}: {status.message}'
            if status.name == 'superpoint_detector' and status.values:
                self.facts = {pair.key: pair.value for pair in status.values}

    def _keep(self, message: Any, **what: Any) -> None:
        stamp = nanoseconds(message.header.stamp)
        self.frames[stamp] = replace(self.frames.get(stamp, Frame()), **what)
        stamps = list(self.frames)
        tracked = [at for at, frame in self.frames.items() if frame.tracks is not None]
        waiting = stamps[stamps.index(tracked[-1]) + 1 :] if tracked else stamps
        complete = [at for at, frame in self.frames.items() if frame.complete]
        # The matcher skipped a frame that came before the newest tracks and has none.
        kept = {*tracked[-FRAMES:], *waiting[-WAITING:], *complete[-1:]}
        self.frames = {at: frame for at, frame in self.frames.items() if at in kept}
