"""The features of one camera as they come in, and what makes them others than those before."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String

from superpoint_ros import images
from superpoint_ros.ros.diagnostics import Statistics
from superpoint_ros.ros.messages import features_from_message
from superpoint_ros.ros.subscription import MatchedSubscription
from superpoint_ros.stream_tracker import Frame, nanoseconds

IMAGES_KEPT = 10
"""Images kept to draw on, until the features come that were found in them."""


@dataclass(frozen=True)
class Arrival:
    """A feature message and what was known when it came.

    Args:
        message: as it came.
        received_at: monotonic time in seconds.
        writers: of the topic: each publisher's global identity.
        info: what features/info said last; empty if nothing.
    """

    message: PointCloud2
    received_at: float
    writers: frozenset[bytes]
    info: str


class FeatureStream:
    """Subscribes to what is published of one camera.

    Args:
        node: that subscribes.
        name: namespace of the topics; empty for none.
        reliability: of the subscription to the features, see MatchedSubscription.
        image_transport: raw or compressed.
        calibrated: whether the camera's calibration is needed.
    """

    def __init__(self, node: Node, name: str, reliability: str, image_transport: str, calibrated: bool) -> None:
        self.name = name
        self.statistics = Statistics()
        self.camera_info: CameraInfo | None = None
        self._node = node
        self._prefix = f'{name}/' if name else ''
        self._reliability = reliability
        self._compressed = image_transport == 'compressed'
        self._calibrated = calibrated
        self._subscription: MatchedSubscription | None = None
        self._others: list[Any] = []
        self._writers: frozenset[bytes] = frozenset()
        self._info, self._info_at = '', 0.0
        self._images: dict[int, Any] = {}
        self._image_subscription: MatchedSubscription | None = None

    @property
    def topic(self) -> str:
        """The features' topic, before remapping."""
        return f'{self._prefix}features'

    def subscribe(self, receive: Callable[[Arrival], None]) -> None:
        """Start to receive."""

        def arrived(message: PointCloud2) -> None:
            received_at = self.statistics.receive()
            self._look_for_writers()
            receive(Arrival(message, received_at, self._writers, self._info))

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._others = [
            self._node.create_subscription(String, f'{self._prefix}features/info', self._take_info, latched)
        ]
        if self._calibrated:
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # hears reliable publishers too
            topic = f'{self._prefix}camera_info'
            self._others.append(self._node.create_subscription(CameraInfo, topic, self._take_camera_info, qos))
        self._subscription = MatchedSubscription(self._node, PointCloud2, self.topic, arrived, self._reliability)

    def unsubscribe(self) -> None:
        """Stop to receive."""
        for subscription in self._others:
            self._node.destroy_subscription(subscription)
        self._others = []
        if self._subscription:
            self._subscription.destroy()
            self._subscription = None
        self._stop_images()

    def watch(self, drawing: bool) -> None:
        """Subscribe to images while someone wants to see them."""
        if drawing and not self._image_subscription:
            # As image_transport does it: remapping the plain topic moves the compressed one with it.
            topic = self._node.resolve_topic_name(f'{self._prefix}image')
            kind, topic = (CompressedImage, f'{topic}/compressed') if self._compressed else (Image, topic)
            self._image_subscription = MatchedSubscription(self._node, kind, topic, self._take_image)
        if not drawing:
            self._stop_images()

    def _stop_images(self) -> None:
        if self._image_subscription:
            self._image_subscription.destroy()
            self._image_subscription = None
        self._images = {}

    @property
    def trouble(self) -> str:
        """One sentence on why nothing comes in; empty if nobody publishes, or all is well."""
        return self._subscription.trouble() if self._subscription else ''

    @property
    def unpublished(self) -> str:
        """The topic if nobody publishes on it, else empty."""
        return self._subscription.topic if self._subscription and not self._subscription.publishers else ''

    def read(self, arrival: Arrival) -> Frame:
        """The frame in a message.

        Raises:
            ValueError: one sentence on what is wrong with the message.
        """
        features = features_from_message(arrival.message, arrival.info)
        if not (np.isfinite(features.keypoints).all() and np.isfinite(features.descriptors).all()):
            raise ValueError('a keypoint or descriptor is not a finite number')
        if not features.descriptors.shape[1]:
            raise ValueError('the features have no descriptors; they come from a model that only detects')
        return Frame(arrival.message.header, features, arrival.writers)

    def fail(self, error: Exception) -> None:
        """Count a message that could not be processed, and log why."""
        expected = isinstance(error, ValueError)
        self.statistics.fail(str(error) if expected else repr(error))
        if self._node.context.ok():
            trace = '' if expected else '\n' + ''.join(traceback.format_exception(error))
            what = f'{self.topic}: {self.statistics.last_error}{trace}'
            self._node.get_logger().error(what, throttle_duration_sec=2)

    def image(self, frame: Frame) -> images.Gray | None:
        """The image in which the features of a frame were found, if it is there."""
        message = self._images.get(frame.stamp)
        if message is None:
            return None
        try:
            return images.decompress(message) if isinstance(message, CompressedImage) else images.to_gray(message)
        except ValueError:  # the detector says so
            return None

    def camera(self, rectified: bool) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], bool]:
        """The camera matrix (3, 3), the distortion coefficients, and whether these are of a fisheye lens.

        Args:
            rectified: whether the images are; then there is no distortion.

        Raises:
            ValueError: there is no calibration, or it is empty.
        """
        info = self.camera_info
        if info is None:
            raise ValueError(f'geometry is essential, but nothing came on {self._prefix}camera_info')
        matrix = np.array(info.p).reshape(3, 4)[:, :3] if rectified else np.array(info.k).reshape(3, 3)
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise ValueError(f'{self._prefix}camera_info has focal length 0: the camera is not calibrated')
        return matrix, np.array([] if rectified else info.d, np.float64), info.distortion_model == 'equidistant'

    def undistorted(self, points: npt.NDArray[np.floating], rectified: bool) -> npt.NDArray[np.floating]:
        """Points (M, 2) in pixels without the distortion of the lens."""
        matrix, distortion, fisheye = self.camera(rectified)
        if not distortion.any() or not len(points):
            return points
        undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
        return np.asarray(undistort(points[:, None].astype(np.float64), matrix, distortion, P=matrix)[:, 0], np.float64)

    def _look_for_writers(self) -> None:
        assert self._subscription
        infos = self._node.get_publishers_info_by_topic(self._subscription.topic)
        writers = frozenset(bytes(info.endpoint_gid) for info in infos) or self._writers
        if self._writers and writers - self._writers and time.monotonic() - self._info_at > 1:
            self._info = ''  # another detector said that; this one says it with its first features
        self._writers = writers

    def _take_info(self, message: String) -> None:
        self._info, self._info_at = message.data, time.monotonic()

    def _take_camera_info(self, message: CameraInfo) -> None:
        self.camera_info = message

    def _take_image(self, message: Any) -> None:
        kept = list(self._images.items())[1 - IMAGES_KEPT :]
        self._images = dict([*kept, (nanoseconds(message.header), message)])
