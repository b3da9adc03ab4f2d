"""The topics of one camera, and what is known of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String

from superpoint_ros import clouds, images
from superpoint_ros.drawing import draw_keypoints
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features
from superpoint_ros.ros.detector_config import DetectorConfig
from superpoint_ros.ros.diagnostics import Statistics, status
from superpoint_ros.ros.messages import features_message, image_message
from superpoint_ros.ros.subscription import MatchedSubscription


class Camera:
    """Subscribes to the images of one camera, and publishes what was found in them.

    Args:
        node: whose topics they are.
        name: namespace of the topics; empty for none.
        mask: (H, W) uint8, 0 where no keypoint may be.
        config: of the node.
        extractor: whose features they will be.
    """

    def __init__(
        self, node: Node, name: str, mask: images.Gray | None, config: DetectorConfig, extractor: Extractor
    ) -> None:
        self.name = name
        self.mask = mask
        self.statistics = Statistics()
        self._node = node
        self._config = config
        self._extractor = extractor
        self._info = ''
        self._keypoints = 0
        self._subscription: MatchedSubscription | None = None
        prefix = f'{name}/' if name else ''
        self._image_topic = f'{prefix}image'
        reliability = {'reliable': ReliabilityPolicy.RELIABLE, 'best_effort': ReliabilityPolicy.BEST_EFFORT}
        qos = QoSProfile(depth=config.output_depth, reliability=reliability[config.output_reliability])
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._features = node.create_publisher(PointCloud2, f'{prefix}features', qos)
        self._annotated = node.create_publisher(Image, f'{prefix}features/image', 1)
        self._information = node.create_publisher(String, f'{prefix}features/info', latched)

    def subscribe(self, receive: Callable[[Any], None]) -> None:
        """Start to receive images."""
        kind, topic = Image, self._node.resolve_topic_name(self._image_topic)
        if self._config.image_transport == 'compressed':
            # As image_transport does it: remapping the plain topic moves this one with it.
            kind, topic = CompressedImage, f'{topic}/compressed'
        self._subscription = MatchedSubscription(self._node, kind, topic, receive, self._config.qos_reliability)

    def unsubscribe(self) -> None:
        """Stop to receive images."""
        if self._subscription:
            self._subscription.destroy()
            self._subscription = None

    def destroy(self) -> None:
        """End all topics."""
        self.unsubscribe()
        for publisher in (self._features, self._annotated, self._information):
            self._node.destroy_publisher(publisher)

    def convert(self, message: Any) -> images.Gray:
        """The gray image of a message.

        Raises:
            ValueError: one sentence on what is wrong with the message, or that the mask is not for such images.
        """
        image = images.decompress(message) if isinstance(message, CompressedImage) else images.to_gray(message)
        if self.mask is not None and self.mask.shape != image.shape:
            (height, width), (mask_height, mask_width) = image.shape, self.mask.shape
            raise ValueError(
                f'the image has {width}×{height} pixels and the mask {mask_width}×{mask_height}; they must be the same'
            )
        return image

    def publish(self, features: Features, image: images.Gray, header: Header, received_at: float) -> None:
        """Publish what was found in an image that came in at that time, with the header of its message."""
        runtime, descriptor_type = self._extractor.runtime, self._config.descriptor_type
        info = clouds.features_info(
            self._extractor.model.name, runtime.checksum, runtime.descriptor_size, descriptor_type, features.image_size
        )
        if info != self._info:
            self._information.publish(String(data=info))
            self._info = info
        self._features.publish(features_message(features, header, descriptor_type))
        self.statistics.publish(received_at)
        self._keypoints = len(features)
        if self._annotated.get_subscription_count():
            picture = (image if image.dtype == np.uint8 else image >> 8).astype(np.uint8, copy=False)
            self._annotated.publish(image_message(draw_keypoints(picture, features), header))

    def fail(self, error: Exception) -> None:
        """Count an image that could not be processed, and log why."""
        expected = isinstance(error, ValueError)
        self.statistics.fail(str(error) if expected else repr(error))
        if self._node.context.ok():
            what = f'{self._image_topic}: {self.statistics.last_error}'
            trace = '' if expected else '\n' + ''.join(traceback.format_exception(error))
            self._node.get_logger().error(what + trace, throttle_duration_sec=2)

    def report(self, facts: dict[str, str]) -> DiagnosticStatus:
        """What to tell on /diagnostics."""
        subscription, statistics = self._subscription, self.statistics
        values = statistics.values()
        message = f'{values["rate out [Hz]"]} Hz, {self._keypoints} keypoints'
        level = DiagnosticStatus.OK
        if subscription and not subscription.publishers:
            level, message = DiagnosticStatus.STALE, f'nobody publishes {subscription.topic}'
        elif subscription and (trouble := subscription.trouble()):
            level, message = DiagnosticStatus.WARN, trouble
        elif statistics.failing:
            level = DiagnosticStatus.WARN if float(values['rate out [Hz]']) else DiagnosticStatus.ERROR
            message = f'bad images: {statistics.last_error}'
        name = f'{self._node.get_name()}: {self.name}' if self.name else self._node.get_name()
        return status(level, name, message, {**values, 'keypoints': self._keypoints, **facts}, facts['device'])
