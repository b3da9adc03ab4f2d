"""The matcher's inputs of one camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import String

from superpoint_ros import clouds, images
from superpoint_ros.calibration import Calibration, read_camera_info
from superpoint_ros.ros.input_topic import InputTopic, image_input
from superpoint_ros.ros.matcher_config import MatcherConfig
from superpoint_ros.ros.topic_names import follow
from superpoint_ros.stream_tracker import Frame, nanoseconds

IMAGES_KEPT = 10
"""Number of images kept until their features arrive."""


@dataclass(frozen=True)
class Arrival:
    """A feature message and what was known when it arrived.

    Args:
        message: the features.
        received_at: monotonic time in seconds.
        publishers: global identities of the publishers of the topic.
        info: last message on features/info; empty if there was none.
    """

    message: PointCloud2
    received_at: float
    publishers: frozenset[bytes]
    info: str

    def frame(self) -> Frame:
        """The frame in the message.

        Raises:
            ValueError: the message is not valid; one sentence says why.
        """
        features = clouds.decode_features(self.message, self.info)
        if not (np.isfinite(features.keypoints).all() and np.isfinite(features.descriptors).all()):
            raise ValueError('a keypoint or descriptor is not a finite number')
        if not features.descriptors.shape[1]:
            raise ValueError('the features have no descriptors: they come from a model that only detects')
        return Frame(self.message.header, features, self.publishers)


class FeatureStream:
    """Receives the features of one camera with their features/info, and if needed camera_info and images.

    The namespace `name` may be empty; `config` may be replaced.
    """

    def __init__(self, node: Node, name: str, config: MatcherConfig) -> None:
        self.name = name
        self.prefix = f'{name}/' if name else ''
        self.input = InputTopic(node, PointCloud2, f'{self.prefix}features', config.qos_reliability)
        self._images = image_input(node, self.prefix, config.image_transport)
        self._node = node
        self.config = config
        self._publishers: frozenset[bytes] = frozenset()
        self._info, self._info_at = '', 0.0
        self._camera_info: CameraInfo | None = None
        self._kept: dict[int, Any] | None = None

    def subscribe(self, receive: Callable[[Arrival], None]) -> None:
        """Call a function with each feature message. The node destroys the subscriptions when it is deactivated."""
        # They may be of other publishers than those of now, whose latched info arrives again.
        self._publishers, self._info = frozenset(), ''
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        info = follow(self._node, self.input.topic, 'info')
        self._node.create_subscription(String, info, self._take_info, latched)
        if self.config.geometry == 'essential':
            # Best effort also receives from reliable publishers.
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            topic = f'{self.prefix}camera_info'
            self._node.create_subscription(CameraInfo, topic, self._take_camera_info, qos)

        def arrived(message: PointCloud2, received_at: float) -> None:
            self._update_publishers()
            with self.input.guard():
                _check_size(message, self.config.max_points)
                receive(Arrival(message, received_at, self._publishers, self._info))

        self.input.subscribe(arrived)

    def unsubscribe(self) -> None:
        """Stop receiving."""
        self.input.unsubscribe()
        self.keep_images(False)

    def keep_images(self, keep: bool) -> None:
        """Subscribe to the images while they are needed for drawing."""
        if keep and self._kept is None:
            self._kept = {}
            self._images.subscribe(self._take_image)
        elif not keep and self._kept is not None:
            self._images.unsubscribe()
            self._kept = None

    def image(self, frame: Frame) -> images.Gray | None:
        """The image of a frame; None if it did not arrive or is broken."""
        message = (self._kept or {}).get(frame.stamp)
        try:
            return None if message is None else images.gray(message)
        except ValueError:  # the detector reports it
            return None

    def calibration(self) -> Calibration:
        """The calibration of the camera.

        Raises:
            ValueError: there is none.
        """
        if self._camera_info is None:
            raise ValueError(f'geometry is essential, but nothing arrived on {self.prefix}camera_info')
        return read_camera_info(self._camera_info, self.config.rectified)

    def _update_publishers(self) -> None:
        infos = self._node.get_publishers_info_by_topic(self.input.topic)
        publishers = frozenset(bytes(info.endpoint_gid) for info in infos) or self._publishers
        if self._publishers and publishers - self._publishers and time.monotonic() - self._info_at > 1:
            self._info = ''  # it describes the old publisher; the new one sends its own with its first features
        self._publishers = publishers

    def _take_info(self, message: String) -> None:
        self._info, self._info_at = message.data, time.monotonic()

    def _take_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _take_image(self, message: Any, _received_at: float) -> None:
        if self._kept is not None:
            self._kept[nanoseconds(message.header.stamp)] = message
            while len(self._kept) > IMAGES_KEPT:
                del self._kept[next(iter(self._kept))]


def _check_size(message: PointCloud2, limit: int) -> None:
    """Refuse a cloud with too many points before it waits in a queue and memory is taken for it."""
    count = message.width * message.height
    if count > limit:
        raise ValueError(
            f'the cloud has {count} points, more than max_points ({limit}): raise it, or lower max_keypoints of the '
            'detector'
        )
