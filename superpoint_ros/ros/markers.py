"""Keypoints and tracks as annotations, which Foxglove and Lichtblick draw over the image themselves."""

from __future__ import annotations

from collections import deque

import numpy as np
from geometry_msgs.msg import Point
from rclpy.node import Node
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import ImageMarker

from superpoint_ros.features import Floats
from superpoint_ros.ros.topic_names import follow
from superpoint_ros.tracking import Tracks

TRAIL = 10
"""Number of frames that the line of a track goes back."""

YELLOW, GREEN = ColorRGBA(r=1.0, g=0.85, b=0.2, a=1.0), ColorRGBA(r=0.3, g=0.9, b=0.4, a=1.0)


class MarkerTopic:
    """Publishes visualization_msgs/ImageMarker on <topic>/markers; `topic` is the name before remapping."""

    def __init__(self, node: Node, topic: str) -> None:
        self._publisher = node.create_publisher(ImageMarker, follow(node, topic, 'markers'), 5)

    @property
    def wanted(self) -> bool:
        """Whether the topic has a subscriber."""
        return int(self._publisher.get_subscription_count()) > 0

    def publish_dots(self, points: Floats, header: Header) -> None:
        """Publish a dot at each of (N, 2) pixels of the image with this header."""
        self._publish(points, header, type=ImageMarker.POINTS, outline_color=YELLOW, scale=2.0)  # radius in pixels

    def publish_lines(self, starts: Floats, ends: Floats, header: Header) -> None:
        """Publish a line between each two of (N, 2) pixels of the image with this header."""
        points = np.stack([starts, ends], axis=1).reshape(-1, 2)
        self._publish(points, header, type=ImageMarker.LINE_LIST, outline_color=GREEN, scale=1.5)  # width in pixels

    def _publish(self, points: Floats, header: Header, **appearance: object) -> None:
        # The viewers have the corner of the top-left pixel at (0, 0), not its center.
        corners = [Point(x=x, y=y) for x, y in (points.astype(float) + 0.5).tolist()]
        self._publisher.publish(ImageMarker(header=header, ns='superpoint', points=corners, **appearance))


class Trails:
    """Where the points of tracks were up to TRAIL frames ago."""

    def __init__(self) -> None:
        self._frames: deque[Tracks] = deque(maxlen=TRAIL)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def add(self, tracks: Tracks) -> tuple[Floats, Floats]:
        """Add the tracks of a frame.

        Returns:
            (M, 2) where each point that was there before was in the oldest of the frames, and (M, 2) where it is now.
        """
        starts = np.full_like(tracks.keypoints, np.nan)
        for earlier in reversed(self._frames):
            _, now, then = np.intersect1d(tracks.ids, earlier.ids, return_indices=True)
            starts[now] = earlier.keypoints[then]
        self._frames.append(tracks)
        found = ~np.isnan(starts[:, 0])
        return starts[found], tracks.keypoints[found]
